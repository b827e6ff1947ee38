"""What a simulated engine is: its dialect, its models, its size and its speed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

DialectName = Literal["vllm", "llama.cpp", "llama-cpp-python", "mlx", "openai"]
KV_TOKENS_PER_SLOT = 2048
DIALECTS: tuple[DialectName, ...] = get_args(DialectName)


@dataclass(frozen=True)
class Profile:
    """The fixed properties of one simulated engine.

    Attributes:
        dialect: the server whose answers are imitated.
        models: served names, the first one is the name in metrics and defaults.
        slots: requests that run at once; the others wait first in, first out.
        tokens_per_second: speed of one request that runs alone; 0 is as fast as possible.
        prefill_seconds: time from getting a slot to the first token, for any prompt.
        prefill_tokens_per_second: speed at which a prompt is read, in addition; what a vLLM finds
            in its prefix cache costs nothing. 0 is as fast as possible.
        kv_tokens: size of the KV cache of one rank; None: 2048 for each of its slots.
        kv_events: vLLM only: its answer to GET /kv_event_sources, which says where what is in its
            cache is published; a simulated engine leaves that to others.
        max_queue: vLLM only: with this many that run or wait, a further request gets 503, as
            with its --max-num-queued-reqs. None: no limit.
        engines: vLLM data-parallel ranks; each has its own gauge samples.
        loading_seconds: time after start in which no request is served; `math.inf` waits
            for `SimEngine.finish_loading()`.
        api_key: when set, requests must carry it as a bearer token.
        slowdown: share of the speed that each further running request takes away, 0 to 1.
        context: longest prompt plus answer, in tokens.
        embeddings: serve /v1/embeddings (for vLLM: instead of text generation).
        interrupt_requests: llama-cpp-python only: another request cuts a running stream.
    """

    dialect: DialectName
    models: tuple[str, ...]
    slots: int = 4
    tokens_per_second: float = 0.0
    prefill_seconds: float = 0.0
    prefill_tokens_per_second: float = 0.0
    kv_tokens: int | None = None
    kv_events: str = "{}"
    max_queue: int | None = None
    engines: int = 1
    loading_seconds: float = 0.0
    api_key: str | None = None
    slowdown: float = 0.0
    context: int = 32768
    embeddings: bool = False
    interrupt_requests: bool = True

    def __post_init__(self) -> None:
        """Raises ValueError when no real server could have these properties."""
        if self.dialect not in DIALECTS:
            raise ValueError(f"dialect {self.dialect!r} is not one of {', '.join(DIALECTS)}")
        if not self.models:
            raise ValueError("an engine needs at least one model name")
        if self.slots < 1 or self.engines < 1:
            raise ValueError("slots and engines must be at least 1")
        if self.max_queue is not None and self.dialect != "vllm":
            raise ValueError(f"{self.dialect} queues without limit, max_queue is vLLM's")
        if min(self.tokens_per_second, self.prefill_tokens_per_second) < 0:
            raise ValueError("tokens_per_second and prefill_tokens_per_second must be >= 0")
        if not 0 <= self.slowdown < 1:
            raise ValueError("slowdown must be in [0, 1)")

    @property
    def running_limit(self) -> int:
        """Requests that run at once; llama-cpp-python has one lock whatever is asked for."""
        return 1 if self.dialect == "llama-cpp-python" else self.slots

    @property
    def kv_size(self) -> int:
        """Tokens that fit into the KV cache of one rank."""
        if self.kv_tokens is not None:
            return self.kv_tokens
        return KV_TOKENS_PER_SLOT * max(1, self.slots // self.engines)

    def prefill(self, tokens: int) -> float:
        """Seconds to read so many tokens of a prompt."""
        rate = self.prefill_tokens_per_second
        return self.prefill_seconds + (tokens / rate if rate else 0.0)

    def seconds_per_token(self, running: int) -> float:
        """Time between two tokens of one request while `running` requests share the engine."""
        if self.tokens_per_second == 0:
            return 0.0
        left: float = (1.0 - self.slowdown) ** max(0, running - 1)
        return 1.0 / (self.tokens_per_second * left)
