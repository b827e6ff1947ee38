"""A bound on the memory that the bodies of all requests take together while they are held."""

from __future__ import annotations

from mvllm_router.errors import Overloaded

# So many of the largest bodies may be held at once.
MOST_BODIES = 16
# Seconds after which a client may try again.
_RETRY_AFTER = 2


class Bodies:
    """What all requests hold, in bytes.

    It is counted when it is here and not when it is announced: a client that announces much and
    sends little must not shut out the others.
    """

    __slots__ = ("bytes", "longest")

    def __init__(self, longest: int) -> None:
        """`longest`: how long one body may be, in bytes; it may be changed."""
        self.longest = longest
        self.bytes = 0

    def take(self, size: int) -> None:
        """Count `size` bytes more.

        Raises:
            Overloaded: all requests together would hold too much.
        """
        if self.bytes + size > MOST_BODIES * self.longest:
            raise Overloaded(
                "The router holds as many request bodies as it may.", retry_after=_RETRY_AFTER
            )
        self.bytes += size

    def give_back(self, size: int) -> None:
        self.bytes -= size
