"""A session stays where it is, until that server is too busy."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from mvllm_router.policies.affinity import Affinity
from mvllm_router.policies.base import Choice, Wish
from mvllm_router.pool import Backend

HEADER = "x-session-id"
# Seconds without a request after which a session is over, and how many are remembered at most.
_EXPIRES, _MOST = 3600.0, 50_000

_STAYS = "where its session is"
_NEW = "the lowest score, for a new session"
_MOVES = "the lowest score: where its session was is too busy or gone"
_NONE = "the lowest score: it names no session"


class _Body(msgspec.Struct):
    """What names a session in a body; the first that is there counts."""

    session_id: Any = None
    prompt_cache_key: Any = None
    user: Any = None


_body = msgspec.json.Decoder(_Body)


class Session(Affinity):
    """Keep the requests of a session together: the server still has their prompts in its cache.

    A session is named by the header `x-session-id`, else by `session_id`, `prompt_cache_key` or
    `user` in the body.
    """

    why = "where its session is"

    def __init__(self, random_share: Callable[[], float] = random.random) -> None:
        super().__init__(random_share)
        # Where each is, by a number for its model and name, and when it was last used; the latest
        # stands last.
        self._homes: OrderedDict[int, tuple[Backend, float]] = OrderedDict()

    def choose(self, candidates: Sequence[Backend], wish: Wish, now: float) -> Choice:
        key = _key(wish)
        if key is None:
            return self.least(candidates), _NONE
        backend, why = self._find(key, candidates, now)
        self._keep(key, backend, now)
        return backend, why

    def would_choose(self, candidates: Sequence[Backend], wish: Wish, now: float) -> Choice:
        key = _key(wish)
        if key is None:
            return self.least(candidates), _NONE
        return self._find(key, candidates, now)

    def forget(self, backend: Backend) -> None:
        gone = [key for key, (home, _) in self._homes.items() if home is backend]
        for key in gone:
            del self._homes[key]

    def _find(self, key: int, candidates: Sequence[Backend], now: float) -> Choice:
        home, used = self._homes.get(key, (None, 0.0))
        if home is None or now - used > _EXPIRES:
            return self.least(candidates), _NEW
        stays = self.stay((home,), candidates)
        return (stays, _STAYS) if stays else (self.least(candidates), _MOVES)

    def _keep(self, key: int, backend: Backend, now: float) -> None:
        homes = self._homes
        homes[key] = backend, now
        homes.move_to_end(key)
        if len(homes) > _MOST:
            homes.popitem(last=False)
        _, (_, oldest) = next(iter(homes.items()))
        if now - oldest > _EXPIRES:
            homes.popitem(last=False)


def _key(wish: Wish) -> int | None:
    name = _name(wish)
    return hash((wish.model, name)) if name else None


def _name(wish: Wish) -> str:
    named = wish.header(HEADER)
    if not named and wish.body[:1] == b"{":
        try:
            body = _body.decode(wish.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return ""  # not JSON, though it begins so: a form, or a body of another kind
        named = body.session_id or body.prompt_cache_key or body.user
    return named if isinstance(named, str) else ""
