"""mlx_lm.server: Python's own HTTP server, so HTTP/1.0 and one request per connection."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import replace
from typing import Any

from mvllm_router.sim.dialects.base import (
    SSE_DONE,
    Asked,
    Dialect,
    Fields,
    Page,
    Refused,
    end_head,
    http_date,
    random_hex,
    reason,
)
from mvllm_router.sim.faults import Fault
from mvllm_router.sim.job import Job, Kind
from mvllm_router.sim.state import State

SERVER = "BaseHTTP/0.6 Python/3.11.7"
FINGERPRINT = "0.32.2-0.32.4-Linux-x86_64"
DEFAULT_MODEL = "default_model"
_INFERENCE: dict[str, Kind] = {
    "/v1/chat/completions": "chat",
    "/chat/completions": "chat",
    "/v1/completions": "completion",
}
_OPEN_TO_ALL = ("Origin", "Methods", "Headers")


class Mlx(Dialect):
    """No key, no metrics; comments before the first token; errors are bare strings."""

    inference = _INFERENCE
    version = "HTTP/1.0"
    announces_prefill = True

    def head(self, page: Page, length: int | None) -> bytes:
        lines = [f"{self.version} {page.status} {reason(page.status)}", f"Server: {SERVER}"]
        lines += [f"Date: {http_date()}", f"Content-type: {page.content_type}"]
        lines += [f"Access-Control-Allow-{what}: *" for what in _OPEN_TO_ALL]
        # No length here: most answers end where the connection ends.
        lines += [f"{name}: {value}" for name, value in page.extra]
        return end_head(lines)

    def guard(self, asked: Asked) -> None:
        """This server knows no keys."""

    def page(self, asked: Asked, state: State) -> Page:
        if (asked.method, asked.path) == ("GET", "/health"):
            return Page(200, b'{"status": "ok"}')
        if asked.method == "OPTIONS":
            return Page(204)
        if asked.method == "GET" and asked.path.startswith("/v1/models"):
            return Page(200, json.dumps({"object": "list", "data": self._cards()}).encode())
        return Page(404, b"Not Found")

    def _cards(self) -> list[dict[str, Any]]:
        card = {"object": "model", "created": int(time.time())}
        return [{"id": name, **card} for name in self.profile.models]

    # Errors

    def error(self, status: int, message: str, **details: Any) -> Page:
        return Page(status, json.dumps({"error": message}).encode())

    def bad_json(self, error: Exception) -> Page:
        return self.error(400, f"Invalid JSON in request body: {error}")

    def missing(self, field: str) -> Page:
        what = "messages" if field == "messages" else f"a {field}"
        return self.error(400, f"Request did not contain {what}")

    def wrong_value(self, field: str) -> Page:
        return self.error(400, f"{field} must be of type int")

    def model_of(self, fields: Fields) -> str:
        name = fields.get("model", DEFAULT_MODEL)
        if name != DEFAULT_MODEL and name not in self.profile.models:
            message = "Cannot find an appropriate cached snapshot folder for the model."
            raise Refused(self.error(404, message))
        return str(name)

    def check_length(self, job: Job) -> None:
        """It has no limit but the memory."""

    def fault_page(self, fault: Fault) -> Page:
        if fault in (Fault.BUSY_503, Fault.BUSY_IN_STREAM):
            return self.error(503, "unavailable")
        if fault is Fault.RATE_429:
            return replace(self.error(429, "too many requests"), extra=(("Retry-After", "1"),))
        return self.error(500, "generation failed")

    def fault_event(self, fault: Fault) -> str:
        return f"data: {self.fault_page(fault).body.decode()}\n\n{SSE_DONE}"

    # Answers

    def new_id(self, request_id: str) -> str:
        return str(uuid.UUID(random_hex(32)))

    def _frame(self, job: Job, name: str) -> str:
        return (
            f'{{"id": "{job.id}", "system_fingerprint": "{FINGERPRINT}", "object": "{name}", '
            f'"model": {json.dumps(job.model)}, "created": {job.created}, '
        )

    def prefix(self, job: Job) -> str:
        return self._frame(
            job, "chat.completion.chunk" if job.kind == "chat" else "text_completion"
        )

    def stream_page(self, job: Job) -> Page:
        return Page(200, b"", "text/event-stream", (("Cache-Control", "no-cache"),))

    def _event(self, job: Job, finish: str, content: str) -> str:
        choice = f'{{"index": 0, "finish_reason": {finish}, {content}}}'
        return f'data: {job.prefix}"choices": [{choice}]}}\n\n'

    def token(self, job: Job, text: str, *, last: bool) -> str:
        if job.kind == "completion":
            return self._event(job, "null", f'"text": "{text}"')
        return self._event(job, "null", f'"delta": {{"role": "assistant", "content": "{text}"}}')

    def closing(self, job: Job) -> str:
        content = '"text": ""' if job.kind == "completion" else '"delta": {"role": "assistant"}'
        ending = self._event(job, f'"{job.finish}"', content)
        if not job.usage:
            return ending + SSE_DONE
        # The usage event has the name of a whole answer, and not of a chunk.
        frame = self._frame(job, "chat.completion")
        return f'{ending}data: {frame}"choices": [], {self._usage(job)}}}\n\n{SSE_DONE}'

    def _usage(self, job: Job) -> str:
        total = job.prompt_tokens + job.made
        return (
            f'"usage": {{"prompt_tokens": {job.prompt_tokens}, "completion_tokens": {job.made}, '
            f'"total_tokens": {total}, "prompt_tokens_details": {{"cached_tokens": 0}}}}'
        )

    def answer(self, job: Job) -> Page:
        content = f'"text": "{job.text()}"'
        if job.kind == "chat":
            content = f'"message": {{"role": "assistant", "content": "{job.text()}"}}'
        choice = f'{{"index": 0, "finish_reason": "{job.finish}", {content}}}'
        frame = self._frame(job, "chat.completion" if job.kind == "chat" else "text_completion")
        body = f'{frame}"choices": [{choice}], {self._usage(job)}}}'.encode()
        return Page(200, body, extra=(("Content-Length", str(len(body))),))
