"""Replays a trace file: the Mooncake format (JSON lines) or that of Azure (CSV).

Mooncake: `{"timestamp": 0, "input_length": 1300, "output_length": 52, "hash_ids": [0, 1, 2]}`, in
milliseconds; each id stands for 512 tokens, the same ones wherever it occurs, the last for what is
left. Azure: the columns TIMESTAMP, ContextTokens and GeneratedTokens; prompts share nothing. The
times are stretched or pressed together to give the wanted load.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from random import Random

from workloads import Drawn, Request, request, text

from mvllm_router.sim.text import BYTES_PER_TOKEN

_BLOCK = 512  # tokens


@dataclass(frozen=True)
class Entry:
    """A line of a trace: seconds since its first one, numbers of tokens, and what the prompt has.

    `blocks` name pieces of 512 tokens; without any the prompt is like no other.
    """

    when: float
    prompt_tokens: int
    answer_tokens: int
    blocks: tuple[int, ...] = ()


def read(file: Path) -> list[Entry]:
    """Read a trace, in order of time.

    Raises ValueError for a file that is empty or of another format.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            begin = lines.read(1)
            lines.seek(0)
            entries = list(_mooncake(lines) if begin == "{" else _azure(lines))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{file} has neither Mooncake's fields nor Azure's: {error}") from None
    if not entries:
        raise ValueError(f"{file} has no requests")
    first = min(entry.when for entry in entries)
    moved = (
        Entry(one.when - first, one.prompt_tokens, one.answer_tokens, one.blocks) for one in entries
    )
    return sorted(moved, key=lambda entry: entry.when)


def _mooncake(lines: Iterable[str]) -> Iterator[Entry]:
    for line in lines:
        if line.strip():
            fields = json.loads(line)
            when, blocks = fields["timestamp"] / 1e3, tuple(fields["hash_ids"])
            yield Entry(when, fields["input_length"], fields["output_length"], blocks)


def _azure(lines: Iterable[str]) -> Iterator[Entry]:
    for row in csv.DictReader(lines):
        when = _seconds(row["TIMESTAMP"])
        yield Entry(when, int(row["ContextTokens"]), int(row["GeneratedTokens"]))


def _seconds(moment: str) -> float:
    """Read a time such as 2023-11-16 18:15:46.6805900, which has a digit too many for Python."""
    whole, _, part = moment.partition(".")
    digits = part.partition("+")[0]
    return datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{digits or 0}")


def prompt(entry: Entry, name: object) -> str:
    """Return a text that has the pieces of an entry; where it has none, one of this name alone."""
    if not entry.blocks:
        return text(Random(f"{name}"), entry.prompt_tokens)
    *whole, last = entry.blocks
    left = max(1, entry.prompt_tokens - _BLOCK * len(whole))
    return "".join(map(_piece, whole)) + _piece(last)[: left * BYTES_PER_TOKEN]


@lru_cache(maxsize=20_000)
def _piece(block: int) -> str:
    return text(Random(block), _BLOCK)


def replay(entries: list[Entry]) -> Drawn:
    """Return the trace as a workload: from a place in it that chance chooses, and round again."""
    span = entries[-1].when + (entries[-1].when or 1.0) / len(entries)

    def drawn(dice: Random, rate: float, begin: float, end: float) -> Iterator[Request]:
        press = len(entries) / span / rate  # seconds of the run for one of the trace
        place, when = dice.randrange(len(entries)), begin
        while when < end:
            entry = entries[place]
            messages = [{"role": "user", "content": prompt(entry, when)}]
            yield request(when, messages, max(1, entry.answer_tokens))
            place = (place + 1) % len(entries)
            gap = entries[place].when - entry.when if place else span - entry.when
            when += gap * press

    return drawn
