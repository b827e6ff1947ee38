"""vLLM 0.32 as seen from outside."""

from __future__ import annotations

import json
import time
from typing import Any

from mvllm_router.sim.dialects.base import (
    SSE_DONE,
    Asked,
    Dialect,
    Page,
    Refused,
    by_path,
    dumps,
    embedding,
    random_hex,
    reason,
)
from mvllm_router.sim.dialects.fastapi import api_page, off_route, uvicorn_head
from mvllm_router.sim.dialects.vllm_metrics import metrics_text
from mvllm_router.sim.faults import Fault
from mvllm_router.sim.job import Job, Kind
from mvllm_router.sim.state import State
from mvllm_router.sim.text import detokenize, tokenize

VERSION = "0.32.0"
FINGERPRINT = "vllm-0.32.0-51a00000"
BUSY = (
    "The engine is currently busy and cannot accept new requests."
    " Please try again later or on a different instance."
)
DRAINING = "cannot schedule new futures after shutdown"
# What a request gets that failed in the engine and left it alive.
FAILED = "Internal server error"
DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."
_GENERATE: dict[str, Kind] = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completion",
}
_POOLING: dict[str, Kind] = {"/v1/embeddings": "embedding"}
_GUARDED = ("/v1", "/v2", "/inference", "/cohere")
_METHODS = {
    **dict.fromkeys(("/health", "/ping", "/version", "/load", "/metrics", "/v1/models"), "GET"),
    **dict.fromkeys(("/tokenize", "/detokenize"), "POST"),
    **dict.fromkeys(("/openapi.json", "/kv_event_sources"), "GET"),
}


