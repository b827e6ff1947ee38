"""Chats of many turns, which begin with one of some system prompts: what prefix caches are for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from random import Random

from serve import SEED
from workloads import ANSWER, Drawn, Request, around, burst, moments, poisson, request, text

from mvllm_router.sim.dialects.base import answer_text

_PAUSE, _MORE_PAUSE = 2.0, 4.0  # seconds between two turns: the least, and on average in addition
_LONGEST = 90.0  # seconds; chats that began so early are over


@dataclass(frozen=True)
class Chats:
    """A workload: turns of chats, of which many are under way when it begins.

    Attributes:
        systems: how many system prompts there are; the more popular ones follow Zipf's law.
        system_tokens: the least and the most that a system prompt has.
        turn_tokens: what the user says each time, on average.
        turns: of a chat, on average.
        most_turns: where longer chats are cut.
        hot: share of the chats that begin with the first system prompt in any case.
    """

    systems: int = 40
    system_tokens: tuple[int, int] = (200, 1000)
    turn_tokens: float = 200.0
    turns: int = 5
    most_turns: int = 12
    hot: float = 0.0

    def __call__(self, dice: Random, rate: float, begin: float, end: float) -> Iterator[Request]:
        """Yield requests that come at this rate from `begin` to `end`."""
        for moment in moments(dice, rate / self.turns, begin - _LONGEST, end):
            yield from (turn for turn in self._chat(dice, moment) if begin <= turn.due < end)

    @cached_property
    def _prompts(self) -> list[str]:
        """The system prompts, the same in every run."""
        dice = Random("systems")
        return [text(dice, dice.randint(*self.system_tokens)) for _ in range(self.systems)]

    @cached_property
    def _popularity(self) -> list[float]:
        return [*accumulate(1 / (rank + 1) for rank in range(self.systems))]

    def _chat(self, dice: Random, begin: float) -> Iterator[Request]:
        (system,) = dice.choices(self._prompts, cum_weights=self._popularity)
        if dice.random() < self.hot:
            system = self._prompts[0]
        messages = [{"role": "system", "content": system}]
        session = f"{dice.getrandbits(64):016x}"
        for _ in range(self._turns(dice)):
            said = text(dice, around(dice, self.turn_tokens))
            messages.append({"role": "user", "content": said})
            tokens = around(dice, ANSWER)
            yield request(begin, messages, tokens, session)
            answer = answer_text(SEED, {"messages": messages, "max_tokens": tokens})
            messages.append({"role": "assistant", "content": answer})
            begin += _PAUSE + dice.expovariate(1 / _MORE_PAUSE)

    def _turns(self, dice: Random) -> int:
        return min(self.most_turns, 1 + int(dice.expovariate(-math.log(1 - 1 / self.turns))))


WORKLOADS: dict[str, Drawn] = {
    "poisson": poisson,
    "burst": burst,
    "chats": Chats(),
    "hot": Chats(hot=0.7),
}
# For engines with tiny models on this machine's processors.
SMALL = Chats(systems=20, system_tokens=(100, 300), turn_tokens=30, turns=4, most_turns=6)
