"""Why a server ended, out of the last lines of its log."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass

# Lines from the end that are looked at: a traceback of an engine with workers is long.
LOOKED_AT = 200
_LONGEST = 300  # characters

# `(EngineCore pid=12) ERROR 11-21 10:00:00 [core.py:12] `, `0.00.051.2 E srv  main: `, `ERROR:  `
_PREFIX = re.compile(
    r"^(?:\([^)]*pid=\d+\)\s*)?(?:(?:ERROR|CRITICAL)[\s:]+)?(?:\d\d-\d\d [\d:]+\s+)?"
    r"(?:\[[\w./]+:\d+\]\s*)?(?:[\d.]+ E \s*)?"
)
_EXCEPTION = re.compile(r"(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Exit|NotFound)\b: .+")
_USAGE = re.compile(r"(?:^|: )error: .+|^error[: ].*", re.IGNORECASE)
_LLAMA_ERROR = re.compile(r"^[\d.]+ E ")
# What an engine's outer process says of its inner one tells nothing.
_EMPTY = re.compile(r"root cause|EngineDeadError|initialization failed|see (stack|above)", re.I)
_DETAIL = re.compile(r"^\s*(?:Value error|Assertion failed), (.+?)(?: \[type=.*)?$")
_PORT_TAKEN = re.compile(
    r"address already in use|couldn't bind HTTP server socket|port \d+ is (already )?in use", re.I
)
# To try it again leads to the same end.
_HOPELESS = re.compile(
    r"unrecognized arguments|invalid (argument|choice|option)|No such file or directory"
    r"|No module named|not a valid model|does not exist|is not a local folder|Repo id must be"
    r"|invalid magic|Model path does not exist|unknown argument|Cannot find the requested"
    r"|Repository ?Not ?Found|GatedRepo|ValueError|ValidationError|not found",
    re.I,
)
# Memory that is taken now may be free later, such as that of a server which has just ended.
_PASSING = re.compile(r"memory", re.I)
_USAGE_CODE = 2


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a server ended. `hopeless`: the same again would end in the same way."""

    text: str
    hopeless: bool = False
    port_taken: bool = False


def reason_of(lines: Sequence[str], code: int) -> Reason:
    """Return the reason for the end of a server, whose log ended with `lines`.

    Args:
        code: how it ended, below 0 for a signal.
    """
    lines = [line for line in lines[-LOOKED_AT:] if line.strip()]
    # The last line of one that was killed is any line, such as that of a request.
    said = _error(lines) if code == -signal.SIGKILL else _said(lines)
    port_taken = any(_PORT_TAKEN.search(line) for line in lines[-20:])
    ended = _ending(code)
    text = f"{said} ({ended})" if said else ended
    hopeless = not port_taken and (code == _USAGE_CODE or _is_hopeless(said, lines))
    return Reason(text, hopeless, port_taken)


def last_error(lines: Sequence[str]) -> str:
    """Return what a server that had to be ended has said of it, to be added; "" for nothing."""
    plain = [_PREFIX.sub("", line).strip() for line in lines[-LOOKED_AT:]]
    said = _exceptions(plain) or _usage(plain) or _llama(lines)
    return f"; it said: {_short(said)}" if said else ""


def _is_hopeless(said: str, lines: Sequence[str]) -> bool:
    if _PASSING.search(said):
        return False
    return bool(_HOPELESS.search(said)) or any(_DETAIL.match(line) for line in lines)


def _ending(code: int) -> str:
    if code >= 0:
        return f"it ended with exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
    guess = ", out of memory perhaps" if -code == signal.SIGKILL else ""
    return f"it was ended by {name}{guess}"


def _said(lines: Sequence[str]) -> str:
    """Return the line that tells most: the last error that is about something, else the last."""
    last = _PREFIX.sub("", lines[-1]).strip() if lines else ""
    return _error(lines) or _short(last)


def _error(lines: Sequence[str]) -> str:
    """Return the last error that is about something; "" where there is none."""
    plain = [_PREFIX.sub("", line).strip() for line in lines]
    for number in reversed(range(len(plain))):
        if detail := _DETAIL.match(plain[number]):
            return _short(detail[1])
    return _short(_exceptions(plain) or _usage(plain) or _llama(lines))


def _exceptions(plain: Sequence[str]) -> str:
    told = [line for line in plain if _EXCEPTION.match(line) and not _EMPTY.search(line)]
    return told[-1] if told else ""


def _usage(plain: Sequence[str]) -> str:
    told = [match[0] for line in plain if (match := _USAGE.search(line))]
    return told[-1].removeprefix(": ") if told else ""


def _llama(lines: Sequence[str]) -> str:
    """Return the first line that llama-server marks as an error: those behind it follow from it."""
    told = [_PREFIX.sub("", line).strip() for line in lines if _LLAMA_ERROR.match(line)]
    return re.sub(r"\s+", " ", told[0]) if told else ""


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


# --- while it starts

_STAGES = (
    ("warming", re.compile(r"warm|captur|graph|compil|profil|KV cache|autotun", re.I)),
    ("loading", re.compile(r"load|download|fetch|safetensors|shard|weights", re.I)),
)


def stage_of(line: str) -> str | None:
    """Return how far a server has come that says `line`: "loading", "warming", None for unknown."""
    return next((name for name, pattern in _STAGES if pattern.search(line)), None)
