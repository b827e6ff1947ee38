"""Reading what vLLM publishes: as it does now, as it did before, and what is none of it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kv_kit import CLEARED, SIZE, payload, removed, stored

from mvllm_router.policies.kv_wire import Cleared, Removed, Stored, pack, read_events

TOKENS = list(range(2 * SIZE))


def test_events_are_read_as_they_are_published_now() -> None:
    extra = {"extra_keys": [["salty"], None], "group_idx": 2, "session_id": "x"}
    assert read_events(payload(stored([7, 8], TOKENS, 5, **extra), removed(3), CLEARED)) == [
        Stored((7, 8), 5, pack(TOKENS), SIZE, extra=(("salty",), ()), group=2),
        Removed((3,)),
        Cleared(),
    ]


def test_older_ones_were_arrays() -> None:
    block = ["BlockStored", [7, 8], None, TOKENS, SIZE, None]
    assert read_events(payload(block, ["BlockRemoved", [7]], ["AllBlocksCleared"])) == [
        Stored((7, 8), None, pack(TOKENS), SIZE),
        Removed((7,)),
        Cleared(),
    ]


def test_hashes_may_be_bytes() -> None:
    [event] = read_events(payload(removed(b"\x01" * 32)))
    assert event == Removed((b"\x01" * 32,))


def test_the_name_of_an_adapter_is_kept_and_a_number_alone_is_of_no_use() -> None:
    named = stored([7, 8], TOKENS, lora_id=1, lora_name="poet")
    numbered = stored([7, 8], TOKENS, lora_id=1)
    [event] = read_events(payload(named, numbered))
    assert isinstance(event, Stored)
    assert event.adapter == "poet"


@pytest.mark.parametrize(
    "event",
    [
        stored([7, 8], TOKENS, medium="CPU"),
        removed(7, medium="STORAGE"),
        stored([7, 8], TOKENS, kv_cache_spec_kind="sliding_window"),
        stored([7, 8], TOKENS, kv_cache_spec_kind="mamba"),
        {"type": "SomethingNew", "block_hashes": [1]},
        ["SomethingNew", 1],
    ],
)
def test_what_a_request_could_not_use_at_once_is_left_out(event: Any) -> None:
    assert read_events(payload(event, CLEARED)) == [Cleared()]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode(None),
        msgspec.msgpack.encode([1.5]),
        payload(3),
        payload({"type": "BlockStored", "medium": "GPU"}),
        payload(stored([7], TOKENS)),
        payload(stored([7, 8], TOKENS, block_size=1)),
        payload(stored([7, 8], TOKENS, block_size="16")),
        payload(stored([7, 8], [-1, *TOKENS[1:]])),
        payload(stored([7, 8], [2**40, *TOKENS[1:]])),
        payload(stored([7, 8], TOKENS, 1.5)),
        payload(stored([7, 8], TOKENS, lora_name=[1])),
        payload(stored([7, 8], TOKENS, extra_keys=[None])),
        payload(removed(None)),  # type: ignore[arg-type]
        b"\x91" * 5000,
    ],
)
def test_what_makes_no_sense_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        read_events(content)


_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
_MEMBER = st.sampled_from([*stored([1], TOKENS), "extra_keys", "group_idx"])


@given(st.dictionaries(_MEMBER, _ANYTHING), st.binary(max_size=64))
def test_nothing_but_a_refusal_comes_of_what_a_server_may_send(
    members: dict[str, Any], noise: bytes
) -> None:
    for content in (payload({**stored([7, 8], TOKENS), **members}), noise):
        try:
            read_events(content)
        except ValueError:
            pass
