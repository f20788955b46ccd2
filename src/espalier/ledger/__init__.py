"""RECORD: git refs. Never decides."""
