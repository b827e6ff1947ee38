"""How much memory launched servers take."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

# Fields of /proc/PID/stat, counted behind the name of the program.
_GROUP, _PAGES = 2, 21
_KIB = 1024


def memory_of(groups: Collection[int]) -> dict[int, int]:
    """Return bytes of resident memory by process group; one that is over is left out.

    What processes of a group share counts for each of them.
    """
    found: defaultdict[int, int] = defaultdict(int)
    for group, size in _from_proc() if sys.platform == "linux" else _from_ps():
        if group in groups:
            found[group] += size
    return dict(found)


def _from_proc() -> Iterator[tuple[int, int]]:
    page = os.sysconf("SC_PAGE_SIZE")
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):  # one that has just ended
                fields = (entry / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
                yield int(fields[_GROUP]), int(fields[_PAGES]) * page


def _from_ps() -> Iterator[tuple[int, int]]:
    done = subprocess.run(["ps", "-A", "-o", "pgid=,rss="], capture_output=True, text=True)
    for line in done.stdout.splitlines():
        group, size = line.split()
        yield int(group), int(size) * _KIB
