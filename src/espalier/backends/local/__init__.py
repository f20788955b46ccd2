"""RUN on this machine: a durable queue, a runner that starts with the work and ends with it."""
