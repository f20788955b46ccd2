"""Takes import paths that lie in the repository away from a trial's Python, whose copies stand in for them.

Without it a module that nobody declared would still be found in the working tree, behind its laid-out neighbours.
Python imports it at its start; it hands over to the interpreter's own ``sitecustomize``. Never imports ours.
"""

import os
import sys


def hide() -> None:
    """Remove what ESPALIER_HIDDEN names, and this folder, from where modules are found."""
    hidden = [path for path in os.environ.get("ESPALIER_HIDDEN", "").split(os.pathsep) if path]
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [
        path
        for path in sys.path
        if not path or (os.path.realpath(path) not in hidden and os.path.abspath(path) != here)
    ]
    for finder in list(sys.meta_path):
        mapping = getattr(sys.modules.get(getattr(finder, "__module__", "") or ""), "MAPPING", None)
        if isinstance(mapping, dict):  # of setuptools' editable finders
            for package, path in list(mapping.items()):
                if any(os.path.realpath(path).startswith(folder + os.sep) for folder in hidden):
                    del mapping[package]


def hand_over() -> None:
    """Import the ``sitecustomize`` that would have been imported without this one."""
    mine = sys.modules.pop(__name__, None)
    try:
        __import__("sitecustomize")
    except ImportError:
        pass
    finally:
        if mine is not None:
            sys.modules.setdefault(__name__, mine)


if __name__ == "sitecustomize":
    hide()
    hand_over()
