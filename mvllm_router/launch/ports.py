"""Ports for the servers, chosen so that nobody else takes them before they listen.

A port is held by a socket that is bound and does not listen. On Linux an engine that allows the
reuse of addresses, as all do, can bind and listen there all the same, and nobody else is given it.
"""

from __future__ import annotations

import random
import socket
import sys
from collections.abc import Iterator

from mvllm_router.launch.commands import HOST
from mvllm_router.launch.faults import CannotLaunch

# Below those that systems hand out for port 0 and for connections.
_FIRST, _LAST = 20000, 29999
_CAN_BE_SHARED = sys.platform == "linux"


class Ports:
    """The ports of one router's servers."""

    def __init__(self) -> None:
        self._held: dict[int, socket.socket] = {}

    def take(self) -> int:
        """Return a free port, and hold it.

        Raises:
            CannotLaunch: there is none.
        """
        for port in _shuffled():
            if port not in self._held and (held := _hold(port)) is not None:
                self._held[port] = held
                return port
        raise CannotLaunch(f"no port from {_FIRST} to {_LAST} is free")

    def about_to_listen(self, port: int, *, shares: bool) -> None:
        """Make way for the server: where it cannot bind beside us, the port is let go.

        Args:
            shares: the server allows the reuse of addresses.
        """
        if not (shares and _CAN_BE_SHARED):
            self._held[port].close()

    def give_back(self, port: int) -> None:
        self._held.pop(port).close()

    def close(self) -> None:
        for port in list(self._held):
            self.give_back(port)


def _shuffled() -> Iterator[int]:
    """Give each port once. Routers that start at the same time seldom want the same ones."""
    ports = list(range(_FIRST, _LAST + 1))
    random.shuffle(ports)
    yield from ports


def _hold(port: int) -> socket.socket | None:
    held = socket.socket()
    try:
        held.bind((HOST, port))
        if _CAN_BE_SHARED:
            # Only now: before, it would have been given a port that another program holds so.
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except OSError:
        held.close()
        return None
    return held
