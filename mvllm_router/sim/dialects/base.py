"""What all dialects share: reading OpenAI requests, writing HTTP heads and pages."""

from __future__ import annotations

import json
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, ClassVar

from mvllm_router.sim.faults import Fault
from mvllm_router.sim.job import Job, Kind
from mvllm_router.sim.profile import Profile
from mvllm_router.sim.state import State
from mvllm_router.sim.text import Answer, count_tokens

Fields = dict[str, Any]  # a parsed JSON object
DEFAULT_MAX_TOKENS = 16
EMBEDDING_SIZE = 16
SSE_DONE = "data: [DONE]\n\n"
_PROMPT_FIELDS: dict[Kind, str] = {
    "chat": "messages",
    "completion": "prompt",
    "embedding": "input",
}


@dataclass(frozen=True)
class Page:
    """A whole answer, or what the head of a stream is made from.

    `close` ends the connection after it, `drop` does so though the head does not tell.
    """

    status: int
    body: bytes = b""
    content_type: str | None = "application/json"
    extra: tuple[tuple[str, str], ...] = ()
    close: bool = False
    drop: bool = False


@dataclass(frozen=True)
class Asked:
    """A request as the dialects see it. Header names are in lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


class Refused(Exception):
    """The request is answered with this page and never reaches a slot."""

    def __init__(self, page: Page) -> None:
        super().__init__(page.status)
        self.page = page


def dumps(value: object) -> bytes:
    """Compact JSON."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def random_hex(digits: int) -> str:
    """A random id."""
    return f"{random.getrandbits(4 * digits):0{digits}x}"


def http_date() -> str:
    """The time for a Date header; made once a second."""
    now = int(time.time())
    if _date[0] != now:
        _date[:] = [now, formatdate(now, usegmt=True)]
    return str(_date[1])


_date: list[int | str] = [0, ""]


def reason(status: int) -> str:
    """The words after the status code."""
    return HTTPStatus(status).phrase


def end_head(lines: list[str]) -> bytes:
    """Status line and header lines as bytes, with the empty line behind them."""
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def chat_texts(messages: Any) -> list[str] | None:
    """A chat as one prompt; None when it is no list of messages."""
    if not isinstance(messages, list) or not all(isinstance(each, dict) for each in messages):
        return None
    turns = [f"<|{each.get('role')}|>{_content_text(each.get('content'))}\n" for each in messages]
    return ["".join(turns) + "<|assistant|>"]


