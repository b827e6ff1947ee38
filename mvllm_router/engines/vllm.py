"""vLLM: gauges per data-parallel engine, renamed now and then."""

from __future__ import annotations

from mvllm_router.engines.base import Engine
from mvllm_router.engines.exposition import highest, samples, total
from mvllm_router.pool import Sample

_RUNNING = "vllm:num_requests_running"
_WAITING = "vllm:num_requests_waiting"
_KV_USAGE = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")  # new name, old name
_PROMPT = "vllm:prompt_tokens_total"
_GENERATION = "vllm:generation_tokens_total"
_WANTED = (_RUNNING, _WAITING, *_KV_USAGE, _PROMPT, _GENERATION)


class VLLM(Engine):
    """A `vllm serve` process, with one engine or several behind its address."""

    name = "vllm"
    health_path = "/health"
    metrics_path = "/metrics"
    default_capacity = 16

    def read_metrics(self, text: str) -> Sample:
        """Sum running and waiting over the engines; the fullest KV cache counts.

        A server that has not had a request yet may list no sample at all.
        """
        found = samples(text, _WANTED)
        return Sample(
            running=total(found, _RUNNING),
            waiting=total(found, _WAITING),
            kv_usage=highest(found, *_KV_USAGE),
            prompt_tokens=total(found, _PROMPT),
            generation_tokens=total(found, _GENERATION),
        )
