"""POST /router/explain: where a request would go now, and why. It decides nothing."""

from __future__ import annotations

from mvllm_router.api.load_stats import tidy
from mvllm_router.pool import Backend, Load, Pool
from mvllm_router.proxy.dispatch import Dispatch


def explain_document(
    pool: Pool, dispatch: Dispatch, policy: str, model: str | None
) -> dict[str, object]:
    """Return where a request for `model` (None: it names none) would go, and what each server is.

    `policy` is the name of the one that is used.
    """
    now = pool.monotonic()
    choices = dispatch.choices(model)
    chosen = _chosen(dispatch, choices, now)
    loads = {backend: backend.load(now) for backend in pool.backends.values()}
    order = sorted(
        loads,
        key=lambda one: (one is not chosen, one not in choices, loads[one].score, one.name),
    )
    why = _Why(pool, dispatch, model, choices, chosen, now)
    return {
        "model": model,
        "policy": policy,
        "chosen": chosen.name if chosen else None,
        "refused": "" if choices else dispatch.refusal(model).message,
        "candidates": [
            {
                "name": backend.name,
                "url": backend.spec.url,
                "eligible": backend in choices,
                "reason": why.of(backend),
                **_figures(loads[backend]),
            }
            for backend in order
        ],
    }


def _chosen(dispatch: Dispatch, choices: list[Backend], now: float) -> Backend | None:
    """Return the one that the policy would choose, where that is certain or as good as others."""
    if not choices:
        return None
    if len(choices) == 1:
        return choices[0]
    would_choose = getattr(dispatch.policy, "would_choose", None)
    found: Backend | None = would_choose(choices, now) if would_choose else None
    return found


def _figures(load: Load) -> dict[str, object]:
    running, waiting, capacity = tidy(load.running), tidy(load.waiting), tidy(load.capacity)
    return {
        "score": round(load.score, 4),
        "arithmetic": f"({running} + 0.5·{waiting})/{capacity} = {load.score:.2f}",
        "running": running,
        "waiting": waiting,
        "capacity": capacity,
    }


class _Why:
    """Says of each server why it is chosen or not."""

    def __init__(
        self,
        pool: Pool,
        dispatch: Dispatch,
        model: str | None,
        choices: list[Backend],
        chosen: Backend | None,
        now: float,
    ) -> None:
        self._pool = pool
        self._policy = dispatch.policy
        self._model = model
        self._choices = choices
        self._chosen = chosen
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
        said = str(getattr(self._policy, "why", f"chosen by {type(self._policy).__name__}"))
        if self._chosen is None:
            share = backend.capacity / sum(one.capacity for one in self._choices)
            return f"{said} ({share:.0%} of the capacity)"
        same = self._policy_is_by_score and backend.kept_score == self._chosen.kept_score
        if backend is self._chosen:
            ties = sum(one.kept_score == backend.kept_score for one in self._choices)
            if self._policy_is_by_score and ties > 1:
                return f"{said}, as {ties} have: one of them is drawn"
            return said
        return f"as good as {self._chosen.name}" if same else f"not {said}"

    @property
    def _policy_is_by_score(self) -> bool:
        return getattr(self._policy, "by_score", False) is True

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
        return "others are better"
