"""How long the body of a request may take."""

from __future__ import annotations

from mvllm_router.errors import SlowUpload

# Bytes per second that an upload must come at, on average, once it has taken as long as a client
# may be silent. Mobile networks are faster; a body in drops would be held for days.
_SLOWEST = 1024


class Upload:
    """The times of one upload, in monotonic seconds: its begin, and when something of it came."""

    __slots__ = ("last_read", "since")

    def __init__(self) -> None:
        self.begin(0.0)

    def begin(self, now: float) -> None:
        self.since = self.last_read = now

    def fault(self, size: int, now: float, patience: float) -> SlowUpload | None:
        """Return what is wrong with it, if anything is.

        Args:
            size: the bytes that have come.
            now: monotonic seconds.
            patience: seconds that a client may be silent.
        """
        if now - self.last_read > patience:
            return SlowUpload(f"Nothing of the request body came for {patience:g} s.")
        seconds = now - self.since
        if seconds > patience and size < seconds * _SLOWEST:
            return SlowUpload(f"The request body came at less than {_SLOWEST} bytes per second.")
        return None
