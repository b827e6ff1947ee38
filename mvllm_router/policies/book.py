"""The policies that are in use, and which one is asked for a request."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import cast

from mvllm_router.config import POLICY_PLUGINS
from mvllm_router.policies.base import Policy, Wish
from mvllm_router.pool import Backend

POLICIES: dict[str, str] = {
    "least_load": "mvllm_router.policies.least_load:LeastLoad",
    "round_robin": "mvllm_router.policies.round_robin:RoundRobin",
    "random": "mvllm_router.policies.random_choice:RandomChoice",
    "power_of_two": "mvllm_router.policies.power_of_two:PowerOfTwo",
    "weighted": "mvllm_router.policies.weighted:Weighted",
    "latency": "mvllm_router.policies.latency:Latency",
    "session": "mvllm_router.policies.session:Session",
    "prefix": "mvllm_router.policies.prefix:Prefix",
    "kv_events": "mvllm_router.policies.kv_events:KvEvents",
}


class Policies:
    """One policy for most requests, others for some models; each exists once.

    `name_of` and `of` are asked for each attempt.
    """

    def __init__(
        self,
        default: str = "least_load",
        models: Mapping[str, str] | None = None,
        before: Policies | None = None,
    ) -> None:
        """Make the policies of these names.

        Args:
            default: the name of that for all models that have none of their own.
            models: the names of the others, by model.
            before: what was in use until now; policies that stay keep what they know.

        Raises:
            ValueError: no policy has such a name.
        """
        self.default = default
        self._models = dict(models or {})
        known: Mapping[str, Policy] = before._made if before else {}
        names = {default, *self._models.values()}
        self._made: dict[str, Policy] = {name: known.get(name) or make(name) for name in names}

    def name_of(self, wish: Wish) -> str:
        """Return the name of the policy for a request."""
        return self._models.get(wish.model or "", self.default)

    def of(self, wish: Wish) -> Policy:
        """Return the policy for a request."""
        return self._made[self.name_of(wish)]

    def made(self, name: str) -> Policy | None:
        """Return the policy with this name, if it is in use."""
        return self._made.get(name)

    @property
    def some_need_tokens(self) -> bool:
        """Whether one of them is of a kind that chooses by the tokens of prompts."""
        kinds = {type(policy) for policy in self._made.values()}
        return any(kind.needs_tokens is not Policy.needs_tokens for kind in kinds)

    def use(self, name: str, policy: Policy) -> None:
        """Put another policy in the place of the one with this name."""
        self._made[name] = policy

    def forget(self, backend: Backend) -> None:
        """Tell all that a backend was removed."""
        for policy in self._made.values():
            policy.forget(backend)


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
