"""A bound on the memory that the bodies of all requests take together while they are held."""

from __future__ import annotations

from mvllm_router.errors import Overloaded

# So many of the largest bodies may be held at once.
MOST_BODIES = 16
# Seconds after which a client may try again.
_RETRY_AFTER = 2


class Bodies:
    """What all requests hold, in bytes."""

    def __init__(self) -> None:
        self.bytes = 0


class HeldBody:
    """What one request holds of it: counted as it comes, and given back once."""

    __slots__ = ("_all", "_bytes")

    def __init__(self, bodies: Bodies) -> None:
        self._all = bodies
        self._bytes = 0

    def add(self, size: int, most: int) -> None:
        """Count `size` bytes more.

        They are counted when they are here and not when they are announced: a client that
        announces much and sends little must not shut out the others.

        Raises:
            Overloaded: all requests together would hold more than `most` bytes.
        """
        if self._all.bytes + size > most:
            raise Overloaded(
                "The router holds as many request bodies as it may.", retry_after=_RETRY_AFTER
            )
        self._all.bytes += size
        self._bytes += size

    def release(self) -> None:
        """Give all of it back; a second call does nothing."""
        self._all.bytes -= self._bytes
        self._bytes = 0
