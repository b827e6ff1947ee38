"""The header fields of a message: as they were sent, and by their names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

RawHeaders = Sequence[tuple[bytes, bytes]]


class Fields(Mapping[str, str]):
    """The headers of one message.

    `raw` has them as they were sent, `first` the first value of each name, in lower case.
    """

    __slots__ = ("first", "raw")

    def __init__(self) -> None:
        self.raw: list[tuple[bytes, bytes]] = []
        self.first: dict[bytes, bytes] = {}

    def add(self, name: bytes, value: bytes) -> None:
        self.raw.append((name, value))
        self.first.setdefault(name.lower(), value)

    def __getitem__(self, name: str) -> str:
        return self.first[name.encode("ascii")].decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        return (name.decode("utf-8", "surrogateescape") for name in self.first)

    def __len__(self) -> int:
        return len(self.first)

    def lines(self, barred: frozenset[bytes]) -> bytes:
        """Return the lines, each with its end, but for those with one of these names."""
        return b"".join(
            [b"%b: %b\r\n" % pair for pair in self.raw if pair[0].lower() not in barred]
        )


def fields_of(raw: RawHeaders) -> Fields:
    """Return headers that were read elsewhere."""
    fields = Fields()
    for name, value in raw:
        fields.add(name, value)
    return fields
