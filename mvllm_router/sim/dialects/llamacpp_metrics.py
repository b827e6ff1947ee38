"""The /metrics text and the /slots list of llama-server."""

from __future__ import annotations

from typing import Any

from mvllm_router.sim.state import State


def metrics_text(state: State) -> str:
    """All samples in Prometheus text format; no labels and whole numbers, as the server has."""
    lines = []
    for name, kind, help_text, value in _samples(state):
        lines.append(f"# HELP llamacpp:{name} {help_text}")
        lines.append(f"# TYPE llamacpp:{name} {kind}")
        lines.append(f"llamacpp:{name} {value if isinstance(value, int) else f'{value:g}'}")
    return "\n".join(lines) + "\n"


def _samples(state: State) -> list[tuple[str, str, str, float]]:
    prompt, predicted = state.prompt_tokens.total(), state.predicted_tokens.total()
    busy = state.step_tokens / state.steps if state.steps else 0
    return [
        ("prompt_tokens_total", "counter", "Prompt tokens, without cached ones", prompt),
        ("prompt_tokens_cached_total", "counter", "Prompt tokens from the cache", 0),
        ("prompt_seconds_total", "counter", "Time spent on prompts", state.prefill_seconds),
        ("tokens_predicted_total", "counter", "Generated tokens", predicted),
        ("tokens_predicted_seconds_total", "counter", "Time spent on them", state.decode_seconds),
        ("n_decode_total", "counter", "Decode calls", state.steps),
        ("n_tokens_max", "counter", "Longest sequence", state.longest),
        ("prompt_tokens_seconds", "gauge", "Prompt speed", _rate(prompt, state.prefill_seconds)),
        ("predicted_tokens_seconds", "gauge", "Speed", _rate(predicted, state.decode_seconds)),
        ("requests_processing", "gauge", "Requests in a slot", state.slots.running),
        ("requests_deferred", "gauge", "Requests without a slot", state.slots.waiting),
        ("n_busy_slots_per_decode", "gauge", "Average number of busy slots", busy),
    ]


def _rate(tokens: int, seconds: float) -> float:
    return tokens / seconds if seconds else 0


def slots_list(state: State) -> list[dict[str, Any]]:
    """One object per slot; the running jobs fill the first ones."""
    running = [job for job in state.jobs if job.running]
    slots: list[dict[str, Any]] = []
    for i in range(state.profile.slots):
        slot = {"id": i, "n_ctx": state.profile.context, "speculative": False}
        if i >= len(running):
            slots.append({**slot, "is_processing": False})
            continue
        job = running[i]
        token = {"has_next_token": True, "n_remain": job.left, "n_decoded": job.made}
        prompt = {"n_prompt_tokens": job.prompt_tokens}
        slots.append({**slot, "is_processing": True, **prompt, "next_token": [token]})
    return slots
