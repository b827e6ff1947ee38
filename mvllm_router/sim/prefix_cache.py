"""The prefix cache of a vLLM engine: which blocks of which prompts it still has. No I/O here.

A block is full or it is not kept; its name comes from its tokens and from the block before it, so
that equal beginnings have equal blocks. Blocks that nobody uses stay until their place is needed,
and are given up in the order in which they came out of use, of one request the last one first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from mvllm_router.sim.text import BYTES_PER_TOKEN, tokens_in

BLOCK = 16  # tokens
_BYTES = BLOCK * BYTES_PER_TOKEN


@dataclass
class Held:
    """The blocks of a request that runs; `found` tokens of its prompt were there already."""

    prompt: bytes
    found: int = 0
    blocks: list[int] = field(default_factory=list)
    names: list[int] = field(default_factory=list)  # of the full ones


class PrefixCache:
    """The blocks of one engine.

    One thing differs from vLLM: a request for which there is no room does not wait for it, it
    runs without blocks.
    """

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self._free = OrderedDict.fromkeys(range(blocks))  # the next one to be taken comes first
        self._users = [0] * blocks
        self._names: list[int | None] = [None] * blocks
        self._block_of: dict[int, int] = {}

    @property
    def in_use(self) -> int:
        """Blocks of the requests that run."""
        return self.blocks - len(self._free)

    def begin(self, prompt: bytes) -> Held:
        """Look a prompt up and take the blocks that it needs, until `end`."""
        tokens = tokens_in(prompt)
        held = Held(prompt, names=list(_names(prompt, tokens // BLOCK)))
        # The last token is always computed, for what follows it.
        known = self._known(held.names[: (tokens - 1) // BLOCK])
        idle = sum(not self._users[block] for block in known)
        wanted = -(-tokens // BLOCK) - len(known)
        if wanted > len(self._free) - idle:
            return Held(prompt)
        for block in known:
            self._use(block)
        held.found = len(known) * BLOCK
        held.blocks = known + [self._take() for _ in range(wanted)]
        self._name(held, len(known))
        return held

    def end(self, held: Held, answer: bytes) -> None:
        """Let go of the blocks of a request, which are kept with its answer."""
        if not held.blocks:
            return
        text, full = held.prompt + answer, len(held.names)
        tokens = tokens_in(text)
        more = -(-tokens // BLOCK) - len(held.blocks)
        held.blocks += [self._take() for _ in range(min(more, len(self._free)))]
        last = held.names[-1] if full else 0
        whole = min(tokens // BLOCK, len(held.blocks))
        held.names += _names(text[full * _BYTES :], whole - full, last)
        self._name(held, full)
        for block in reversed(held.blocks):
            self._users[block] -= 1
            if not self._users[block]:
                self._free[block] = None

    def _known(self, names: list[int]) -> list[int]:
        known = []
        for name in names:
            block = self._block_of.get(name)
            if block is None:
                break
            known.append(block)
        return known

    def _use(self, block: int) -> None:
        if not self._users[block]:
            del self._free[block]
        self._users[block] += 1

    def _take(self) -> int:
        block, _ = self._free.popitem(last=False)
        name = self._names[block]
        if name is not None:
            del self._block_of[name]
            self._names[block] = None
        self._users[block] = 1
        return block

    def _name(self, held: Held, first: int) -> None:
        """Make the full blocks known, from the first new one on."""
        for place in range(first, len(held.names)):
            name, block = held.names[place], held.blocks[place]
            if name not in self._block_of:  # else another request computes the same
                self._block_of[name] = block
                self._names[block] = name


def _names(text: bytes, blocks: int, before: int = 0) -> Iterator[int]:
    """Yield the names of the first blocks, which come after one that is called `before`."""
    for place in range(blocks):
        before = hash((before, text[place * _BYTES : (place + 1) * _BYTES]))
        yield before
