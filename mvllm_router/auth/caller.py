"""Who asks: what it may do, and what it has had so far."""

from __future__ import annotations

from collections.abc import Callable

from mvllm_router.auth.limits import Limits
from mvllm_router.config import KeySpec
from mvllm_router.errors import ModelNotAllowed

# Why a key's request may be refused.
REASONS = ("requests", "tokens", "concurrent", "model")

# Model names listed in an error before it is cut short.
_NAMED = 20


class Caller:
    """Somebody who may do everything, and whose requests are not counted."""

    name = ""
    priority = 0  # of its requests among those of others that wait: lower is earlier

    def may_use(self, model: str | None) -> bool:
        """Tell whether a request for `model` is allowed; None is a request that names none."""
        return True

    def admit(self, model: str | None) -> None:
        """Take a place for one request for `model`; every `admit` is followed by one `release`.

        Raises:
            ModelNotAllowed: the key is for other models. No place was taken.
            RateLimited: a limit of the key is reached. No place was taken.
        """

    def release(self) -> None:
        """Give the place back."""

    def used(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Count what an answer cost."""


ANYBODY = Caller()


class Holder(Caller):
    """Who has shown a key: one object for all requests with it, as long as the key is there."""

    def __init__(self, spec: KeySpec, monotonic: Callable[[], float]) -> None:
        """Begin with nothing used; `monotonic` gives the time in seconds."""
        self._monotonic = monotonic
        self._limits: Limits | None = None
        self.requests = 0
        self.in_flight = 0
        self.refused = dict.fromkeys(REASONS, 0)
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.adopt(spec)

    def adopt(self, spec: KeySpec) -> None:
        """Follow a reload: what the key allows may change, its counts and what it used stay."""
        self.name = spec.name
        self.priority = spec.priority
        self._models = spec.models
        limited = spec.requests_per_minute or spec.tokens_per_minute or spec.max_concurrent_requests
        if not limited:
            self._limits = None
        elif self._limits is None:
            self._limits = Limits(spec, self._monotonic())
        else:
            self._limits.adopt(spec, self._monotonic())

    def may_use(self, model: str | None) -> bool:
        return not self._models or model in self._models

    def admit(self, model: str | None) -> None:
        if self._models and model not in self._models:
            self.refused["model"] += 1
            raise self._not_allowed(model)
        if self._limits is not None:
            self._take(self._limits)
        self.requests += 1
        self.in_flight += 1

    def _take(self, limits: Limits) -> None:
        now = self._monotonic()
        refusal = limits.refusal(self.in_flight, now)
        if refusal is not None:
            self.refused[refusal.reason] += 1
            raise refusal.error(self.name)
        limits.begin(now)

    def release(self) -> None:
        self.in_flight -= 1

    def used(self, prompt_tokens: int, completion_tokens: int) -> None:
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens
        if self._limits is not None:
            self._limits.used(prompt_tokens + completion_tokens, self._monotonic())

    def _not_allowed(self, model: str | None) -> ModelNotAllowed:
        names = ", ".join(self._models[:_NAMED]) + (", ..." if len(self._models) > _NAMED else "")
        asked = f"the model `{model[:200]}`" if model else "a model that is not named"
        text = f"The key `{self.name}` may not use {asked}. It may use: {names}"
        return ModelNotAllowed(text, param="model")
