"""llama_cpp.server (llama-cpp-python): one lock around everything."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
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
)
from mvllm_router.sim.dialects.fastapi import api_page, off_route, uvicorn_head
from mvllm_router.sim.dialects.openai import OpenAI
from mvllm_router.sim.faults import Fault
from mvllm_router.sim.job import Job, Kind
from mvllm_router.sim.profile import Profile
from mvllm_router.sim.state import State
from mvllm_router.sim.text import count_tokens, detokenize, tokenize

TITLE = "🦙 llama.cpp Python API"
VERSION = "0.3.36"
NO_EMBEDDINGS = "Llama model must be created with embedding=True to call this method"
NO_UUID = Page(400, b"", None)
_PAGES = {
    "/v1/models": "GET",
    "/extras/tokenize": "POST",
    "/extras/tokenize/count": "POST",
    "/extras/detokenize": "POST",
}
_METHODS = {**_PAGES, **dict.fromkeys(OpenAI.inference, "POST"), "/openapi.json": "GET"}
_TIMED = (("openai-processing-ms", "1"),)  # of answers that are no errors


class LlamaCppPython(OpenAI):
    """One request at a time, whatever it is; no health, no metrics."""

    keeps_work = True
    keeps_queued = False

    def __init__(self, profile: Profile, seed: int) -> None:
        super().__init__(profile, seed)
        self.interrupts = profile.interrupt_requests

    def head(self, page: Page, length: int | None) -> bytes:
        if length is None and not page.close:
            page = replace(page, extra=(*page.extra, ("connection", "keep-alive")))
        return uvicorn_head(page, length)

    def takes_lock(self, asked: Asked) -> bool:
        return _PAGES.get(asked.path) == asked.method

    def dress(self, page: Page, headers: Mapping[str, str]) -> Page:
        if page.drop or page == NO_UUID:
            return page
        own = headers.get("x-request-id") or random_hex(32)
        return replace(page, extra=(*page.extra, ("x-request-id", own)))

    def guard(self, asked: Asked) -> None:
        _check_request_id(asked.headers.get("x-request-id"))
        guarded = self.takes_lock(asked) or self.kind_of(asked) is not None
        if guarded and not self.bearer_ok(asked):
            raise Refused(Page(401, b'{"detail":"Invalid API key"}'))

    def page(self, asked: Asked, state: State) -> Page:
        if (asked.method, asked.path) == ("GET", "/openapi.json"):
            return api_page(TITLE, VERSION)
        if not self.takes_lock(asked):
            return off_route(asked, _METHODS)
        if asked.method == "GET":
            return Page(200, dumps({"object": "list", "data": self.cards()}), extra=_TIMED)
        return self._tokens(asked.path, self.parse(asked.body))

    def cards(self) -> list[dict[str, Any]]:
        card = {"object": "model", "owned_by": "me", "permissions": []}
        return [{"id": name, **card} for name in self.profile.models]

    def _tokens(self, path: str, fields: Fields) -> Page:
        text = str(fields.get("input", ""))
        if path == "/extras/tokenize":
            return Page(200, dumps({"tokens": tokenize(text)}), extra=_TIMED)
        if path == "/extras/tokenize/count":
            return Page(200, dumps({"count": count_tokens(text)}), extra=_TIMED)
        try:
            return Page(200, dumps({"text": detokenize(fields["tokens"])}), extra=_TIMED)
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
            return self.wrong_value("tokens")

    # Errors

    def bad_json(self, error: Exception) -> Page:
        if not isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
            return self.wrong_value("body")
        return Page(500, b"Internal Server Error", "text/plain; charset=utf-8", drop=True)

    def missing(self, field: str) -> Page:
        return self.error(500, "", type="internal_server_error")

    def wrong_value(self, field: str) -> Page:
        return self.error(500, f"{field} is not valid", type="internal_server_error")

    def check_length(self, job: Job) -> None:
        try:
            super().check_length(job)
        except Refused:
            if not job.stream:
                raise
            # The head of the stream goes out before the length is looked at, and nothing after it.
            job.max_tokens = 0

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
        return super().prompts(kind, {"messages": [], **fields})

    def max_tokens_of(self, fields: Fields) -> int | None:
        known = {name: value for name, value in fields.items() if name != "max_completion_tokens"}
        return super().max_tokens_of(known)

    # Answers

    def stream_page(self, job: Job) -> Page:
        extra = (("cache-control", "no-store"), ("x-accel-buffering", "no"), *_TIMED)
        return replace(super().stream_page(job), extra=extra)

    def prefix(self, job: Job) -> str:
        name = "chat.completion.chunk" if job.kind == "chat" else "text_completion"
        model = f'"model": {json.dumps(job.model)}'
        return f'data: {{"id": "{job.id}", {model}, "created": {job.created}, "object": "{name}", '

    def event(self, job: Job, content: str, finish: str = "null") -> str:
        """Not compact, unlike whole answers."""
        choice = f'"index": 0, {content}, "logprobs": null, "finish_reason": {finish}'
        return f'{job.prefix}"choices": [{{{choice}}}]}}\n\n'

    def opening(self, job: Job) -> str:
        if job.kind == "completion":
            return ""
        return self.event(job, '"delta": {"role": "assistant"}')

    def token(self, job: Job, text: str, *, last: bool) -> str:
        if job.kind == "completion":
            return self.event(job, f'"text": "{text}"')
        return self.event(job, f'"delta": {{"content": "{text}"}}')

    def closing(self, job: Job) -> str:
        """Never with usage: stream_options are not known."""
        if not job.max_tokens:
            return ""
        if job.interrupted:
            return SSE_DONE
        content = '"text": ""' if job.kind == "completion" else '"delta": {}'
        return self.event(job, content, f'"{job.finish}"') + SSE_DONE

    def answer(self, job: Job) -> Page:
        return replace(super().answer(job), extra=_TIMED)


def _check_request_id(value: str | None) -> None:
    if value is None:
        return
    try:
        uuid.UUID(value)
    except ValueError:
        raise Refused(NO_UUID) from None
