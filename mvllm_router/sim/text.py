"""Tokens of the simulated engines: prompts are counted, answers are made up from a seed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from zlib import crc32

BYTES_PER_TOKEN = 3
_TEXT = (
    "the router server model token queue slot cache batch stream prompt answer first last"
    " next fast slow small large every other some no and or but with from into over under"
    " sends takes waits runs stops starts holds drops counts reads writes because when while"
    " “so” – naïve café 東京"
)
WORDS: tuple[str, ...] = tuple(f" {word}" for word in _TEXT.split())
# A token as it stands inside a JSON string, without the quotes: made once, not per event.
ESCAPED: tuple[str, ...] = tuple(json.dumps(word, ensure_ascii=False)[1:-1] for word in WORDS)


def tokenize(text: str) -> list[int]:
    """Token ids: every three UTF-8 bytes are one token, so equal beginnings stay equal."""
    data = text.encode()
    return [
        # The leading 1 keeps the number of bytes in a shorter last group.
        int.from_bytes(b"\x01" + data[i : i + BYTES_PER_TOKEN], "big")
        for i in range(0, len(data), BYTES_PER_TOKEN)
    ]


def detokenize(ids: Sequence[int]) -> str:
    """The text of `tokenize`'s ids. Raises ValueError or OverflowError for other numbers."""
    return b"".join(i.to_bytes(4, "big").lstrip(b"\0")[1:] for i in ids).decode()


def count_tokens(text: str) -> int:
    """How many tokens `tokenize` gives, without making them."""
    return tokens_in(text.encode())


def tokens_in(data: bytes) -> int:
    """How many tokens a text has, in UTF-8."""
    return -(-len(data) // BYTES_PER_TOKEN)


class Answer:
    """The made-up answer to one prompt: the same seed and prompt give the same tokens."""

    __slots__ = ("_start", "_step")

    def __init__(self, seed: int, prompt: str) -> None:
        mixed = crc32(prompt.encode(), seed & 0xFFFFFFFF)
        self._start = mixed % len(WORDS)
        # Any step that does not divide the number of words walks through many of them.
        self._step = 1 + (mixed >> 8) % (len(WORDS) - 1)

    def escaped(self, start: int, count: int) -> str:
        """Tokens `start` to `start + count` as they stand inside a JSON string."""
        first, step, size = self._start, self._step, len(ESCAPED)
        if count == 1:
            return ESCAPED[(first + start * step) % size]
        return "".join([ESCAPED[(first + i * step) % size] for i in range(start, start + count)])

    def text(self, count: int) -> str:
        """The first `count` tokens as a client reads them."""
        text: str = json.loads(f'"{self.escaped(0, count)}"')
        return text

    def merges(self, position: int) -> bool:
        """Whether a fast vLLM would send this token together with the one after it."""
        return (self._start + position * 5) % 4 == 0
