"""What is asked, and when: requests that are drawn from a seed before anything is sent.

Times are seconds from the moment from which on is counted; what comes before has negative ones.
Every request has its time, whatever has become of those before it: also the turns of a chat, so
that all routers get the same ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

from fleet import MODEL, service_seconds
from serve import SEED

from mvllm_router.sim.dialects.base import answer_text, chat_texts
from mvllm_router.sim.prefix_cache import BLOCK, PrefixCache
from mvllm_router.sim.text import BYTES_PER_TOKEN, WORDS, count_tokens, tokens_in

_PROMPT, ANSWER = 80, 21  # tokens on average
LONGEST_SETTLE = 60.0  # seconds; what is counted does not depend on how many are used
_LONGEST = 12.0  # times the average: longer answers are cut
_WORDS = [word for word in WORDS if word.isascii()]

Message = dict[str, str]


@dataclass(frozen=True)
class Request:
    """A request, and when it is due.

    `seconds` is how long a free slot at full speed would work on it, `session` names the chat
    that it is a turn of.
    """

    due: float
    body: bytes = field(repr=False)
    seconds: float
    session: str = ""


def request(due: float, messages: list[Message], answer_tokens: int, session: str = "") -> Request:
    """Return a request for a streamed chat."""
    body: dict[str, Any] = {"model": MODEL, "stream": True, "max_tokens": answer_tokens}
    if session:
        body["user"] = session
    prompt = "".join(chat_texts(messages) or ())
    data = json.dumps({**body, "messages": messages}, separators=(",", ":")).encode()
    return Request(due, data, service_seconds(count_tokens(prompt), answer_tokens), session)


def text(dice: Random, tokens: int) -> str:
    """Return words that make so many tokens."""
    size = max(1, tokens) * BYTES_PER_TOKEN
    return "".join(dice.choices(_WORDS, k=size // 3))[:size]


def around(dice: Random, mean: float) -> int:
    """Return a number of tokens, at least 1, exponentially distributed."""
    return 1 + int(min(dice.expovariate(1 / (mean - 0.5)), mean * _LONGEST))


# --- single requests

Drawn = Callable[[Random, float, float, float], Iterable[Request]]  # rate, begin, end


def single(dice: Random, due: float) -> Request:
    """Return a request that shares nothing with others."""
    messages = [{"role": "user", "content": text(dice, around(dice, _PROMPT))}]
    return request(due, messages, around(dice, ANSWER))


def moments(dice: Random, rate: float, begin: float, end: float) -> Iterator[float]:
    moment = begin + dice.expovariate(rate)
    while moment < end:
        yield moment
        moment += dice.expovariate(rate)


def poisson(dice: Random, rate: float, begin: float, end: float) -> Iterator[Request]:
    """Yield requests that come at random."""
    for moment in moments(dice, rate, begin, end):
        yield single(dice, moment)


_BURST = 20  # requests, within so many seconds:
_BURST_SECONDS = 0.05


def burst(dice: Random, rate: float, begin: float, end: float) -> Iterator[Request]:
    """Yield requests of which many come at once."""
    for moment in moments(dice, rate / _BURST, begin, end):
        for _ in range(dice.randint(1, 2 * _BURST - 1)):
            yield single(dice, min(end, moment + dice.random() * _BURST_SECONDS))


# --- how many


def rate_for(load: float, drawn: Drawn, slots: float) -> float:
    """Return the requests a second that are a `load` (1 is all) of so many slots at full speed.

    As if nothing were cached: where prompts repeat, caches leave room.
    """
    some = [each.seconds for each in drawn(Random("mean"), 20.0, 0.0, 60.0)]
    return load * slots / (sum(some) / len(some))


def most_hits(requests: list[Request]) -> float:
    """Return the share of the counted prompt tokens that one cache without limits would find."""
    fields = [json.loads(each.body) for each in requests]
    prompts = ["".join(chat_texts(each["messages"]) or ()).encode() for each in fields]
    cache = PrefixCache(sum(len(prompt) for prompt in prompts) // BLOCK)
    found = looked_up = 0
    for each, prompt, asked in zip(requests, prompts, fields, strict=True):
        held = cache.begin(prompt)
        cache.end(held, answer_text(SEED, asked).encode())
        if each.due >= 0:
            found, looked_up = found + held.found, looked_up + tokens_in(prompt)
    return found / looked_up


def draw(drawn: Drawn, rate: float, seed: object, settle: float, seconds: float) -> list[Request]:
    """Return what is sent, in order: in `settle` seconds before the counting begins, and then."""
    every = drawn(Random(str(seed)), rate, -LONGEST_SETTLE, seconds)
    return sorted((each for each in every if each.due >= -settle), key=lambda each: each.due)
