"""PURE: values and decisions. Never touches a file, a clock, a process or a network."""
