"""What vLLM publishes of its KV cache, read from the wire."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec

# vLLM's own name of a block: a number, or bytes where it is told to send these.
BlockHash: TypeAlias = "int | bytes"

# What holds blocks that a request can use as they are; blocks elsewhere have to be fetched first.
_MEDIA = (None, "GPU")
# Kinds of attention for which blocks at the beginning of a prompt stay; others let go of them.
_KINDS = (None, "full_attention", "mla_attention", "sink_full_attention")

# Tokens. No engine on a GPU has smaller blocks, and each costs the router time.
_SMALLEST = 8

# Until late in 2025 events were arrays, with these members in this order after their type.
_STORED = (
    "block_hashes",
    "parent_block_hash",
    "token_ids",
    "block_size",
    "lora_id",
    "medium",
    "lora_name",
    "extra_keys",
    "group_idx",
    "kv_cache_spec_kind",
)
_REMOVED = ("block_hashes", "medium", "group_idx")
_MEMBERS: Mapping[object, tuple[str, ...]] = {"BlockStored": _STORED, "BlockRemoved": _REMOVED}


@dataclass(frozen=True, slots=True)
class Stored:
    """Blocks that follow each other, and all that they depend on.

    `tokens` are those of all blocks, as `pack` has them. `extra` is what the blocks depend on
    beside tokens and adapter, one entry for each block: salts, pictures; () for nothing.
    """

    hashes: tuple[BlockHash, ...]
    parent: BlockHash | None
    tokens: bytes
    block_size: int
    adapter: str = ""
    extra: tuple[tuple[Any, ...], ...] = ()
    group: int = 0


@dataclass(frozen=True, slots=True)
class Removed:
    """Blocks that are gone."""

    hashes: tuple[BlockHash, ...]
    group: int = 0


@dataclass(frozen=True, slots=True)
class Cleared:
    """All blocks are gone."""


KvEvent: TypeAlias = "Stored | Removed | Cleared"

TOKEN_BYTES = array("I").itemsize


def pack(tokens: Sequence[int]) -> bytes:
    """Return token ids as bytes, `TOKEN_BYTES` for each.

    Raises:
        ValueError: one of them is no token id.
    """
    try:
        return array("I", tokens).tobytes()
    except (TypeError, OverflowError) as error:
        raise ValueError(f"a token id is none: {error}") from None


def read_events(payload: bytes) -> list[KvEvent]:
    """Return the events of one message that matter to who looks for cached prompts.

    What is stored elsewhere than where the engine computes is left out, and so are kinds of
    attention that forget beginnings.

    Raises:
        ValueError: it is not what vLLM publishes.
    """
    try:
        _, events, *_ = msgspec.msgpack.decode(payload)
        return [event for one in events if (event := _event(one)) is not None]
    except (msgspec.DecodeError, RecursionError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"a message of KV events cannot be read: {error!r}") from None


def _event(one: Any) -> KvEvent | None:
    kind, fields = _fields(one)
    if kind == "AllBlocksCleared":
        return Cleared()
    if kind not in _MEMBERS or fields.get("medium") not in _MEDIA:
        return None
    hashes, group = tuple(fields["block_hashes"]), fields.get("group_idx") or 0
    if not all(isinstance(name, (int, bytes)) for name in hashes):
        raise ValueError("the hash of a block is neither a number nor bytes")
    if kind == "BlockRemoved":
        return Removed(hashes, group)
    return _stored(fields, hashes, group)


def _fields(one: Any) -> tuple[object, Mapping[str, Any]]:
    """Return the type of an event and its members, however it is written."""
    if isinstance(one, dict):
        return one.get("type"), one
    kind, *values = one
    return kind, dict(zip(_MEMBERS.get(kind, ()), values, strict=False))


def _stored(fields: Mapping[str, Any], hashes: tuple[BlockHash, ...], group: int) -> Stored | None:
    adapter = fields.get("lora_name") or ""
    if fields.get("kv_cache_spec_kind") not in _KINDS:
        return None
    if not adapter and fields.get("lora_id") is not None:
        return None  # adapters had numbers first, which requests do not name
    size, tokens, extra = fields["block_size"], fields["token_ids"], fields.get("extra_keys")
    if not isinstance(size, int) or size < _SMALLEST or len(tokens) != size * len(hashes):
        raise ValueError("blocks are shorter than any, or not as long as they are said to be")
    if extra is not None and len(extra) != len(hashes):
        raise ValueError("not every block says what it depends on")
    parent = fields["parent_block_hash"]
    if not isinstance(adapter, str):
        raise ValueError("the name of an adapter is none")
    if not isinstance(parent, (int, bytes, type(None))):
        raise ValueError("the hash of a parent is neither a number nor bytes")
    return Stored(
        hashes,
        parent,
        pack(tokens),
        size,
        adapter,
        tuple(_tuple(keys) for keys in extra or ()),
        group,
    )


def _tuple(keys: Any) -> tuple[Any, ...]:
    return tuple(keys) if keys else ()
