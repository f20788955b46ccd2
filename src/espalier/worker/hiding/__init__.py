"""A folder that stands first on a trial's PYTHONPATH where the repository is installed editable."""
