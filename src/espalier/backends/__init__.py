"""RUN: one package for each place that runs trials."""
