"""PURE: a value to a form. Never prints, never asks the world."""
