"""What must hold for any bytes: checks that tests, and fuzzers of any kind, call."""

from __future__ import annotations

import asyncio
import json
import math
import posixpath
import re
from collections.abc import Mapping
from dataclasses import astuple
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote

from fuzz_fakes import answered
from pool_kit import new_pool, spec

from mvllm_router.api.load_stats import load_stats_document
from mvllm_router.api.models import models_document
from mvllm_router.config import Config, ConfigError, ServerSpec, Settings
from mvllm_router.config.load import parse
from mvllm_router.control.prober import NoAnswer, Prober
from mvllm_router.control.watch import Watch
from mvllm_router.engines import ENGINES, get, read_models
from mvllm_router.engines.recognise import FIRST, Answer, conclusion, next_question
from mvllm_router.errors import BadRequest
from mvllm_router.pool import Backend, Pool
from mvllm_router.proxy import hidden, sse
from mvllm_router.proxy.attempts import Trouble
from mvllm_router.proxy.inspect import wanted_of, wanted_of_object, with_model
from mvllm_router.proxy.routes import relayed
from mvllm_router.proxy.verdict import Verdict, judge

ROOT = Path(__file__).parents[2]

# --- answers


def check_reads(data: bytes, pieces: list[bytes], *, is_head: bool, end: str) -> None:
    """A connection makes the same of `data` however it is read: it ends, or it is lost."""
    expected = answered([data] if data else [], is_head=is_head, end=end)
    assert expected.ended != (expected.failure is not None)
    if expected.ended and end == "reset":
        assert expected.head is not None
        assert not expected.head.until_close, "what a reset has cut is taken for whole"
    assert answered(pieces, is_head=is_head, end=end).summary() == expected.summary()


# --- streams of events

LINE_END = re.compile(rb"\r\n|\r|\n")
# Ends that are waited for; servers do not mix others.
MARKS = (b"\n\n", b"\r\n\r\n", b"\r\r")


def event_ends(stream: bytes) -> set[int]:
    """Return where events end: behind an empty line, whichever of three line ends it has.

    Between the two bytes of the last CRLF, the event has been dispatched already.
    """
    ends, begin = {0}, 0
    for found in LINE_END.finditer(stream):
        if found.start() == begin:
            ends |= {found.end(), found.start() + 1}
        begin = found.end()
    return ends


def check_cutting(stream: bytes, pieces: list[bytes]) -> None:
    """No byte is lost or changed; only whole events pass, and each with its last byte."""
    cutter, ends, passed, read = sse.EventCutter(), event_ends(stream), b"", b""
    for piece in pieces:
        read += piece
        passed += cutter.cut(piece)
        if len(read) > sse.LONGEST_HELD:
            break
        assert len(passed) in ends
        assert not any(mark in cutter.held for mark in MARKS)
        if read.endswith(MARKS):
            assert cutter.held.strip(b"\r\n") == b""
    assert passed + cutter.rest() == read
    assert cutter.rest() == b""


def check_hiding(stream: bytes) -> None:
    """Hiding errors changes the lines of error events, and nothing else."""
    shown = hidden.events(stream)
    before, after = LINE_END.split(stream), LINE_END.split(shown)
    assert LINE_END.findall(stream) == LINE_END.findall(shown)
    for old, new in zip(before, after, strict=True):
        assert new == old or (old.startswith(b"data:") and b'"error"' in old)
    assert hidden.events(shown) == shown


def check_judging(data: bytes, *, ended: bool, moves: bool) -> None:
    """A first event is judged whatever it holds; another attempt is asked for at most once."""
    found = sse.error_in_first_event(data)
    assert found is None or (isinstance(found[0], int) and found[1] in data)
    usage = sse.usage(data)
    assert usage is None or all(0 <= count < 10**15 for count in usage)
    asked: list[Trouble] = []

    def may_move(trouble: Trouble) -> bool:
        asked.append(trouble)
        return moves

    for status in (200, 500, 503):
        asked.clear()
        verdict, trouble, _ = judge(status, True, data, ended, may_move)
        assert len(asked) <= 1
        assert verdict is not Verdict.MOVE or moves
        assert verdict is not Verdict.HOLD or not ended
        assert [trouble] == (asked or [None])


# --- engines


class Says:
    """A prober that answers by path, without a server; what is not there is no answer at all."""

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        self.answers = answers

    async def get(self, spec: ServerSpec, path: str, timeout: float) -> Answer:
        if path not in self.answers:
            raise NoAnswer("no answer in 5 s", timed_out=True)
        return self.answers[path]


def watch(answers: Mapping[str, Answer], engine: str = "auto") -> tuple[Watch, Pool, Backend]:
    pool = new_pool()
    backend = pool.add(spec("s0", engine=engine))
    return Watch(backend, pool, cast(Prober, Says(answers)), Settings()), pool, backend


def check_figures(pool: Pool, backend: Backend) -> None:
    """The load is a number that can be compared and shown, and nothing is below nothing."""
    load = backend.load(pool.monotonic())
    for figure in (load.running, load.waiting, load.capacity, load.score):
        assert math.isfinite(figure)
        assert figure >= 0
    assert load.capacity > 0


def check_documents(pool: Pool) -> None:
    """What is shown of it is JSON, and UTF-8, that any client reads."""
    for document in (models_document(pool), load_stats_document(pool)):
        json.loads(json.dumps(document, allow_nan=False, ensure_ascii=False).encode())


