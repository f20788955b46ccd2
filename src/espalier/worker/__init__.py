"""INSIDE a trial: standard library only, nothing of ours."""
