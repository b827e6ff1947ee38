"""Ends servers that were left behind: both their router and its guard were killed.

Each router keeps a list of its servers on the disk, which is gone once they are. Whoever finds the
list of a router that is no more ends what stands in it. A number of a process says little, it is
given again: a process is the same one when it also began at the same moment.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from mvllm_router.launch.guard import is_there, signalled

log = logging.getLogger(__name__)

# Seconds for servers to end by themselves, and between two looks at them.
_GRACE = 5.0
_TICK = 0.05
# Field of /proc/PID/stat, counted behind the name of the program: ticks from boot to its start.
_BEGAN = 19
_PATTERN = "*/servers-*.json"


class Ledger:
    """The list of one router's servers."""

    def __init__(self, folder: Path) -> None:
        """Keep it in a folder for a port, beside the logs."""
        self._path = folder / f"servers-{os.getpid()}.json"
        self._began: dict[int, str] = {}

    def keep(self, groups: Collection[int]) -> None:
        """Let these process groups stand in the list, and no others."""
        new = {group: when_began(group) for group in groups if group not in self._began}
        stay = {group: began for group, began in self._began.items() if group in groups}
        self._began = {**stay, **{group: began for group, began in new.items() if began}}
        self._write()

    def _write(self) -> None:
        try:
            if not self._began:
                self._path.unlink(missing_ok=True)
                return
            document = {
                "where": _where(),
                "router": {str(os.getpid()): when_began(os.getpid())},
                "servers": self._began,
            }
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            draft = self._path.with_suffix(".new")
            draft.write_text(json.dumps(document), "utf-8")
            draft.replace(self._path)
        except OSError as error:
            log.warning("the list of servers %s cannot be written: %s", self._path, error.strerror)


@dataclass(frozen=True, slots=True)
class _Left:
    """What a list says: where it was written, a router, and its servers, with when they began."""

    where: str
    router: Mapping[int, str]
    servers: Mapping[int, str]


def end_leftovers(folder: Path) -> None:
    """End the servers of all routers that are no more, and wait until they are gone.

    Args:
        folder: that of the logs; it has a folder for each port.
    """
    for path in sorted(folder.glob(_PATTERN)):
        left = _read(path)
        if left is not None and (_is_elsewhere(left.where) or _alive(left.router)):
            continue
        try:
            if left is not None and left.where == _where():
                _end(_alive(left.servers))
            path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("the list of servers %s cannot be removed: %s", path, error.strerror)


def when_began(pid: int) -> str | None:
    """Return when a process began, in a text to be compared; None where there is no such."""
    if sys.platform != "linux":
        said = subprocess.run(
            ["ps", "-o", "lstart=", "-p", str(pid)],
            capture_output=True,
            text=True,
            env={**os.environ, "LC_ALL": "C"},
        )
        return said.stdout.strip() or None
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return None
    state, *fields = stat.rpartition(")")[2].split()
    return None if state == "Z" else fields[_BEGAN - 1]


def _where() -> str:
    """Return in which run of the system, and among which processes, numbers mean the same."""
    if sys.platform != "linux":
        return sys.platform  # where the moment of a start has a date
    boot = Path("/proc/sys/kernel/random/boot_id").read_text("utf-8").strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"


def _is_elsewhere(where: str) -> bool:
    """Tell whether a list is that of another container: what it says cannot be seen from here."""
    boot, _, processes = where.partition(" ")
    own_boot, _, own_processes = _where().partition(" ")
    return boot == own_boot and processes != own_processes


def _alive(began: Mapping[int, str]) -> list[int]:
    return [pid for pid, when in began.items() if when_began(pid) == when]


def _read(path: Path) -> _Left | None:
    """Return what a list says; None where it cannot be made out."""
    try:
        document = json.loads(path.read_text("utf-8"))
        router, servers = (
            {int(pid): str(when) for pid, when in document[key].items()}
            for key in ("router", "servers")
        )
        return _Left(str(document["where"]), router, servers)
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        log.warning("the list of servers %s cannot be read: %s", path, error)
        return None


def _end(groups: list[int]) -> None:
    if not groups:
        return
    names = ", ".join(map(str, groups))
    log.warning("ending servers that a router which was killed has left: processes %s", names)
    left = [group for group in groups if signalled(group, signal.SIGTERM)]
    end = time.monotonic() + _GRACE
    while left and time.monotonic() < end:
        time.sleep(_TICK)
        left = [group for group in left if is_there(group)]
    for group in left:
        signalled(group, signal.SIGKILL)
    while left and time.monotonic() < end + _GRACE:
        time.sleep(_TICK)
        left = [group for group in left if is_there(group)]
