"""llama.cpp's own `llama-server`: slots as capacity."""

from __future__ import annotations

from mvllm_router.engines.base import Engine, shown_version
from mvllm_router.engines.exposition import samples, total
from mvllm_router.pool import Sample

_RUNNING = "llamacpp:requests_processing"
_WAITING = "llamacpp:requests_deferred"
_PROMPT = "llamacpp:prompt_tokens_total"
_GENERATION = "llamacpp:tokens_predicted_total"
# No server has more; beyond it, the figure is a mistake.
_MOST_SLOTS = 100_000
_WANTED = (_RUNNING, _WAITING, _PROMPT, _GENERATION)


class LlamaCpp(Engine):
    """A `llama-server` process. It asks /metrics, never /slots: that wakes a sleeping model."""

    name = "llama.cpp"
    health_path = "/health"
    metrics_path = "/metrics"  # 501 unless it was started with --metrics
    capacity_path = "/props"
    default_capacity = 4
    # It notices that a non-stream client left only in a second without any event, and a
    # scrape is an event: asked more often, it runs abandoned requests to their end.
    min_scrape_interval = 2.0

    def read_metrics(self, text: str) -> Sample:
        found = samples(text, _WANTED)
        return Sample(
            running=total(found, _RUNNING),
            waiting=total(found, _WAITING),
            prompt_tokens=total(found, _PROMPT),
            generation_tokens=total(found, _GENERATION),
        )

    def read_capacity(self, document: object) -> int | None:
        slots = document.get("total_slots") if isinstance(document, dict) else None
        return slots if type(slots) is int and 0 < slots <= _MOST_SLOTS else None

    def read_version(self, document: object) -> str | None:
        return shown_version(document.get("build_info") if isinstance(document, dict) else None)
