"""The /metrics text of vLLM: the load signals, some counters and the traps between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mvllm_router.sim.prefix_cache import BLOCK
from mvllm_router.sim.state import State

_FINISH_REASONS = ("stop", "length", "abort", "error", "repetition")


def metrics_text(state: State) -> str:
    """All samples in Prometheus text format."""
    lines: list[str] = []
    for block in (_gauges(state), _counters(state), _histogram(state), _info(state)):
        lines.extend(block)
    return "\n".join(lines) + "\n"


def _labels(state: State, rank: int, **more: str) -> str:
    labels = {"engine": str(rank), "model_name": state.profile.models[0], **more}
    return "{" + ",".join(f'{name}="{_escape(labels[name])}"' for name in sorted(labels)) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _head(name: str, kind: str, help_text: str) -> Iterator[str]:
    yield f"# HELP vllm:{name} {help_text}"
    yield f"# TYPE vllm:{name} {kind}"


def _ranks(state: State) -> range:
    return range(state.profile.engines)


def _gauge_ranks(state: State) -> range:
    # Several API servers share their metrics through files, which an idle engine has not
    # written yet: the names are there, the samples are not.
    idle = state.profile.engines > 1 and not state.used
    return range(0) if idle else _ranks(state)


def _gauges(state: State) -> Iterator[str]:
    yield from _gauge(state, "num_requests_running", "Requests in execution.", state.running)
    yield from _gauge(state, "num_requests_waiting", "Requests in the queue.", state.waiting)
    yield from _head("num_requests_waiting_by_reason", "gauge", "Queued requests by reason.")
    for rank in _gauge_ranks(state):
        for reason, value in (("capacity", state.waiting(rank)), ("deferred", 0)):
            labels = _labels(state, rank, reason=reason)
            yield f"vllm:num_requests_waiting_by_reason{labels} {float(value)}"
    yield from _head("engine_sleep_state", "gauge", "1 for the state that the engine is in.")
    for rank in _gauge_ranks(state):
        for name in ("awake", "weights_offloaded", "discard_all"):
            labels = _labels(state, rank, sleep_state=name)
            yield f"vllm:engine_sleep_state{labels} {float(name == 'awake')}"
    yield from _gauge(state, "kv_cache_usage_perc", "KV cache in use, 1 is full.", state.kv_usage)


def _gauge(state: State, name: str, help_text: str, value: Callable[[int], float]) -> Iterator[str]:
    yield from _head(name, "gauge", help_text)
    for rank in _gauge_ranks(state):
        yield f"vllm:{name}{_labels(state, rank)} {float(value(rank))}"


def _counters(state: State) -> Iterator[str]:
    prompt, made = state.prompt_tokens, state.generated_tokens
    found = state.found_tokens
    yield from _counter(state, "prefix_cache_queries", "Tokens looked up.", lambda r: prompt[r])
    yield from _counter(state, "prefix_cache_hits", "Tokens found.", lambda r: found[r])
    yield from _counter(state, "prompt_tokens", "Prompt tokens processed.", lambda r: prompt[r])
    yield from _counter(state, "generation_tokens", "Tokens generated.", lambda r: made[r])
    yield from _head("request_success_total", "counter", "Finished requests by reason.")
    for rank in _ranks(state):
        for reason in _FINISH_REASONS:
            labels = _labels(state, rank, finished_reason=reason)
            yield f"vllm:request_success_total{labels} {float(state.finished[rank, reason])}"
    yield from _head("admission_rejections_total", "counter", "Refused by a queue limit.")
    labels = f'{{model_name="{_escape(state.profile.models[0])}",reason="max_num_queued_reqs"}}'
    yield f"vllm:admission_rejections_total{labels} {float(state.rejected)}"


def _counter(
    state: State, name: str, help_text: str, value: Callable[[int], float]
) -> Iterator[str]:
    yield from _head(f"{name}_total", "counter", help_text)
    for rank in _ranks(state):
        yield f"vllm:{name}_total{_labels(state, rank)} {float(value(rank))}"
    # The client library adds this to every counter, as a gauge: readers must not take it
    # for data.
    yield from _head(f"{name}_created", "gauge", help_text)
    for rank in _ranks(state):
        yield f"vllm:{name}_created{_labels(state, rank)} {state.created!r}"


def _histogram(state: State) -> Iterator[str]:
    """One histogram, so that readers meet bucket, sum and count samples."""
    name = "request_generation_tokens"
    yield from _head(name, "histogram", "Tokens generated per request.")
    for rank in _ranks(state):
        count = sum(state.finished[rank, reason] for reason in _FINISH_REASONS)
        inf = _labels(state, rank, le="+Inf")
        yield f"vllm:{name}_sum{_labels(state, rank)} {float(state.predicted_tokens[rank])}"
        yield f"vllm:{name}_bucket{inf} {float(count)}"
        yield f"vllm:{name}_count{_labels(state, rank)} {float(count)}"


def _info(state: State) -> Iterator[str]:
    yield from _head("cache_config_info", "gauge", "The cache configuration.")
    tokens = state.profile.kv_size
    for rank in _ranks(state):
        labels = (
            f'block_size="{BLOCK}",cache_dtype="auto",enable_prefix_caching="True",'
            f'engine="{rank}",kv_cache_max_concurrency="{tokens / state.profile.context}",'
            f'kv_cache_size_tokens="{tokens}",num_gpu_blocks="{tokens // BLOCK}",'
            'prefix_caching_hash_algo="sha256"'
        )
        yield f"vllm:cache_config_info{{{labels}}} 1.0"
