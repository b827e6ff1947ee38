"""Prompts go where the server has their beginning in its cache, as long as it has room."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from mvllm_router.policies.affinity import Affinity
from mvllm_router.policies.base import Choice, Wish
from mvllm_router.policies.prompt import SIZES, blocks_of
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
    """What one server is taken to have in its cache, in two generations.

    What is used comes to the young one. When that is half of all that is remembered, the old one
    is let go of and the young one takes its place: so what was used least lately goes first, and
    to use something costs next to nothing.
    """

    __slots__ = ("old", "size", "young")

    def __init__(self) -> None:
        self.young: set[int] = set()  # blocks
        self.old: set[int] = set()
        self.size = 0  # bytes of the young ones


class PrefixIndex:
    """Which servers have seen which beginnings of prompts; bounded for each server."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        """`remembered` is in bytes, of each server."""
        self._remembered = remembered
        self._homes: dict[int, tuple[Backend, ...]] = {}
        self._memories: dict[Backend, Memory] = {}

    def __len__(self) -> int:
        return len(self._homes)

    def homes(self, block: int) -> tuple[Backend, ...]:
        """Return the servers that have seen a prompt up to the end of `block`."""
        return self._homes.get(block, ())

    def add(self, backend: Backend, blocks: list[int]) -> None:
        """Note that a server sees a prompt of these blocks now."""
        memory = self._memories.get(backend)
        if memory is None:
            memory = self._memories[backend] = Memory()
        young, old, homes = memory.young, memory.old, self._homes
        if young.issuperset(blocks):
            return
        for place, block in enumerate(blocks):
            if block in young:
                continue
            young.add(block)
            memory.size += SIZES[place]
            if block not in old:
                homes[block] = (*homes.get(block, ()), backend)
        if memory.size > self._remembered // 2:
            self._age(backend, memory)

    def _age(self, backend: Backend, memory: Memory) -> None:
        for block in memory.old - memory.young:
            self._leave(block, backend)
        memory.old, memory.young, memory.size = memory.young, set(), 0

    def _leave(self, block: int, backend: Backend) -> None:
        left = tuple([home for home in self._homes[block] if home is not backend])
        if left:
            self._homes[block] = left
        else:
            del self._homes[block]

    def forget(self, backend: Backend) -> None:
        """Let go of all that a server has seen."""
        memory = self._memories.pop(backend, None)
        for block in memory.old | memory.young if memory else ():
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
            homes = [home for home in self.index.homes(block) if home not in asked]
            if not homes:
                continue
            nobody = False
            stays = self.stay(homes, candidates)
            if stays:
                return stays, _KNOWN
            asked.update(homes)
        return self.least(candidates), _NEW if nobody else _BUSY
