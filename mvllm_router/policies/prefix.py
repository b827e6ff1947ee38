"""Prompts go where the server has their beginning in its cache, as long as it has room."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Sequence

from mvllm_router.policies.affinity import Affinity
from mvllm_router.policies.base import Choice, Wish
from mvllm_router.policies.prompt import ENDS, blocks_of
from mvllm_router.pool import Backend

# Bytes of prompts that a server is taken to remember: about 500,000 tokens.
REMEMBERED = 2 * 1024 * 1024
# Choices by load alone, among those that could have been by prefix: a beginning that is used much
# comes to more servers so, before the first one is full.
_EXPLORED = 1 / 64

_KNOWN = "it knows the beginning of the prompt"
_NEW = "the lowest score: no server knows the prompt"
_BUSY = "the lowest score: those that know the prompt are too busy"
_EXPLORES = "the lowest score, to spread a prompt that others know"


class Memory:
    """What one server is taken to have in its cache; what was used least lately goes first."""

    __slots__ = ("blocks", "size")

    def __init__(self) -> None:
        self.blocks: OrderedDict[int, int] = OrderedDict()  # to the bytes of each
        self.size = 0


class PrefixIndex:
    """Which servers have seen which beginnings of prompts; bounded for each server."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        """`remembered` is in bytes, of each server."""
        self._remembered = remembered
        self._homes: dict[int, set[Backend]] = {}
        self._memories: dict[Backend, Memory] = {}

    def __len__(self) -> int:
        return len(self._homes)

    def homes(self, block: int) -> set[Backend] | None:
        """Return the servers that have seen a prompt up to the end of `block`, if any has."""
        return self._homes.get(block)

    def add(self, backend: Backend, blocks: list[int]) -> None:
        """Note that a server sees a prompt of these blocks now."""
        memory = self._memories.get(backend)
        if memory is None:
            memory = self._memories[backend] = Memory()
        known, homes = memory.blocks, self._homes
        # The last first: as engines do, the end of a prompt is let go of before its beginning.
        for place in range(len(blocks) - 1, -1, -1):
            block = blocks[place]
            if block in known:
                known.move_to_end(block)
                continue
            known[block] = size = ENDS[place] - (ENDS[place - 1] if place else 0)
            memory.size += size
            homes.setdefault(block, set()).add(backend)
        while memory.size > self._remembered:
            self._let_go(backend, memory)

    def _let_go(self, backend: Backend, memory: Memory) -> None:
        block, size = memory.blocks.popitem(last=False)
        memory.size -= size
        self._leave(block, backend)

    def _leave(self, block: int, backend: Backend) -> None:
        homes = self._homes[block]
        homes.discard(backend)
        if not homes:
            del self._homes[block]

    def forget(self, backend: Backend) -> None:
        """Let go of all that a server has seen."""
        memory = self._memories.pop(backend, None)
        for block in memory.blocks if memory else ():
            self._leave(block, backend)


class Prefix(Affinity):
    """Choose the server that knows most of a prompt's beginning, among those with room."""

    why = "it knows the beginning of the prompt"

    def __init__(
        self,
        random_share: Callable[[], float] = random.random,
        remembered: int = REMEMBERED,
    ) -> None:
        """`remembered` is how many bytes of prompts each server is taken to remember."""
        super().__init__(random_share)
        self.index = PrefixIndex(remembered)

    def choose(self, candidates: Sequence[Backend], wish: Wish, now: float) -> Choice:
        blocks = blocks_of(wish)
        backend, why = self._find(candidates, blocks)
        if why is _KNOWN and self._random() < _EXPLORED:
            backend, why = self.least(candidates), _EXPLORES
        self.index.add(backend, blocks)
        return backend, why

    def would_choose(self, candidates: Sequence[Backend], wish: Wish, now: float) -> Choice:
        return self._find(candidates, blocks_of(wish))

    def forget(self, backend: Backend) -> None:
        self.index.forget(backend)

    def _find(self, candidates: Sequence[Backend], blocks: list[int]) -> Choice:
        """Return who knows most of the prompt and has room, else who has the lowest score."""
        nobody = True
        asked: set[Backend] = set()
        for block in reversed(blocks):
            homes = self.index.homes(block)
            if homes is None or homes <= asked:
                continue
            nobody = False
            stays = self.stay(homes - asked, candidates)
            if stays:
                return stays, _KNOWN
            asked |= homes
        return self.least(candidates), _NEW if nobody else _BUSY
