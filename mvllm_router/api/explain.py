"""POST /router/explain: where a request would go now, and why. It decides nothing."""

from __future__ import annotations

import re

from mvllm_router.api.load_stats import tidy
from mvllm_router.policies import Choice, Policy, Wish
from mvllm_router.policies.least_load import LeastLoad
from mvllm_router.pool import Backend, Load, Pool
from mvllm_router.proxy.dispatch import Dispatch


def explain_document(pool: Pool, dispatch: Dispatch, wish: Wish) -> dict[str, object]:
    """Return where such a request would go, and what each server is."""
    now, model = pool.monotonic(), wish.model
    choices = dispatch.choices(model)
    policy = dispatch.policies.of(wish)
    choice = policy.would_choose(choices, wish, now) if choices else None
    chosen = choice[0] if choice else choices[0] if len(choices) == 1 else None
    loads = {backend: backend.load(now) for backend in pool.backends.values()}
    order = sorted(
        loads,
        key=lambda one: (one is not chosen, one not in choices, loads[one].score, one.name),
    )
    why = _Why(pool, policy, model, choices, choice, now)
    return {
        "model": model,
        "policy": dispatch.policies.name_of(wish),
        "chosen": chosen.name if chosen else None,
        "refused": "" if choices else dispatch.refusal(model).message,
        "candidates": [
            {
                "name": backend.name,
                "url": backend.spec.url,
                "eligible": backend in choices,
                "reason": why.of(backend),
                **_figures(loads[backend]),
                "learned": _learned(backend),
            }
            for backend in order
        ],
    }


def _figures(load: Load) -> dict[str, object]:
    running, waiting, capacity = tidy(load.running), tidy(load.waiting), tidy(load.capacity)
    below = capacity if load.share == 1 else f"({capacity}·{load.share:g})"
    return {
        "score": round(load.score, 4),
        "arithmetic": f"({running} + 0.5·{waiting})/{below} = {load.score:.2f}",
        "running": running,
        "waiting": waiting,
        "capacity": capacity,
    }


def _learned(backend: Backend) -> str:
    """Say what traffic has shown of a server, and how."""
    places, share = backend.places, backend.share
    tokens = backend.speed.tokens_per_second
    said = []
    if places.was_seen:
        said.append(f"runs {places.runs:.0f} at once: beyond that, some waited there")
    elif places.runs and not places.is_known:
        said.append(f"ran {places.runs:.0f} at once, and none waited")
    if tokens:
        said.append(f"{tokens:.0f} tokens/s for each request")
    if share < 1:
        said.append(f"{share:.0%} of the speed of the fastest")
    return ", ".join(said)


class _Why:
    """Says of each server why it is chosen or not."""

    def __init__(
        self,
        pool: Pool,
        policy: Policy,
        model: str | None,
        choices: list[Backend],
        choice: Choice | None,
        now: float,
    ) -> None:
        self._pool = pool
        self._policy = policy
        self._model = model
        self._choices = choices
        self._chosen: Backend | None = choice[0] if choice else None
        self._reason = choice[1] if choice else ""
        self._now = now

    def of(self, backend: Backend) -> str:
        if backend not in self._choices:
            return self._trouble(backend) or self._model_trouble(backend) or self._no_room(backend)
        trouble = self._trouble(backend)
        last_resort = f", the last resort ({trouble})" if trouble else ""
        return f"{self._choice(backend)}{last_resort}"

    def _choice(self, backend: Backend) -> str:
        if len(self._choices) == 1:
            return "the only one that can be asked"
        if self._chosen is None:
            said = self._policy.why or f"chosen by {type(self._policy).__name__}"
            share = backend.capacity / sum(one.capacity for one in self._choices)
            return f"{said} ({share:.0%} of the capacity)"
        by_score = self._policy.by_score or self._reason.startswith(LeastLoad.why)
        if backend is self._chosen:
            ties = sum(one.kept_score == backend.kept_score for one in self._choices)
            drawn = by_score and ties > 1
            return f"{self._what}, as {ties} have: one of them is drawn" if drawn else self._reason
        is_same = by_score and backend.kept_score == self._chosen.kept_score
        return f"as good as {self._chosen.name}" if is_same else self._lost_to(self._chosen)

    def _lost_to(self, chosen: Backend) -> str:
        if self._what.startswith(("the ", "its ")):
            return f"not {self._what}"
        return f"{chosen.name} comes first: {self._reason}"

    @property
    def _what(self) -> str:
        """What the policy went by: of "the lowest score: it names no session", the first part."""
        return re.split("[:,]", self._reason)[0]

    def _trouble(self, backend: Backend) -> str:
        """Return why a server is not well; "" for one that is."""
        health, circuit, rest = backend.health, backend.circuit, backend.rest
        if backend.draining:
            return "draining"
        if not backend.is_up:
            return f"{health.state.value}: {health.reason}"
        if not circuit.lets_through(self._now):
            return f"circuit {circuit.state(self._now).value}: {circuit.reason}"
        if not rest.is_over(self._now):
            return f"it said that it is busy, and rests for {rest.until - self._now:.1f} s more"
        return ""

    def _model_trouble(self, backend: Backend) -> str:
        names = backend.model_names()
        if self._model is None or (names is not None and self._model in names):
            return ""
        if names is not None:
            return "it does not have the model"
        return "it does not say which models it has, and another one lists this"

    def _no_room(self, backend: Backend) -> str:
        if not backend.has_room:
            return f"full: {backend.in_flight} of {tidy(backend.most)} requests"
        if backend.in_flight >= backend.open_for:
            return f"it would wait there: {tidy(backend.load(self._now).running)} are running"
        return "others are better"
