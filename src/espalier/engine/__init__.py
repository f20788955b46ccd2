"""DO: apply, follow, reconcile. Knows the ports and no adapter."""
