"""A server that speaks OpenAI's API and nothing else; also the common ground of its kin."""

from __future__ import annotations

import json
from typing import Any

from mvllm_router.sim.dialects.base import (
    SSE_DONE,
    Asked,
    Dialect,
    Fields,
    Page,
    Refused,
    dumps,
    embedding,
    end_head,
    http_date,
    reason,
)
from mvllm_router.sim.faults import Fault
from mvllm_router.sim.job import Job
from mvllm_router.sim.state import State

_CREATED = 1715367049  # of all models: when a model was made, not when it is asked for


class OpenAI(Dialect):
    """/v1/models and inference; no health, no metrics."""

    keeps_work = False

    def head(self, page: Page, length: int | None) -> bytes:
        lines = [f"{self.version} {page.status} {reason(page.status)}", f"Date: {http_date()}"]
        lines.append(f"Content-Type: {page.content_type}")
        lines.append(
            "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
        )
        lines += [f"{name}: {value}" for name, value in page.extra]
        if page.close:
            lines.append("Connection: close")
        return end_head(lines)

    def page(self, asked: Asked, state: State) -> Page:
        if asked.method == "GET" and asked.path == "/v1/models":
            return Page(200, dumps({"object": "list", "data": self.cards()}))
        return self.error(404, f"Invalid URL ({asked.method} {asked.path})")

    def cards(self) -> list[dict[str, Any]]:
        """What /v1/models tells about each model."""
        card = {"object": "model", "created": _CREATED, "owned_by": "organization-owner"}
        return [{"id": name, **card} for name in self.profile.models]

    # Errors

    def error(self, status: int, message: str, **details: Any) -> Page:
        error: dict[str, Any] = {"message": message, "type": "invalid_request_error"}
        return Page(status, dumps({"error": {**error, "param": None, "code": None, **details}}))

    def bad_json(self, error: Exception) -> Page:
        return self.error(400, "We could not parse the JSON body of your request.")

    def missing(self, field: str) -> Page:
        return self.error(400, f"Missing required parameter: '{field}'.", param=field)

    def model_of(self, fields: Fields) -> str:
        name = fields.get("model")
        if name is None:
            raise Refused(self.missing("model"))
        if name not in self.profile.models:
            message = f"The model `{name}` does not exist or you do not have access to it."
            raise Refused(self.error(404, message, code="model_not_found"))
        return str(name)

    def fault_page(self, fault: Fault) -> Page:
        if fault in (Fault.BUSY_503, Fault.BUSY_IN_STREAM):
            return self.error(503, "The engine is overloaded.", type="server_error")
        if fault is Fault.RATE_429:
            page = self.error(
                429, "Rate limit reached.", type="requests", code="rate_limit_exceeded"
            )
            return Page(429, page.body, extra=(("Retry-After", "1"),))
        return self.error(500, "The server had an error.", type="server_error")

    def fault_event(self, fault: Fault) -> str:
        return f"data: {self.fault_page(fault).body.decode()}\n\n{SSE_DONE}"

    # Answers

    def prefix(self, job: Job) -> str:
        name = "chat.completion.chunk" if job.kind == "chat" else "text_completion"
        return (
            f'data: {{"id":"{job.id}","object":"{name}","created":{job.created},'
            f'"model":{json.dumps(job.model)},'
        )

    def event(self, job: Job, content: str, finish: str = "null") -> str:
        """An event whose choice has this content: a "delta" or a "text" member."""
        return (
            f'{job.prefix}"choices":[{{"index":0,{content},"logprobs":null,'
            f'"finish_reason":{finish}}}]}}\n\n'
        )

    def opening(self, job: Job) -> str:
        if job.kind == "completion":
            return ""
        return self.event(job, '"delta":{"role":"assistant","content":""}')

    def token(self, job: Job, text: str, *, last: bool) -> str:
        if job.kind == "completion":
            return self.event(job, f'"text":"{text}"')
        return self.event(job, f'"delta":{{"content":"{text}"}}')

    def closing(self, job: Job) -> str:
        content = '"text":""' if job.kind == "completion" else '"delta":{}'
        ending = self.event(job, content, f'"{job.finish}"')
        usage = f'{job.prefix}"choices":[],{self.usage(job)}}}\n\n' if job.usage else ""
        return ending + usage + SSE_DONE

    def usage(self, job: Job) -> str:
        """The "usage" member."""
        total = job.prompt_tokens + job.made
        return (
            f'"usage":{{"prompt_tokens":{job.prompt_tokens},"completion_tokens":{job.made},'
            f'"total_tokens":{total}}}'
        )

    def answer(self, job: Job) -> Page:
        if job.kind == "embedding":
            return self._embeddings(job)
        content = f'"text":"{job.text()}"'
        if job.kind == "chat":
            content = f'"message":{{"role":"assistant","content":"{job.text()}"}}'
        name = "chat.completion" if job.kind == "chat" else "text_completion"
        body = (
            f'{{"id":"{job.id}","object":"{name}","created":{job.created},'
            f'"model":{json.dumps(job.model)},"choices":[{{"index":0,{content},"logprobs":null,'
            f'"finish_reason":"{job.finish}"}}],{self.usage(job)}}}'
        )
        return Page(200, body.encode())

    def _embeddings(self, job: Job) -> Page:
        data = [
            {"object": "embedding", "index": i, "embedding": embedding(self.seed, text)}
            for i, text in enumerate(job.texts)
        ]
        usage = {"prompt_tokens": job.prompt_tokens, "total_tokens": job.prompt_tokens}
        return Page(
            200, dumps({"object": "list", "data": data, "model": job.model, "usage": usage})
        )