def check_metrics(loop: asyncio.AbstractEventLoop, name: str, body: bytes) -> None:
    """Any text of metrics gives plausible figures to the pool."""
    engine = get(name)
    engine.read_metrics(body.decode("utf-8", "replace"))
    if engine.metrics_path is None:
        return
    watched, pool, backend = watch({engine.metrics_path: Answer(200, {}, body)}, name)
    loop.run_until_complete(watched.scrape(engine, 1.0))
    check_figures(pool, backend)
    check_documents(pool)
    assert backend.scrape is not None
    for figure in astuple(backend.scrape.sample):
        assert figure is None or 0 <= figure < 1e16


def check_server(
    loop: asyncio.AbstractEventLoop, answers: Mapping[str, Answer], engine: str
) -> None:
    """Two checks of a server that answers anything leave documents that can be read."""
    watched, pool, backend = watch(answers, engine)
    for _ in range(2):
        loop.run_until_complete(watched.check())
        check_figures(pool, backend)
        check_documents(pool)


def check_document(document: Any) -> None:
    """Any JSON gives models that can be shown, and a capacity above nothing, or none."""
    for name, entry in (read_models(document) or {}).items():
        assert 0 < len(name) <= 1024
        assert name.isprintable()
        assert isinstance(entry, dict)
    for engine in ENGINES:
        capacity = get(engine).read_capacity(document)
        assert capacity is None or 0 < capacity < 1e6


def recognised(answers: Mapping[str, Answer], otherwise: Answer) -> str:
    """Ask as the router does, at most three questions."""
    told = {FIRST: answers[FIRST]}
    for _ in range(3):
        question = next_question(told)
        if question is None:
            return conclusion(told)
        assert question not in told, "a question was asked twice"
        told[question] = answers.get(question, otherwise)
    raise AssertionError("too many questions were asked")


# --- requests

OWN_NAME = 'org/own "name" \\1 ü'


def load(body: bytes) -> Any:
    """Read JSON with each number as its text, so that nothing is rounded."""
    return json.loads(body, parse_float=str, parse_int=str)


def check_body(body: bytes, content_type: str, query: str, *, must_be_json: bool) -> None:
    """A body names a model or none or is a bad request; so is giving it another name."""
    try:
        wanted = wanted_of_object(body) if must_be_json else wanted_of(body, content_type, query)
        model = wanted.model
        assert model is None or isinstance(model, str)
        assert wanted.priority is None or type(wanted.priority) is int
        assert model is None or len(model) <= len(body) + len(query)
    except BadRequest:
        assert must_be_json or body.count(b"name=") > 1
    try:
        assert isinstance(with_model(body, OWN_NAME), bytes)
    except BadRequest:
        assert body.lstrip(b" \t\r\n").startswith(b"{")


def check_renaming(body: bytes) -> None:
    """Another name in a JSON object changes nothing but the model."""
    if not body.lstrip().startswith(b"{"):
        return
    try:
        renamed = with_model(body, OWN_NAME)
        before = load(body)
    except (BadRequest, ValueError, RecursionError):  # no object, or none that Python can read
        return
    assert load(renamed) == {**before, "model": OWN_NAME}
    assert list(load(renamed)) == list({**before, "model": OWN_NAME})


def _resolved(path: str) -> str:
    """Return where a server or a proxy that resolves paths would take it."""
    return posixpath.normpath(path.replace("\\", "/"))


def check_path(path: str) -> None:
    """No relayed path leads out of /v1, however often it is decoded on its way."""
    route = relayed(path)
    if route is None:
        return
    assert route.path in (path, f"/v1{path}")
    if not route.path.startswith("/v1/"):
        assert route.path in ("/rerank", "/score", "/pooling", "/tokenize", "/detokenize")
        return
    assert "#" not in route.path, "what follows is no part of the path for a server"
    seen = route.path
    for _ in range(6):
        assert f"{_resolved(seen)}/".startswith("/v1/")
        seen = unquote(seen)


# --- configurations


def read_config(text: str, environ: Mapping[str, str] | None = None) -> Config | ConfigError:
    """Read a text; anything but these two is a failure."""
    try:
        return parse(text, ROOT / "tests" / "none" / "servers.toml", environ=environ or {})
    except ConfigError as error:
        return error


def check_config(text: str) -> None:
    """A text is a configuration that can be used, or a list of problems that can be shown."""
    got = read_config(text)
    if isinstance(got, ConfigError):
        assert got.problems
        check_problems(got, text)
        return
    assert len({server.url for server in got.servers}) == len(got.servers)
    assert len({server.name for server in got.servers}) == len(got.servers)
    for server in got.servers:
        check_spec(server)


def check_problems(error: ConfigError, text: str) -> None:
    for problem in error.problems:
        assert problem.line is None or 1 <= problem.line <= text.count("\n") + 1
        for line in problem.render().split("\n"):
            assert line.replace("\t", " ").isprintable()


def check_spec(server: ServerSpec) -> None:
    """What goes into a request's head cannot end a line of it."""
    parts = [server.url, server.name, server.api_key or ""]
    parts += [text for pair in server.headers for text in pair]
    assert not any(char in part for part in parts for char in "\r\n\x00")
    assert server.url.startswith(("http://", "https://"))
    assert server.weight > 0
