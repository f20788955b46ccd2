"""One module for each command, imported when it is named: ``add_arguments`` and ``run``."""
