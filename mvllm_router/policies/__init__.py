"""Policies: each picks one of the candidates. Users add theirs as entry points."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import entry_points
from typing import Protocol, cast

from mvllm_router.config import POLICY_PLUGINS
from mvllm_router.pool import Backend

POLICIES: dict[str, str] = {
    "least_load": "mvllm_router.policies.least_load:LeastLoad",
    "round_robin": "mvllm_router.policies.round_robin:RoundRobin",
    "random": "mvllm_router.policies.random_choice:RandomChoice",
}


class Policy(Protocol):
    """Picks a backend. Plain and synchronous: it runs once for every attempt.

    What explains it may have more: a text `why`, which says in a phrase what it goes by; a method
    `would_choose` with the same arguments, which changes nothing and returns None where chance
    decides; and `by_score`, True where those with the same score are equal to it.
    """

    def choose(self, candidates: Sequence[Backend], now: float) -> Backend:
        """Return one of `candidates` (never empty); `now` is in monotonic seconds."""
        ...


def make(name: str) -> Policy:
    """Return a new policy by its name.

    Raises:
        ValueError: neither a built-in policy nor an installed entry point has that name.
    """
    if name in POLICIES:
        return _built_in(POLICIES[name])
    for entry in entry_points(group=POLICY_PLUGINS, name=name):
        return cast(Policy, entry.load()())
    raise ValueError(f"no policy is called {name!r}; there are {', '.join(POLICIES)}")


def _built_in(place: str) -> Policy:
    module, _, attribute = place.partition(":")
    return cast(Policy, getattr(import_module(module), attribute)())
