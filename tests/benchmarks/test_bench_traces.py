"""Trace files: both formats are read, and what they share is shared by the prompts."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from traces import Entry, prompt, read, replay

from mvllm_router.sim.text import count_tokens

MOONCAKE = """\
{"timestamp": 27500, "input_length": 1300, "output_length": 52, "hash_ids": [0, 1, 2]}
{"timestamp": 27000, "input_length": 1024, "output_length": 1, "hash_ids": [0, 3]}

{"timestamp": 30000, "input_length": 600, "output_length": 7, "hash_ids": [4, 5]}
"""
AZURE = """\
TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2024-05-10 00:00:00.009930+00:00,2162,5
"""


def trace(folder: Path, text: str, mark: str = "") -> list[Entry]:
    file = folder / "trace"
    file.write_text(mark + text, encoding="utf-8")
    return read(file)


def test_mooncake_is_read_in_order_of_time(tmp_path: Path) -> None:
    assert trace(tmp_path, MOONCAKE) == [
        Entry(0.0, 1024, 1, (0, 3)),
        Entry(0.5, 1300, 52, (0, 1, 2)),
        Entry(3.0, 600, 7, (4, 5)),
    ]


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_azure_is_read_with_times_of_any_precision(mark: str, tmp_path: Path) -> None:
    first, second, third = trace(tmp_path, AZURE, mark)
    assert first == Entry(0.0, 374, 44)
    assert second.when == pytest.approx(4.314579, abs=1e-5)
    assert (third.prompt_tokens, third.answer_tokens) == (2162, 5)


@pytest.mark.parametrize(
    "text", ["", "a,b\n1,2\n", '{"time": 1}\n', "TIMESTAMP,ContextTokens,GeneratedTokens\n"]
)
def test_another_file_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"neither|no requests"):
        trace(tmp_path, text)


def test_prompts_are_as_long_as_the_trace_says_and_share_what_it_says() -> None:
    one, two = Entry(0, 1300, 1, (0, 1, 2)), Entry(0, 1400, 1, (0, 1, 3))
    first, second = prompt(one, "a"), prompt(two, "b")
    assert (count_tokens(first), count_tokens(second)) == (1300, 1400)
    shared = 1024 * 3  # bytes
    assert first[:shared] == second[:shared]
    assert first[shared : shared + 60] != second[shared : shared + 60]


def test_prompts_without_pieces_share_nothing() -> None:
    entry = Entry(0, 400, 1)
    first, second = prompt(entry, 1.0), prompt(entry, 2.0)
    assert count_tokens(first) == count_tokens(second) == 400
    assert first[:60] != second[:60]


def test_a_replay_has_the_wanted_rate_and_keeps_the_rhythm(tmp_path: Path) -> None:
    entries = trace(tmp_path, MOONCAKE)
    requests = list(replay(entries)(Random(1), 3.0, -10.0, 90.0))
    assert len(requests) == pytest.approx(300, abs=3)
    gaps = [later.due - one.due for one, later in pairwise(requests)]
    # The gaps of the trace are 0.5 and 2.5 s; its end is followed by one of average length.
    assert sorted({round(gap, 6) for gap in gaps}) == [0.125, 0.25, 0.625]
