"""What keeps servers from being launched at all."""

from __future__ import annotations


class CannotLaunch(Exception):
    """It cannot be done as it was asked for. `hint` says what to do, "" where that is not known."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    @property
    def whole(self) -> str:
        """The message with the hint behind it."""
        return f"{self} ({self.hint})" if self.hint else str(self)
