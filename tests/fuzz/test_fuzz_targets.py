"""The targets of a fuzzer that only knows bytes take what real servers said, and nothing at all."""

from __future__ import annotations

import pytest
from fuzz_inputs import examples
from fuzz_targets import OPTIONS, TARGETS
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_takes_its_seeds_and_parts_of_them(name: str) -> None:
    run, seeds = TARGETS[name]
    run(b"")
    for seed in seeds():
        run(seed)
        run(seed[: len(seed) // 2])
        run(b"\x80" + seed[1:])


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_takes_any_bytes(name: str) -> None:
    run, _ = TARGETS[name]

    @examples(20)
    @given(st.binary(min_size=OPTIONS, max_size=60))
    def any_bytes(data: bytes) -> None:
        run(data)

    any_bytes()
