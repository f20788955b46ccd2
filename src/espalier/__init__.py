"""espalier: a declarative GitOps experiment manager for machine-learning training."""

__version__ = "0.1.0"
