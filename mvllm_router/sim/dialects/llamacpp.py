"""llama-server (llama.cpp) as seen from outside."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

from mvllm_router.sim.dialects.base import (
    SSE_DONE,
    Asked,
    Dialect,
    Fields,
    Page,
    Refused,
    by_path,
    dumps,
    embedding,
    end_head,
    random_hex,
    reason,
)
from mvllm_router.sim.dialects.llamacpp_metrics import metrics_text, slots_list
from mvllm_router.sim.faults import Fault
from mvllm_router.sim.job import Job, Kind
from mvllm_router.sim.state import State
from mvllm_router.sim.text import detokenize, tokenize

BUILD = "b0-51a0000"
JSON_TYPE = "application/json; charset=utf-8"
NO_EMBEDDINGS = "This server does not support embeddings. Start it with `--embeddings`"
_ROLE_DELTA = '{"role":"assistant","content":null}'
_PREFLIGHT = (
    ("Access-Control-Allow-Credentials", "true"),
    ("Access-Control-Allow-Methods", "GET, POST, DELETE, OPTIONS"),
    ("Access-Control-Allow-Headers", "*"),
)
_OPEN_PATHS = ("/health", "/v1/health")
_INFERENCE: dict[str, Kind] = {
    "/v1/chat/completions": "chat",
    "/chat/completions": "chat",
    "/v1/completions": "completion",
    "/v1/embeddings": "embedding",
    "/embeddings": "embedding",
}
_ID_PREFIX: dict[Kind, str] = {"chat": "chatcmpl-", "completion": "chatcmpl-", "embedding": ""}
# What /v1/models says of a model beside OpenAI's list: mostly nothing.
_UNSAID = dict.fromkeys(("parent_model", "family", "parameter_size", "quantization_level"), "")
_OLD_CARD: dict[str, Any] = {
    **dict.fromkeys(("modified_at", "size", "digest", "description", "parameters"), ""),
    "type": "model",
    "tags": [""],
    "capabilities": ["completion"],
    "details": {**_UNSAID, "format": "gguf", "families": [""]},
}


class LlamaCpp(Dialect):
    """llama-server: takes any model name, queues without limit, closes after any error."""

    inference = _INFERENCE
    id_prefix = _ID_PREFIX
    answers_per_connection = 100
    head_first = False
    refuses_while_loading = False

    def head(self, page: Page, length: int | None) -> bytes:
        lines = [f"{self.version} {page.status} {reason(page.status)}"]
        lines += ["Server: llama.cpp", "Access-Control-Allow-Origin: "]
        lines += [f"{name}: {value}" for name, value in page.extra]
        lines.append(f"Content-Type: {page.content_type}")
        lines.append(
            "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
        )
        lines.append("Connection: close" if page.close else "Keep-Alive: timeout=5, max=100")
        return end_head(lines)

    def guard(self, asked: Asked) -> None:
        key = self.profile.api_key
        if asked.path in _OPEN_PATHS or self.bearer_ok(asked):
            return
        if asked.headers.get("x-api-key") != key:
            raise Refused(self.error(401, "Invalid API Key", type="authentication_error"))

    def page(self, asked: Asked, state: State) -> Page:
        if state.loading:
            return self._loading()
        found = by_path(
            {
                "/health": lambda: Page(200, b'{"status":"ok"}', JSON_TYPE),
                "/v1/health": lambda: Page(200, b'{"status":"ok"}', JSON_TYPE),
                "/v1/models": self._models,
                "/models": self._models,
                "/props": lambda: Page(200, dumps(self._props()), JSON_TYPE),
                "/slots": lambda: self._slots(asked, state),
                "/metrics": lambda: self._metrics(state),
            },
            asked,
            ("GET", "HEAD"),
        )
        if found and asked.method == "HEAD":
            return replace(found, extra=(*found.extra, ("Accept-Ranges", "bytes")))
        return found or self._other(asked)

    def _metrics(self, state: State) -> Page:
        extra = (("Process-Start-Time-Unix", str(int(state.created))),)
        return Page(200, metrics_text(state).encode(), "text/plain; version=0.0.4", extra)

    def _other(self, asked: Asked) -> Page:
        if asked.method == "OPTIONS":
            return Page(200, b"", "text/html", _PREFLIGHT)
        if asked.method == "POST" and asked.path == "/tokenize":
            content = self.parse(asked.body).get("content", "")
            return Page(200, dumps({"tokens": tokenize(str(content))}), JSON_TYPE)
        if asked.method == "POST" and asked.path == "/detokenize":
            return self._detokenized(self.parse(asked.body).get("tokens"))
        error = {"message": "File Not Found", "type": "not_found_error", "code": 404}
        return Page(404, dumps({"error": error}), JSON_TYPE, close=True)

    def _detokenized(self, ids: Any) -> Page:
        try:
            return Page(200, dumps({"content": detokenize(ids)}), JSON_TYPE)
        except (TypeError, ValueError, OverflowError, AttributeError):
            return self.wrong_value("tokens")

    def _loading(self) -> Page:
        error = {"message": "Loading model", "type": "unavailable_error", "code": 503}
        return Page(503, dumps({"error": error}), JSON_TYPE, close=True)

    def _slots(self, asked: Asked, state: State) -> Page:
        if "fail_on_no_slot=1" in asked.query and state.slots.full:
            return self.error(503, "no slot available", type="unavailable_error")
        return Page(200, dumps(slots_list(state)), JSON_TYPE)

    def _props(self) -> dict[str, Any]:
        return {
            "default_generation_settings": {
                "params": {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "max_tokens": -1},
                "n_ctx": self.profile.context,
            },
            "total_slots": self.profile.slots,
            "model_alias": self.profile.models[0],
            "model_ftype": "all F32",
            "model_path": f"models/{self.profile.models[0]}.gguf",
            "modalities": {"vision": False, "video": False, "audio": False},
            "endpoint_slots": True,
            "endpoint_props": False,
            "endpoint_metrics": True,
            "build_info": BUILD,
            "is_sleeping": False,
        }

    def _models(self) -> Page:
        name = self.profile.models[0]
        meta = {
            "vocab_type": 2,
            "n_vocab": 2048,
            "n_ctx": self.profile.context,
            "n_ctx_train": self.profile.context,
            "n_embd": 128,
            "n_params": 819840,
            "size": 3279360,
            "ftype": "all F32",
        }
        card = {
            "id": name,
            "aliases": list(self.profile.models),
            "tags": [],
            "object": "model",
            "architecture": {"input_modalities": ["text"], "output_modalities": ["text"]},
            "created": int(time.time()),
            "owned_by": "llamacpp",
            "meta": meta,
        }
        old = {"name": name, "model": name, **_OLD_CARD}
        return Page(200, dumps({"models": [old], "object": "list", "data": [card]}), JSON_TYPE)

    # Errors

    def error(self, status: int, message: str, **details: Any) -> Page:
        kind = details.pop("type", "invalid_request_error")
        error = {"code": status, "message": message, "type": kind, **details}
        return Page(status, dumps({"error": error}), JSON_TYPE, close=True)

    def bad_json(self, error: Exception) -> Page:
        if not isinstance(error, json.JSONDecodeError):
            return self.missing("messages")  # valid JSON, but no object
        place = error.pos + 1
        message = (
            f"[json.exception.parse_error.101] parse error at line 1, column {place}: {error.msg}"
        )
        return self.error(400, message)

    def missing(self, field: str) -> Page:
        return self.error(400, f"'{field}' is required")

    def check_length(self, job: Job) -> None:
        tokens, context = job.prompt_tokens, self.profile.context
        if tokens <= context:
            return
        message = (
            f"request ({tokens} tokens) exceeds the available context size ({context} tokens),"
            " try increasing it"
        )
        kind = "exceed_context_size_error"
        details = {"type": kind, "n_prompt_tokens": tokens, "n_ctx": context}
        raise Refused(self.error(400, message, **details))

    def fault_page(self, fault: Fault) -> Page:
        if fault in (Fault.BUSY_503, Fault.BUSY_IN_STREAM):
            return self.error(503, "no slot available", type="unavailable_error")
        if fault is Fault.RATE_429:
            # Only a gateway in front of llama-server says this.
            page = self.error(429, "Too many requests", type="rate_limit_error")
            return Page(429, page.body, JSON_TYPE, (("Retry-After", "1"),), close=True)
        return self.error(500, "Context size has been exceeded.", type="server_error")

    def fault_event(self, fault: Fault) -> str:
        return f"data: {self.fault_page(fault).body.decode()}\n\n"  # and no [DONE]

    # Requests

    def read(self, kind: Kind, asked: Asked) -> Job:
        if kind == "embedding" and not self.profile.embeddings:
            raise Refused(self.error(501, NO_EMBEDDINGS, type="not_supported_error"))
        return super().read(kind, asked)

    def new_id(self, request_id: str) -> str:
        return random_hex(32)

    def model_of(self, fields: Fields) -> str:
        return self.profile.models[0]

    def max_tokens_of(self, fields: Fields) -> int | None:
        wanted = fields.get("max_tokens")
        if wanted in (0, -1):
            return 1 if wanted == 0 else None  # -1: until the model ends by itself
        return super().max_tokens_of(fields)

    # Answers

    def stream_page(self, job: Job) -> Page:
        # The head has Keep-Alive all the same.
        extra = (("X-Accel-Buffering", "no"),)
        return Page(200, content_type="text/event-stream", extra=extra, drop=True)

    def prefix(self, job: Job) -> str:
        # The choice stands first here, so this is what follows it in each event.
        model = f'"model":{json.dumps(job.model)},"system_fingerprint":"{BUILD}"'
        if job.kind == "completion":
            return f'"created":{job.created},{model},"object":"text_completion"'
        start = f'"created":{job.created},"id":"{job.id}"'
        return f'{start},{model},"object":"chat.completion.chunk"'

    def opening(self, job: Job) -> str:
        return "" if job.kind == "completion" else self._event(job, "null", _ROLE_DELTA)

    def token(self, job: Job, text: str, *, last: bool) -> str:
        if job.kind == "completion":
            choice = f'{{"text":"{text}","index":0,"logprobs":null,"finish_reason":null}}'
            return f'data: {{"choices":[{choice}],{job.prefix},"id":"{job.id}"}}\n\n'
        return self._event(job, "null", f'{{"content":"{text}"}}')

    def _event(self, job: Job, finish: str, delta: str, more: str = "") -> str:
        choice = f'{{"finish_reason":{finish},"index":0,"delta":{delta}}}'
        return f'data: {{"choices":[{choice}],{job.prefix}{more}}}\n\n'

    def closing(self, job: Job) -> str:
        ends = f'"{job.finish}"'
        usage, timings = self._usage(job), self._timings(job)
        if job.kind == "completion":
            choice = f'{{"text":"","index":0,"logprobs":null,"finish_reason":{ends}}}'
            figures = f'{usage},"id":"{job.id}",{timings}'
            return f'data: {{"choices":[{choice}],{job.prefix},{figures}}}\n\n{SSE_DONE}'
        if not job.usage:
            return self._event(job, ends, "{}", f",{timings}") + SSE_DONE
        figures = f'data: {{"choices":[],{job.prefix},{usage},{timings}}}\n\n'
        return self._event(job, ends, "{}") + figures + SSE_DONE

    def _usage(self, job: Job) -> str:
        total = job.prompt_tokens + job.made
        return (
            f'"usage":{{"completion_tokens":{job.made},"prompt_tokens":{job.prompt_tokens},'
            f'"total_tokens":{total},"prompt_tokens_details":{{"cached_tokens":0}}}}'
        )

    def _timings(self, job: Job) -> str:
        prompt = _timing("prompt", job.prompt_tokens, self.profile.prefill(job.prompt_tokens))
        predicted = _timing("predicted", job.made, job.made * self.profile.seconds_per_token(1))
        return f'"timings":{{"cache_n":0,{prompt},{predicted}}}'

    def answer(self, job: Job) -> Page:
        if job.kind == "embedding":
            return self._embeddings(job)
        ends = f'"finish_reason":"{job.finish}"'
        if job.kind == "chat":
            message = f'{{"role":"assistant","content":"{job.text()}"}}'
            choice, name = f'{{{ends},"index":0,"message":{message}}}', "chat.completion"
        else:
            choice = f'{{"text":"{job.text()}","index":0,"logprobs":null,{ends}}}'
            name = "text_completion"
        body = (
            f'{{"choices":[{choice}],"created":{job.created},"model":{json.dumps(job.model)},'
            f'"system_fingerprint":"{BUILD}","object":"{name}",{self._usage(job)},'
            f'"id":"{job.id}",{self._timings(job)}}}'
        )
        return Page(200, body.encode(), JSON_TYPE)

    def _embeddings(self, job: Job) -> Page:
        data = [
            {"embedding": embedding(self.seed, text), "index": i, "object": "embedding"}
            for i, text in enumerate(job.texts)
        ]
        usage = {"prompt_tokens": job.prompt_tokens, "total_tokens": job.prompt_tokens}
        answer = {"model": job.model, "object": "list", "usage": usage, "data": data}
        return Page(200, dumps(answer), JSON_TYPE)


def _timing(what: str, tokens: int, seconds: float) -> str:
    return (
        f'"{what}_n":{tokens},"{what}_ms":{seconds * 1000},'
        f'"{what}_per_token_ms":{seconds * 1000 / max(1, tokens)},'
        f'"{what}_per_second":{tokens / seconds if seconds else 0.0}'
    )
