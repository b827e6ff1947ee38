"""What the kernel says of processes: CPU time and memory. Linux only."""

from __future__ import annotations

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")  # a second has so many


def processes(pid: int) -> list[int]:
    """Return a process and all that it has started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in processes(int(child)))]


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process and its children have used."""
    total = 0
    for process in processes(pid):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def memory(pid: int) -> float:
    """Return the memory of a process and its children, in MB."""
    pages = sum(int(Path(f"/proc/{p}/statm").read_text().split()[1]) for p in processes(pid))
    return pages * os.sysconf("SC_PAGESIZE") / 1e6
