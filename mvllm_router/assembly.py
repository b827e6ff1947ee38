"""What the settings come to for each part of the router that works by rules of its own."""

from __future__ import annotations

import logging

from mvllm_router.config import Config, ServerSpec, Settings
from mvllm_router.control.prober import NoAnswer, Prober
from mvllm_router.policies import Policies
from mvllm_router.pool import CircuitRules, HealthRules, Pool
from mvllm_router.proxy.dispatch import QueueRules
from mvllm_router.proxy.relay import Limits
from mvllm_router.proxy.tokens import Tokens

log = logging.getLogger(__name__)


def health_rules(settings: Settings) -> HealthRules:
    """Return when health checks take a server out."""
    return HealthRules(
        consecutive_failures=settings.health_check_consecutive_failures,
        min_success_rate=settings.health_check_min_success_rate,
        window=settings.health_check_window_size,
        max_response_time=settings.health_check_max_response_time,
    )


def circuit_rules(settings: Settings) -> CircuitRules:
    """Return when requests that fail leave a server out."""
    return CircuitRules(
        threshold=settings.failure_threshold,
        window=settings.failure_window,
        longest_wait=settings.auto_recovery_threshold,
    )


def policies(config: Config, before: Policies | None = None) -> Policies:
    """Return the policies of a configuration.

    Raises:
        ValueError: one of them cannot be made.
    """
    settings = config.settings
    return Policies(
        settings.policy, config.policies, trials=settings.allow_policy_header, before=before
    )


def queue_rules(settings: Settings) -> QueueRules:
    """Return whether servers are capped, and who may wait."""
    return QueueRules(
        enforce_capacity=settings.enforce_capacity,
        max_queue=settings.max_queue,
        timeout=settings.queue_timeout,
        ageing=settings.priority_ageing,
    )


def limits(settings: Settings) -> Limits:
    """Return what a request may take."""
    return Limits(
        connect_timeout=settings.connect_timeout,
        first_byte_timeout=settings.first_byte_timeout,
        request_timeout=settings.request_timeout,
        max_retries=settings.max_retries,
        hide_errors=settings.hide_upstream_errors,
    )


def tokens(pool: Pool, policies: Policies, prober: Prober, before: Tokens | None) -> Tokens | None:
    """Return who finds the tokens of prompts, if a policy in use may need them.

    Args:
        before: who did until now; what that one knows is kept.
    """
    if not policies.some_need_tokens:
        return None
    if before is not None:
        before.policies = policies
        return before

    async def ask(spec: ServerSpec, path: str, body: bytes, timeout: float) -> bytes | None:
        try:
            answer = await prober.post(spec, path, body, timeout)
        except NoAnswer as problem:
            log.debug("%s: POST %s: %s", spec.name, path, problem.reason)
            return None
        if answer.status != 200:
            log.debug("%s: POST %s answered %d", spec.name, path, answer.status)
            return None
        return answer.body

    return Tokens(pool, policies, ask)
