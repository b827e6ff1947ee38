"""How the package is run in a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path

# `python -m` would import what lies in the current folder before anything else: a json.py beside
# somebody's servers.toml. The package's own place comes last, where it is not installed.
_RUN = (
    "import runpy, sys; sys.path[0:1] = []; sys.path.append(sys.argv.pop(1)); "
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)


def command(module: str, *arguments: str) -> list[str]:
    """Return the words that run a module of this package, by this Python."""
    place = str(Path(__file__).parents[1])
    return [sys.executable, "-c", _RUN, place, module, *arguments]