def _content_text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def texts_of(value: Any) -> list[str] | None:
    """Prompts or embedding inputs as texts; lists of token ids count as their numbers."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not value:
        return None
    if all(isinstance(item, int) for item in value):
        return [" ".join(map(str, value))]
    return [item if isinstance(item, str) else str(item) for item in value]


def answer_text(seed: int, fields: Fields) -> str:
    """The whole text with which an engine of this seed answers a chat or a completion.

    Args:
        fields: the request; its length is that of `max_tokens`, at least 1, or the default.

    Raises ValueError for a request without a prompt.
    """
    chat = "messages" in fields
    texts = chat_texts(fields["messages"]) if chat else texts_of(fields.get("prompt"))
    if texts is None:
        raise ValueError("the request has no prompt")
    return Answer(seed, texts[0]).text(fields.get("max_tokens", DEFAULT_MAX_TOKENS))


class Dialect(ABC):
    """One kind of server. Methods decide and format; none of them does I/O."""

    inference: ClassVar[Mapping[str, Kind]] = {  # POST paths that take a slot
        "/v1/chat/completions": "chat",
        "/v1/completions": "completion",
        "/v1/embeddings": "embedding",
    }
    version: ClassVar[str] = "HTTP/1.1"
    id_prefix: ClassVar[Mapping[Kind, str]] = {
        "chat": "chatcmpl-",
        "completion": "cmpl-",
        "embedding": "embd-",
    }
    head_first: ClassVar[bool] = True  # a stream's head goes out before its first token
    refuses_while_loading: ClassVar[bool] = True  # the port is closed, there is no 503
    keeps_work: ClassVar[bool] = True  # a plain answer is made to the end, client or not
    keeps_queued: ClassVar[bool] = True  # also when it had no slot when the client left
    merges: ClassVar[bool] = False  # an event may carry several tokens
    announces_prefill: ClassVar[bool] = False  # comments before the first token
    answers_per_connection: ClassVar[int | None] = None  # closed after so many

    def __init__(self, profile: Profile, seed: int) -> None:
        self.profile = profile
        self.seed = seed
        self.interrupts = False  # a request cuts the stream that runs

    # Answers that take no slot

    @abstractmethod
    def head(self, page: Page, length: int | None) -> bytes:
        """Status line and headers. `length` None: the body is a stream."""

    def dress(self, page: Page, headers: Mapping[str, str]) -> Page:
        """The page with what its head owes to the headers of the request."""
        return page

    @abstractmethod
    def page(self, asked: Asked, state: State) -> Page:
        """The answer to everything that is not inference; 404 where there is nothing."""

    @abstractmethod
    def error(self, status: int, message: str, **details: Any) -> Page:
        """An error in this dialect's shape."""

    @abstractmethod
    def fault_page(self, fault: Fault) -> Page:
        """The answer of a fault that is an HTTP status."""

    @abstractmethod
    def fault_event(self, fault: Fault) -> str:
        """The event with which a failing stream ends, [DONE] included where it is sent."""

    def guard(self, asked: Asked) -> None:
        """Raises Refused for a request without the key."""
        if not self.bearer_ok(asked):
            raise Refused(self.error(401, "Incorrect API key provided.", code="invalid_api_key"))

    def bearer_ok(self, asked: Asked) -> bool:
        """Whether the request carries the key, where one is needed."""
        key = self.profile.api_key
        return key is None or asked.headers.get("authorization") == f"Bearer {key}"

    # Requests

    def takes_lock(self, asked: Asked) -> bool:
        """Whether a page waits for a slot too, and cuts the stream that runs there."""
        return False

    def kind_of(self, asked: Asked) -> Kind | None:
        """The kind of inference that is asked for, if any."""
        return self.inference.get(asked.path) if asked.method == "POST" else None

    def read(self, kind: Kind, asked: Asked) -> Job:
        """The job that the body describes. Raises Refused where the real server would."""
        fields = self.parse(asked.body)
        model = self.model_of(fields)
        texts = self.prompts(kind, fields)
        given = None if kind == "embedding" else self.max_tokens_of(fields)
        request_id = asked.headers.get("x-request-id", "")
        job = Job(
            kind=kind,
            id=self.id_prefix[kind] + self.new_id(request_id),
            request_id=request_id,
            model=model,
            created=int(time.time()),
            texts=texts,
            prompt_tokens=sum(map(count_tokens, texts)),
            max_tokens=0 if kind == "embedding" else given or DEFAULT_MAX_TOKENS,
            finish="length" if given else "stop",
            stream=kind != "embedding" and fields.get("stream") is True,
            usage=self.wants_usage(fields),
            answer=Answer(self.seed, texts[0]),
        )
        self.check_length(job)
        job.prefix = self.prefix(job)
        return job

    def new_id(self, request_id: str) -> str:
        """The part of a job's id behind its prefix. The client's request id may be empty."""
        return random_hex(16)

    def parse(self, body: bytes) -> Fields:
        """The body as a JSON object. Raises Refused."""
        try:
            fields = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise Refused(self.bad_json(error)) from None
        if not isinstance(fields, dict):
            raise Refused(self.bad_json(ValueError("Input should be a valid dictionary")))
        return fields

    @abstractmethod
    def bad_json(self, error: Exception) -> Page:
        """The answer to a body that is no JSON object."""

    @abstractmethod
    def missing(self, field: str) -> Page:
        """The answer to a body without messages, prompt or input."""

    def wrong_value(self, field: str) -> Page:
        """The answer to a field of the wrong type."""
        return self.error(400, f"{field} has a wrong value")

    def too_few(self, field: str, value: int) -> Page:
        """The answer to a wanted length below 1."""
        return self.wrong_value(field)

    def model_of(self, fields: Fields) -> str:
        """The model name in the answer. Raises Refused for one that is not served."""
        return str(fields.get("model", self.profile.models[0]))

    def prompts(self, kind: Kind, fields: Fields) -> list[str]:
        """The prompt texts. Raises Refused when there are none."""
        name = _PROMPT_FIELDS[kind]
        if name not in fields:
            raise Refused(self.missing(name))
        texts = chat_texts(fields[name]) if kind == "chat" else texts_of(fields[name])
        if texts is None:
            raise Refused(self.wrong_value(name))
        return texts

    def max_tokens_of(self, fields: Fields) -> int | None:
        """The wanted length, None where it is left to the server. Raises Refused."""
        for name in ("max_completion_tokens", "max_tokens"):
            value = fields.get(name)
            if value is None:
                continue
            if not isinstance(value, int):
                raise Refused(self.wrong_value(name))
            if value < 1:
                raise Refused(self.too_few(name, value))
            return value
        return None

    def wants_usage(self, fields: Fields) -> bool:
        """Whether the stream ends with a usage event."""
        options = fields.get("stream_options")
        return isinstance(options, dict) and options.get("include_usage") is True

    def check_length(self, job: Job) -> None:
        """Raises Refused for a prompt that does not fit."""
        wanted, context = job.prompt_tokens + job.max_tokens, self.profile.context
        if wanted <= context:
            return
        message = (
            f"This model's maximum context length is {context} tokens, however you requested"
            f" {wanted} tokens ({job.prompt_tokens} in your prompt; {job.max_tokens} for the"
            " completion). Please reduce your prompt; or completion length."
        )
        error = self.error(400, message, param="messages", code="context_length_exceeded")
        raise Refused(error)

    # Answers that take a slot

    @abstractmethod
    def prefix(self, job: Job) -> str:
        """What all events of this job's stream begin with."""

    @abstractmethod
    def answer(self, job: Job) -> Page:
        """The whole answer of a finished job."""

    def stream_page(self, job: Job) -> Page:
        """Status and headers of a stream."""
        return Page(200, content_type="text/event-stream; charset=utf-8")

    def opening(self, job: Job) -> str:
        """The event before the first token, empty where there is none."""
        return ""

    @abstractmethod
    def token(self, job: Job, text: str, *, last: bool) -> str:
        """An event with one or more tokens."""

    @abstractmethod
    def closing(self, job: Job) -> str:
        """The events after the last token."""


def embedding(seed: int, text: str) -> list[float]:
    """A made-up vector: the same seed and text give the same numbers."""
    numbers = random.Random(f"{seed} {text}")
    return [round(numbers.uniform(-1, 1), 6) for _ in range(EMBEDDING_SIZE)]


def by_path(
    pages: Mapping[str, Callable[[], Page]], asked: Asked, methods: tuple[str, ...] = ("GET",)
) -> Page | None:
    """The page of a path, if there is one for the request's method."""
    make = pages.get(asked.path) if asked.method in methods else None
    return None if make is None else make()