class Vllm(Dialect):
    """A vLLM API server: uvicorn, FastAPI, one engine behind it."""

    keeps_work = False
    merges = True

    def head(self, page: Page, length: int | None) -> bytes:
        return uvicorn_head(page, length)

    def kind_of(self, asked: Asked) -> Kind | None:
        return self._served().get(asked.path) if asked.method == "POST" else None

    def _served(self) -> dict[str, Kind]:
        return _POOLING if self.profile.embeddings else _GENERATE

    def guard(self, asked: Asked) -> None:
        if asked.path.startswith(_GUARDED) and not self.bearer_ok(asked):
            raise Refused(Page(401, b'{"error":"Unauthorized"}'))

    def page(self, asked: Asked, state: State) -> Page:
        found = by_path(
            {
                "/health": lambda: Page(200, content_type=None),
                "/ping": lambda: Page(200, content_type=None),
                "/openapi.json": lambda: api_page("FastAPI", "0.1.0"),
                "/version": lambda: Page(200, dumps({"version": VERSION})),
                "/kv_event_sources": lambda: Page(200, self.profile.kv_events.encode()),
                "/load": lambda: Page(200, b'{"server_load":0}'),
                "/v1/models": self._models,
                "/metrics": lambda: Page(
                    200, metrics_text(state).encode(), "text/plain; version=1.0.0; charset=utf-8"
                ),
            },
            asked,
        )
        return found or self._other(asked)

    def _other(self, asked: Asked) -> Page:
        if asked.method == "POST" and asked.path in ("/tokenize", "/detokenize"):
            return self._tokens(asked)
        return off_route(asked, {**_METHODS, **dict.fromkeys(self._served(), "POST")})

    def _tokens(self, asked: Asked) -> Page:
        fields = self.parse(asked.body)
        self.model_of(fields)
        if asked.path == "/detokenize":
            return self._detokenized(fields.get("tokens"))
        kind: Kind = "chat" if "messages" in fields else "completion"
        ids = tokenize(self.prompts(kind, fields)[0])
        answer = {"count": len(ids), "max_model_len": self.profile.context, "tokens": ids}
        return Page(200, dumps({**answer, "token_strs": None}))

    def _detokenized(self, ids: Any) -> Page:
        try:
            return Page(200, dumps({"prompt": detokenize(ids)}))
        except (TypeError, ValueError, OverflowError, AttributeError):
            return self.wrong_value("tokens")

    def _models(self) -> Page:
        cards = [self._card(name, int(time.time())) for name in self.profile.models]
        return Page(200, dumps({"object": "list", "data": cards}))

    def _card(self, name: str, created: int) -> dict[str, Any]:
        permission = {
            "id": "modelperm-" + random_hex(16),
            "object": "model_permission",
            "created": created,
            "allow_create_engine": False,
            "allow_sampling": True,
            "allow_logprobs": True,
            "allow_search_indices": False,
            "allow_view": True,
            "allow_fine_tuning": False,
            "organization": "*",
            "group": None,
            "is_blocking": False,
        }
        return {
            "id": name,
            "object": "model",
            "created": created,
            "owned_by": "vllm",
            "root": f"models/{self.profile.models[0]}",
            "parent": None,
            "max_model_len": self.profile.context,
            "permission": [permission],
        }

    # Errors

    def error(self, status: int, message: str, **details: Any) -> Page:
        kind = details.get("type", "BadRequestError")
        param = details.get("param")
        error = {"message": message, "type": kind, "param": param, "code": status}
        return Page(status, dumps({"error": error}))

    def _invalid(self, kind: str, place: str, what: str, found: str = "") -> Page:
        line = f"{{'type': '{kind}', 'loc': '{place}', 'msg': '{what}', 'input': {found}}}"
        message = f"1 validation error:\n  {line}"
        return self.error(400, message, type="Bad Request", param=place)

    def bad_json(self, error: Exception) -> Page:
        if not isinstance(error, json.JSONDecodeError):
            return self._invalid("model_attributes_type", "body", str(error), "''")
        if not error.doc:
            return self._invalid("missing", "body", "Field required", "None")
        context = f"'<dict of 0 items>', 'ctx': {{'error': '{error.msg}'}}"
        return self._invalid("json_invalid", f"body.{error.pos}", "JSON decode error", context)

    def missing(self, field: str) -> Page:
        if field == "prompt":
            return self.error(400, "A prompt is needed. (parameter=prompt)", param=field)
        return self._invalid("missing", f"body.{field}", "Field required", "'<dict of 1 items>'")

    def wrong_value(self, field: str) -> Page:
        return self._invalid("wrong_type", f"body.{field}", "Input has a wrong type", "''")

    def too_few(self, field: str, value: int) -> Page:
        return self.error(400, f"{field} must be at least 1, got {value}.", param=field)

    def model_of(self, fields: dict[str, Any]) -> str:
        name = fields.get("model") or self.profile.models[0]
        if name not in self.profile.models:
            known = ", ".join(self.profile.models)
            message = f"The model `{name}` does not exist. Valid aliases: {known}."
            raise Refused(self.error(404, message, type="NotFoundError", param="model"))
        return str(name)

    def check_length(self, job: Job) -> None:
        if job.prompt_tokens + job.max_tokens <= self.profile.context:
            return
        message = (
            f"This model's maximum context length is {self.profile.context} tokens. However, you"
            f" requested {job.max_tokens} output tokens and your prompt contains"
            f" {job.prompt_tokens} input tokens. Please reduce one of them."
        )
        raise Refused(self.error(400, message, param="input_tokens"))

    def fault_page(self, fault: Fault) -> Page:
        if fault in (Fault.BUSY_503, Fault.BUSY_IN_STREAM):
            return self.error(503, BUSY, type=reason(503))
        if fault is Fault.RATE_429:
            page = self.error(429, "Too many requests.", type=reason(429))
            return Page(429, page.body, extra=(("retry-after", "1"),))
        message = {Fault.DRAINING_500: DRAINING, Fault.ENGINE_DEATH: DEAD}.get(fault, FAILED)
        return self.error(500, message, type="InternalServerError")

    def fault_event(self, fault: Fault) -> str:
        # These are not compact, unlike all other JSON of this server.
        page = self.fault_page(fault)
        return f"data: {json.dumps(json.loads(page.body))}\n\n{SSE_DONE}"

    # Answers

    def new_id(self, request_id: str) -> str:
        return request_id or random_hex(16)

    def _usage(self, job: Job) -> str:
        total = job.prompt_tokens + job.made
        return (
            f'"usage":{{"prompt_tokens":{job.prompt_tokens},"total_tokens":{total},'
            f'"completion_tokens":{job.made}'
        )

    def prefix(self, job: Job) -> str:
        name = "chat.completion.chunk" if job.kind == "chat" else "text_completion"
        return (
            f'data: {{"id":{json.dumps(job.id)},"object":"{name}","created":{job.created},'
            f'"model":{json.dumps(job.model)},"choices":['
        )

    def opening(self, job: Job) -> str:
        if job.kind == "completion":
            return ""
        return (
            f'{job.prefix}{{"index":0,"delta":{{"role":"assistant","content":""}},'
            '"logprobs":null,"finish_reason":null}],'
            '"prompt_token_ids":null,"prompt_text":null}\n\n'
        )

    def token(self, job: Job, text: str, *, last: bool) -> str:
        finish = f'"{job.finish}"' if last else "null"
        # Whatever is the last event before [DONE] tells the fingerprint.
        end = f',"system_fingerprint":"{FINGERPRINT}"' if last and not job.usage else ""
        if job.kind == "completion":
            return (
                f'{job.prefix}{{"index":0,"text":"{text}","logprobs":null,'
                f'"finish_reason":{finish},"stop_reason":null,'
                '"prompt_token_ids":null,"token_ids":null}]'
                f"{end}}}\n\n"
            )
        stop = '"stop_reason":null,' if last else ""
        return (
            f'{job.prefix}{{"index":0,"delta":{{"content":"{text}"}},"logprobs":null,'
            f'"finish_reason":{finish},{stop}"token_ids":null}}]{end}}}\n\n'
        )

    def closing(self, job: Job) -> str:
        if not job.usage:
            return SSE_DONE
        return (
            f'{job.prefix}],{self._usage(job)}}},"system_fingerprint":"{FINGERPRINT}"}}\n\n'
            + SSE_DONE
        )

    def answer(self, job: Job) -> Page:
        if job.kind == "embedding":
            return self._embeddings(job)
        body = self._chat(job) if job.kind == "chat" else self._completion(job)
        return Page(200, body.encode())

    def _frame(self, job: Job, name: str, choice: str, rest: str) -> str:
        return (
            f'{{"id":{json.dumps(job.id)},"object":"{name}","created":{job.created},'
            f'"model":{json.dumps(job.model)},"choices":[{choice}],"service_tier":null,'
            f'"system_fingerprint":"{FINGERPRINT}",{self._usage(job)},'
            f'"prompt_tokens_details":null,"completion_tokens_details":null}},{rest}'
            '"kv_transfer_params":null,"ec_transfer_params":null,"metrics":null}'
        )

    def _chat(self, job: Job) -> str:
        choice = (
            f'{{"index":0,"message":{{"role":"assistant","content":"{job.text()}",'
            '"refusal":null,"annotations":null,"audio":null,"function_call":null,'
            f'"reasoning":null}},"logprobs":null,"finish_reason":"{job.finish}",'
            '"stop_reason":null,"token_ids":null,"routed_experts":null}'
        )
        rest = '"prompt_logprobs":null,"prompt_token_ids":null,"prompt_text":null,'
        return self._frame(job, "chat.completion", choice, rest)

    def _completion(self, job: Job) -> str:
        choice = (
            f'{{"index":0,"text":"{job.text()}","logprobs":null,"finish_reason":"{job.finish}",'
            '"stop_reason":null,"token_ids":null,"prompt_logprobs":null,'
            '"prompt_token_ids":null,"routed_experts":null}'
        )
        return self._frame(job, "text_completion", choice, "")

    def _embeddings(self, job: Job) -> Page:
        data = [
            {"index": i, "object": "embedding", "embedding": embedding(self.seed, text)}
            for i, text in enumerate(job.texts)
        ]
        n = job.prompt_tokens
        usage = {"prompt_tokens": n, "total_tokens": n, "completion_tokens": 0}
        answer = {"id": job.id, "object": "list", "created": job.created, "model": job.model}
        usage_all = {**usage, "prompt_tokens_details": None}
        return Page(200, dumps({**answer, "data": data, "usage": usage_all}))
