"""The policies that are in use, and which one is asked for a request."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import cast

from mvllm_router.config import POLICY_PLUGINS
from mvllm_router.errors import BadRequest
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


# The header with which a request names a policy, where it may.
HEADER = "x-router-policy"


class Policies:
    """One policy for most requests, others for some models; each exists once.

    `name_of` and `of` are asked for each attempt.
    """

    def __init__(
        self,
        default: str = "least_load",
        models: Mapping[str, str] | None = None,
        *,
        trials: bool = False,
        before: Policies | None = None,
    ) -> None:
        """Make the policies of these names.

        Args:
            default: the name of that for all models that have none of their own.
            models: the names of the others, by model.
            trials: a request may name another one in its header `x-router-policy`.
            before: what was in use until now; policies that stay keep what they know.

        Raises:
            ValueError: no policy has such a name.
        """
        self.default = default
        self._models = dict(models or {})
        self._trials = trials
        known: Mapping[str, Policy] = before._made if before else {}
        names = {default, *self._models.values()}
        self._made: dict[str, Policy] = dict(known) if trials else {}
        self._made |= {name: known.get(name) or make(name) for name in names}
        self._is_one = not self._models and not trials
        self._choices = {*POLICIES, *_installed()} if trials else set()

    def name_of(self, wish: Wish) -> str:
        """Return the name of the policy for a request.

        Raises:
            BadRequest: it asks for one that there is not.
        """
        if self._trials and (named := wish.header(HEADER)):
            return self._named(named)
        return self._models.get(wish.model or "", self.default) if self._models else self.default

    def of(self, wish: Wish) -> Policy:
        """Return the policy for a request.

        Raises:
            BadRequest: it asks for one that there is not.
        """
        if self._is_one:
            return self._made[self.default]
        return self._made[self.name_of(wish)]

    def made(self, name: str) -> Policy | None:
        """Return the policy with this name, if it is in use."""
        return self._made.get(name)

    @property
    def some_need_tokens(self) -> bool:
        """Whether one of them is of a kind that chooses by the tokens of prompts."""
        return any(map(_needs_tokens, self._made.values()))

    def use(self, name: str, policy: Policy) -> None:
        """Put another policy in the place of the one with this name."""
        self._made[name] = policy

    def forget(self, backend: Backend) -> None:
        """Tell all that a backend was removed."""
        for policy in self._made.values():
            policy.forget(backend)

    def _named(self, name: str) -> str:
        if name not in self._made:
            if name not in self._choices:  # installed packages are not searched for each request
                names = ", ".join(sorted(self._choices))
                raise BadRequest(f"{HEADER}: no such policy; there are {names}")
            self._made[name] = self._tried(name)
        return name

    def _tried(self, name: str) -> Policy:
        try:
            policy = make(name)
        except ValueError as error:
            raise BadRequest(f"{HEADER}: {error}") from None
        if _needs_tokens(policy):
            what = "can be tried only where it is in use for some model"
            raise BadRequest(f"{HEADER}: `{name}` {what}.")
        return policy


def make(name: str) -> Policy:
    """Return a new policy by its name.

    Raises:
        ValueError: neither a built-in policy nor an installed entry point has that name, or the
            package that it is from fails.
    """
    if name in POLICIES:
        return _built_in(POLICIES[name])
    for entry in entry_points(group=POLICY_PLUGINS, name=name):
        try:
            return cast(Policy, entry.load()())
        except Exception as error:  # somebody else's code
            raise ValueError(f"the policy `{name}` cannot be made: {error!r}") from error
    raise ValueError(f"no policy is called {name!r}; there are {', '.join(POLICIES)}")


def _needs_tokens(policy: Policy) -> bool:
    return type(policy).needs_tokens is not Policy.needs_tokens


def _installed() -> list[str]:
    return [entry.name for entry in entry_points(group=POLICY_PLUGINS)]


def _built_in(place: str) -> Policy:
    module, _, attribute = place.partition(":")
    return cast(Policy, getattr(import_module(module), attribute)())
