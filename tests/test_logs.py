"""Log lines: readable for people, parsable for programs, and nothing in them can be forged."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from logging.handlers import RotatingFileHandler
from pathlib import Path

import pytest

from mvllm_router.logs import JsonFormatter, TextFormatter, configure

log = logging.getLogger("mvllm_router.pool")


@pytest.fixture(autouse=True)
def _loggers_as_before() -> Iterator[None]:
    root, own = logging.getLogger(), logging.getLogger("mvllm_router")
    handlers, levels = root.handlers[:], (root.level, own.level)
    root.handlers[:] = []
    root.setLevel(logging.DEBUG)
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    own.setLevel(levels[1])


class Stderr:
    """What has been written to stderr so far."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._seen = ""

    def getvalue(self) -> str:
        self._seen += self._capsys.readouterr().err
        return self._seen


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]) -> Stderr:
    return Stderr(capsys)


def test_a_line_for_people_has_time_level_and_message(stderr: Stderr) -> None:
    configure("info", "text", "")
    log.warning("%s: down", "s0")
    assert re.fullmatch(r"\d\d:\d\d:\d\d WARNING s0: down\n", stderr.getvalue())


def test_a_line_for_programs_is_one_object_with_a_time_in_utc(stderr: Stderr) -> None:
    configure("info", "json", "")
    log.info("größer\nthan two lines")
    (line,) = stderr.getvalue().splitlines()
    assert "größer" in line
    document = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{3}\+00:00", document.pop("time"))
    assert document == {
        "level": "info",
        "logger": "mvllm_router.pool",
        "message": "größer\nthan two lines",
    }


@pytest.mark.parametrize("style", ["text", "json"])
def test_an_exception_is_shown_with_its_place(style: str, stderr: Stderr) -> None:
    configure("info", style, "")
    try:
        raise ValueError("no such thing")
    except ValueError as error:
        log.error("a request failed", exc_info=error)
    assert "ValueError: no such thing" in stderr.getvalue()
    assert "test_logs.py" in stderr.getvalue()
    if style == "json":
        assert "no such thing" in json.loads(stderr.getvalue())["exception"]


def test_a_message_cannot_look_like_another_line_nor_steer_a_terminal() -> None:
    record = logging.makeLogRecord(
        {
            "msg": "model %s",
            "args": ("x\n12:00:00 INFO    forged\x1b[2J\r\x7f\x9f\xa0",),
            "levelname": "INFO",
        }
    )
    first, second = TextFormatter().format(record).split("\n")
    assert first.endswith("INFO    model x")
    assert second == "    12:00:00 INFO    forged\\x1b[2J\\x0d\\x7f\\x9f\xa0"


def test_the_level_is_for_our_own_lines_and_libraries_only_warn(stderr: Stderr) -> None:
    configure("debug", "text", "")
    log.debug("ours")
    logging.getLogger("asyncio").info("theirs")
    logging.getLogger("asyncio").warning("serious")
    assert "ours" in stderr.getvalue()
    assert "theirs" not in stderr.getvalue()
    assert "serious" in stderr.getvalue()


def test_less_severe_lines_are_left_out(stderr: Stderr) -> None:
    configure("error", "text", "")
    log.warning("not this")
    log.error("but this")
    assert "not this" not in stderr.getvalue()
    assert "but this" in stderr.getvalue()


def test_a_file_takes_any_text(tmp_path: Path, stderr: Stderr) -> None:
    file = tmp_path / "router.log"
    configure("info", "text", str(file))
    log.info("größer 模型 %s", b"\xff".decode("utf-8", "surrogateescape"))
    assert file.read_bytes().endswith("größer 模型 \\udcff\n".encode())
    assert stderr.getvalue() == ""


def test_a_file_does_not_grow_for_ever(tmp_path: Path) -> None:
    configure("info", "json", str(tmp_path / "router.log"))
    (handler,) = logging.getLogger().handlers
    assert isinstance(handler, RotatingFileHandler)
    assert handler.maxBytes > 0
    handler.maxBytes = 300
    for number in range(50):
        log.info("line %d", number)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["router.log", "router.log.1", "router.log.2"]
    assert "line 49" in (tmp_path / "router.log").read_text()


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="missing"):
        configure("info", "text", str(tmp_path / "missing" / "router.log"))


def test_configured_again_it_lets_go_of_the_former_file(tmp_path: Path, stderr: Stderr) -> None:
    configure("info", "text", str(tmp_path / "router.log"))
    (former,) = logging.getLogger().handlers
    configure("info", "text", "")
    log.info("now here")
    assert former not in logging.getLogger().handlers
    assert isinstance(former, RotatingFileHandler)
    assert former.stream is None
    assert stderr.getvalue().count("now here") == 1


STEERING = "\x00\x1b[2J\r\x7f\x85\x9b31m\u2028\u2029\u202e\u2066\u200f"


def test_an_exception_that_quotes_a_client_steers_nothing_either() -> None:
    try:
        raise ValueError(f"model {STEERING}\n12:00:00 INFO    forged")
    except ValueError as error:
        record = logging.makeLogRecord(
            {"msg": "failed", "levelname": "ERROR", "exc_info": (ValueError, error, None)}
        )
    text = TextFormatter().format(record)
    assert not any(char in text for char in STEERING if char not in "[2J31m")
    assert "\n    12:00:00 INFO    forged" in text
    assert "\\x1b[2J" in text
    assert "\\u202e" in text
    document = JsonFormatter().format(record)
    assert not any(char in document for char in STEERING if char not in "[2J31m")
    assert STEERING in json.loads(document)["exception"]


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_other_letters_stay_as_they_are(formatter: logging.Formatter) -> None:
    message = "größer 模型 עברית\tña\u0301 🙂"
    record = logging.makeLogRecord({"msg": message, "levelname": "INFO"})
    assert message.split("\t")[0] in formatter.format(record)
    assert "🙂" in formatter.format(record)


def test_json_keeps_what_is_no_unicode_readable() -> None:
    record = logging.makeLogRecord({"msg": "\x1b[2J", "levelname": "INFO"})
    assert "\x1b" not in JsonFormatter().format(record)
