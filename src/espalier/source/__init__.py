"""READ a commit: git objects, Hydra composition, resolved config to spec. Never reads the working tree."""
