"""llama_cpp.server (llama-cpp-python): one lock around everything."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

from mvllm_router.sim.dialects.base import (
    SSE_DONE,
    Asked,
    Fields,
    Page,
    Refused,
    dumps,
    random_hex,
    uvicorn_head,
)
from mvllm_router.sim.dialects.openai import OpenAI
from mvllm_router.sim.faults import Fault
from mvllm_router.sim.job import Job, Kind
from mvllm_router.sim.profile import Profile
from mvllm_router.sim.state import State
from mvllm_router.sim.text import count_tokens, detokenize, tokenize

TITLE = "🦙 llama.cpp Python API"
VERSION = "0.3.36"
NO_EMBEDDINGS = "Llama model must be created with embedding=True to call this method"
_PAGES = {
    ("GET", "/v1/models"),
    ("POST", "/extras/tokenize"),
    ("POST", "/extras/tokenize/count"),
    ("POST", "/extras/detokenize"),
}


class LlamaCppPython(OpenAI):
    """One request at a time, whatever it is; no health, no metrics."""

    keeps_work = True
    keeps_queued = False

    def __init__(self, profile: Profile, seed: int) -> None:
        super().__init__(profile, seed)
        self.interrupts = profile.interrupt_requests

    def head(self, page: Page, length: int | None) -> bytes:
        return uvicorn_head(page, length)

    def takes_lock(self, asked: Asked) -> bool:
        return (asked.method, asked.path) in _PAGES

    def guard(self, asked: Asked) -> None:
        _check_request_id(asked.headers.get("x-request-id"))
        guarded = self.takes_lock(asked) or self.kind_of(asked) is not None
        if guarded and not self.bearer_ok(asked):
            raise Refused(Page(401, b'{"detail":"Invalid API key"}'))

    def page(self, asked: Asked, state: State) -> Page:
        if (asked.method, asked.path) == ("GET", "/openapi.json"):
            info = {"title": TITLE, "version": VERSION}
            return Page(200, dumps({"openapi": "3.1.0", "info": info, "paths": {}}))
        if not self.takes_lock(asked):
            return Page(404, b'{"detail":"Not Found"}')
        if asked.method == "GET":
            return Page(200, dumps({"object": "list", "data": self.cards()}))
        return self._tokens(asked.path, self.parse(asked.body))

    def cards(self) -> list[dict[str, Any]]:
        card = {"object": "model", "owned_by": "me", "permissions": []}
        return [{"id": name, **card} for name in self.profile.models]

    def _tokens(self, path: str, fields: Fields) -> Page:
        text = str(fields.get("input", ""))
        if path == "/extras/tokenize":
            return Page(200, dumps({"tokens": tokenize(text)}))
        if path == "/extras/tokenize/count":
            return Page(200, dumps({"count": count_tokens(text)}))
        try:
            return Page(200, dumps({"text": detokenize(fields["tokens"])}))
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
            return self.wrong_value("tokens")

    # Errors

    def bad_json(self, error: Exception) -> Page:
        return Page(500, b"Internal Server Error", "text/plain; charset=utf-8")

    def wrong_value(self, field: str) -> Page:
        return self.error(500, f"{field} is not valid", type="internal_server_error")

    def check_length(self, job: Job) -> None:
        try:
            super().check_length(job)
        except Refused:
            if not job.stream:
                raise
            # The head of the stream has gone out before the length is looked at.
            raise Refused(Page(200, b"", "text/event-stream; charset=utf-8")) from None

    def fault_page(self, fault: Fault) -> Page:
        page = super().fault_page(fault)
        return replace(page, extra=tuple((name.lower(), value) for name, value in page.extra))

    # Requests

    def read(self, kind: Kind, asked: Asked) -> Job:
        if kind == "embedding" and not self.profile.embeddings:
            raise Refused(self.error(500, NO_EMBEDDINGS, type="internal_server_error"))
        return super().read(kind, asked)

    def new_id(self, request_id: str) -> str:
        return str(uuid.UUID(random_hex(32)))

    def model_of(self, fields: Fields) -> str:
        return str(fields.get("model", self.profile.models[0]))

    def prompts(self, kind: Kind, fields: Fields) -> list[str]:
        return super().prompts(kind, {"messages": [], "prompt": "", **fields})

    def max_tokens_of(self, fields: Fields) -> int | None:
        known = {name: value for name, value in fields.items() if name != "max_completion_tokens"}
        return super().max_tokens_of(known)

    def wants_usage(self, fields: Fields) -> bool:
        return False  # stream_options are not known

    # Answers

    def _extra(self, job: Job) -> tuple[tuple[str, str], ...]:
        own = job.request_id or random_hex(32)
        return (("openai-processing-ms", "1"), ("x-request-id", own))

    def stream_page(self, job: Job) -> Page:
        extra = (("cache-control", "no-store"), ("x-accel-buffering", "no"), *self._extra(job))
        return replace(super().stream_page(job), extra=extra)

    def opening(self, job: Job) -> str:
        if job.kind == "completion":
            return ""
        return self.event(job, '"delta":{"role":"assistant"}')

    def closing(self, job: Job) -> str:
        return SSE_DONE if job.interrupted else super().closing(job)

    def answer(self, job: Job) -> Page:
        return replace(super().answer(job), extra=self._extra(job))


def _check_request_id(value: str | None) -> None:
    if value is None:
        return
    try:
        uuid.UUID(value)
    except ValueError:
        raise Refused(Page(400, b"", None)) from None
