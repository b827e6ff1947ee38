"""The header fields of a message: as they were sent, and by their names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

RawHeaders = Sequence[tuple[bytes, bytes]]


class Fields(Mapping[str, str]):
    """The headers of one message; they do not change once they are read.

    `raw` has them as they were sent, `first` the first value of each name, in lower case. The
    length of the body is in neither, but in `length` (as it was sent, None if it was not): it
    belongs to the framing, which the router does anew.
    """

    __slots__ = ("_lines", "first", "length", "raw")

    def __init__(self) -> None:
        self.raw: list[tuple[bytes, bytes]] = []
        self.first: dict[bytes, bytes] = {}
        self.length: bytes | None = None
        self._lines: dict[frozenset[bytes], bytes] = {}  # by those that are barred

    def add(self, name: bytes, value: bytes) -> None:
        lower = name.lower()
        if lower == b"content-length":
            self.length = value if self.length is None else self.length
        else:
            self.raw.append((name, value))
            self.first.setdefault(lower, value)

    def with_length(self, length: bytes) -> Fields:
        """Return the headers of a message that differs in its length alone."""
        fields = Fields.__new__(Fields)
        fields.raw = self.raw
        fields.first = self.first
        fields.length = length
        fields._lines = self._lines
        return fields

    def __getitem__(self, name: str) -> str:
        return self.first[name.encode("ascii")].decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        return (name.decode("utf-8", "surrogateescape") for name in self.first)

    def __len__(self) -> int:
        return len(self.first)

    def lines(self, barred: frozenset[bytes]) -> bytes:
        """Return the lines, each with its end, but for those that end at the next hop.

        Args:
            barred: names, in lower case, of those that are left out. So are those that
                `Connection` names (RFC 9110, 7.6.1). There are few such sets: the lines for
                each are kept.
        """
        lines = self._lines.get(barred)
        if lines is None:
            out = barred | self.named_by_connection() if b"connection" in self.first else barred
            kept = [b"%b: %b\r\n" % pair for pair in self.raw if pair[0].lower() not in out]
            lines = self._lines[barred] = b"".join(kept)
        return lines

    def named_by_connection(self) -> frozenset[bytes]:
        """Return the names, in lower case, that `Connection` declares to be hop-by-hop too."""
        names = [
            each.strip().lower()
            for name, value in self.raw
            if name.lower() == b"connection"
            for each in value.split(b",")
        ]
        return frozenset(names)


def fields_of(raw: Iterable[tuple[bytes, bytes]]) -> Fields:
    """Return headers that were read elsewhere."""
    fields = Fields()
    for name, value in raw:
        fields.add(name, value)
    return fields
