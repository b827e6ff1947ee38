"""Prompts go where they are in the cache, as servers tell it, as long as there is room."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from mvllm_router.policies.affinity import Affinity
from mvllm_router.policies.base import Choice, Wish
from mvllm_router.policies.kv_index import KvIndex
from mvllm_router.pool import Backend

# Tokens. To read as many again takes a server no time that anybody would feel.
_TOO_SHORT = 128

_CACHED = "it has most of the prompt in its cache"
_NEW = "the lowest score: no server has the prompt in its cache"
_BUSY = "the lowest score: those that have the prompt in their caches are too busy"
_UNREAD = "the lowest score: the tokens of the prompt are not known"


class KvEvents(Affinity):
    """Choose the server with the longest run of a prompt's blocks in its cache.

    Unlike `prefix`, it does not guess what that is from what was sent there: servers publish it.
    """

    why = _CACHED

    def __init__(self, random_share: Callable[[], float] = random.random) -> None:
        """`random_share` gives numbers from 0 up to but not including 1."""
        super().__init__(random_share)
        self.index = KvIndex()

    def needs_tokens(self, candidates: Sequence[Backend]) -> bool:
        """Tell whether one of them publishes what is in its cache."""
        return any(map(self.index.follows, candidates))

    def choose(self, candidates: Sequence[Backend], wish: Wish, now: float) -> Choice:
        if wish.prompt is None:
            return self.least(candidates), _UNREAD
        nobody = True
        for tokens, homes in self.index.runs(wish.prompt):
            if tokens < _TOO_SHORT:
                break
            nobody = False
            stays = self.stay(homes, candidates)
            if stays:
                return stays, _CACHED
        return self.least(candidates), _NEW if nobody else _BUSY

    def would_choose(self, candidates: Sequence[Backend], wish: Wish, now: float) -> Choice:
        return self.choose(candidates, wish, now)

    def forget(self, backend: Backend) -> None:
        self.index.forget(backend)
