"""Start of periscope's status shim.

`periscope run` puts this folder first on PYTHONPATH, so that every interpreter started below runs
this file. It must be quick and silent and must not be able to break the program.
"""

import sys


def _start():
    import os

    if os.environ.get("PERISCOPE_TARGET"):
        # The folder is ours: its bytecode may be kept even where the program forbids to write its
        # own. Without it every start would take some 5 ms longer.
        forbidden, sys.dont_write_bytecode = sys.dont_write_bytecode, False
        try:
            import _periscope_shim
        finally:
            sys.dont_write_bytecode = forbidden
        _periscope_shim.install()


def _leave_path():
    """Takes this folder off sys.path: the program sees the path that it would have without us."""
    import os

    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != here]


def _shadowed():
    """Finds the sitecustomize that this file hides (a distribution's, coverage's, ...)."""
    for finder in sys.meta_path:
        find_spec = getattr(finder, "find_spec", None)
        spec = find_spec("sitecustomize", None) if find_spec else None
        if spec is not None and spec.loader is not None:
            return spec
    return None


try:
    _start()
except BaseException:  # the daemon comes first: without the shim it still runs
    pass

_spec = None
try:
    _leave_path()
    _spec = _shadowed()
except BaseException:
    pass

if _spec is not None:
    from _frozen_importlib import module_from_spec as _module_from_spec

    _module = _module_from_spec(_spec)
    sys.modules["sitecustomize"] = _module
    # Its errors are not caught: `site` reports them as it would without us.
    _spec.loader.exec_module(_module)
