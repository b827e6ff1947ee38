"""What clients ask for, and how they behave: drawn from a seed. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

_WORDS = ("tell", "me", "of", "the", "sea", "and", "ships", "that", "sail", "at", "night")
_BIG = (50_000, 400_000)  # characters of a big prompt
_SLOW_TOKENS = 2400  # in the time of a pause more of them come than all buffers hold


@dataclass(frozen=True)
class Wish:
    """One request.

    Attributes:
        tokens: length of the answer.
        prompt_size: characters of the prompt.
        chat: a chat, else a completion.
        slow: the client reads more slowly than the answer comes.
        leave_after: seconds after which the client leaves; None: it stays.
        leave_at_event: number of events after which it leaves.
    """

    number: int
    model: str
    stream: bool
    tokens: int
    prompt_size: int
    chat: bool = True
    slow: bool = False
    leave_after: float | None = None
    leave_at_event: int | None = None

    @property
    def path(self) -> str:
        return "/v1/chat/completions" if self.chat else "/v1/completions"

    def body(self) -> dict[str, Any]:
        prompt = self._prompt()
        asked = (
            {"messages": [{"role": "user", "content": prompt}]} if self.chat else {"prompt": prompt}
        )
        return {"model": self.model, "stream": self.stream, "max_tokens": self.tokens, **asked}

    def _prompt(self) -> str:
        """Return a prompt that no other request has, so that no other's answer can be right."""
        dice = Random(self.number)
        words = " ".join(dice.choice(_WORDS) for _ in range(6))
        start = f"Request {self.number}: {words}. "
        return (start * (self.prompt_size // len(start) + 1))[: max(self.prompt_size, len(start))]


def wishes(seed: int, models: Sequence[str], *, leaving: float = 0.18) -> Iterator[Wish]:
    """Yield requests without end; the same arguments give the same ones.

    `leaving` is the share of the clients that do not wait for the end of their answer.
    """
    dice = Random(seed)
    number = 0
    while True:
        number += 1
        yield _wish(dice, number, models, leaving)


def _wish(dice: Random, number: int, models: Sequence[str], leaving: float) -> Wish:
    stream = dice.random() < 0.7
    slow = stream and dice.random() < 0.01
    leave_after, leave_at_event = (
        _leaving(dice, stream) if dice.random() < leaving else (None, None)
    )
    return Wish(
        number,
        # The first model is on all engines and gets most of the requests.
        model=dice.choices(models, [3] + [1] * (len(models) - 1))[0],
        stream=stream,
        tokens=_SLOW_TOKENS if slow else dice.randint(1, 40),
        prompt_size=dice.randint(*_BIG) if dice.random() < 0.04 else dice.randint(1, 300),
        chat=dice.random() < 0.8,
        slow=slow,
        leave_after=leave_after,
        leave_at_event=leave_at_event,
    )


def _leaving(dice: Random, stream: bool) -> tuple[float | None, int | None]:
    """Return after how many seconds, or at which event, a client leaves."""
    way = dice.randrange(3)
    if way == 0:
        return dice.uniform(0.0, 0.02), None  # while it is sent, or waits for a server
    if way == 1 or not stream:
        return dice.uniform(0.02, 0.3), None  # before the first byte, or in mid-answer
    return None, dice.randint(1, 20)
