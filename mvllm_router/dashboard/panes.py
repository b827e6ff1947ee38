"""The lines of the tabs: requests, events, log and configuration."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len

from mvllm_router.config.problems import printable
from mvllm_router.dashboard import figures
from mvllm_router.dashboard.document import (
    NOTHING,
    Document,
    entries,
    look_up,
    number,
    text,
)
from mvllm_router.dashboard.lines import Line, Part, cut, fit, plain
from mvllm_router.dashboard.log import ServerLog

TABS = ("requests", "events", "log", "config")

_CLIENT_LEFT = 499
# What is asked for, by the end of its path.
_KINDS = {
    "/chat/completions": "chat",
    "/completions": "complete",
    "/embeddings": "embed",
    "/responses": "respond",
    "/messages": "message",
    "/rerank": "rerank",
    "/score": "score",
    "/tokenize": "tokenize",
    "/detokenize": "detoken",
    "/models": "models",
}
_KIND_WIDTH, _MODEL_WIDTH, _WIDE_MODEL = 8, 16, 28
_KIND_TONES = {
    "admin": "accent", "you": "accent", "reload": "accent", "up": "good", "down": "bad",
    "circuit": "warn",
}  # fmt: skip


def request_lines(requests: Sequence[Document], width: int) -> list[Line]:
    """Return the requests, the names of their models under each other, and where some are left out.

    With more than a hundred a second the dashboard does not ask for all.
    """
    widest = max((cell_len(text(request, "model")) for request in requests), default=0)
    model = min(widest, _WIDE_MODEL if width >= 120 else _MODEL_WIDTH)
    lines, last = [], 0
    for request in requests:
        number_of = int(number(request, "number") or 0)
        if last and number_of > last + 1:
            lines.append(plain(f" … {number_of - last - 1} more", "dim"))
        lines.append(_request_line(request, max(1, model)))
        last = number_of
    return lines


def _request_line(request: Document, model_width: int) -> Line:
    """Return one request: when, how it ended, what it was, where it went, and how long it took."""
    status = int(number(request, "status") or 0)
    model = cut(text(request, "model") or NOTHING, model_width)
    parts: list[Part] = [
        (f" {figures.clock(_ended(request))} ", "dim"),
        (f"{status or NOTHING:>3} ", _tone_of(status)),
        (f"{_kind(text(request, 'path')):<{_KIND_WIDTH}} ", "plain"),
        *fit(plain(model), model_width),
        ("  ", "plain"),
        *_tried(request),
    ]
    error = text(request, "error")
    if error:
        return (*parts, (f"  {error}", _tone_of(status)))
    parts += _times(request)
    if key := text(request, "key"):
        parts.append((f"  {key}", "second"))
    if why := text(request, "why"):
        parts.append((f"  {why}", "dim"))
    return tuple(parts)


def _ended(request: Document) -> float | None:
    """Return when it ended, in seconds since 1970: the list is in that order."""
    at = number(request, "at")
    return None if at is None else at + (number(request, "duration_seconds") or 0.0)


def _tone_of(status: int) -> str:
    if status >= 500 or not status:
        return "bad"
    return "warn" if status >= 400 else "good"


def _kind(path: str) -> str:
    path = path.partition("?")[0]
    return next(
        (kind for end, kind in _KINDS.items() if path.endswith(end)), cut(path, _KIND_WIDTH)
    )


def _tried(request: Document) -> list[Part]:
    """Return every server that was tried: those that did not answer with the reason."""
    parts: list[Part] = []
    for number_, one in enumerate(entries(request, "tried")):
        outcome = text(one, "outcome")
        name = text(one, "server")
        if number_:
            parts.append((" → ", "dim"))
        parts.append((f"{name} ({outcome})" if outcome else name, "warn" if outcome else "strong"))
    if not parts:
        server = text(request, "server")
        parts.append((server or NOTHING, "strong" if server else "dim"))
    return parts


def _times(request: Document) -> list[Part]:
    ttft, whole = number(request, "ttft_seconds"), number(request, "duration_seconds")
    tokens = number(request, "completion_tokens")
    parts: list[Part] = []
    if ttft is not None:
        parts.append((f"  ttft {figures.latency(ttft)}", "plain"))
    if whole is not None:
        parts.append((f"  {figures.latency(whole)}", "plain"))
    if tokens is not None:
        parts.append((f"  {tokens:.0f} tok", "plain"))
    if int(number(request, "status") or 0) == _CLIENT_LEFT:
        parts.append(("  the client left", "warn"))
    return parts


def event_line(event: Document) -> Line:
    """Return one event: when, which kind, which server, and why."""
    kind = text(event, "kind")
    backend = text(event, "backend")
    return (
        (f" {figures.clock(number(event, 'at'))} ", "dim"),
        (f"{kind:<12} ", _KIND_TONES.get(kind, "second")),
        *(((f"{backend}: ", "strong"),) if backend else ()),
        (text(event, "message"), "plain"),
    )


def log_line(logged: str) -> Line:
    """Return a line of the log, the level of a text log in its colour."""
    for level, tone in (("ERROR", "bad"), ("WARNING", "warn"), ("DEBUG", "dim")):
        if f" {level} " in logged[:24] or f'"level": "{level.lower()}"' in logged:
            return plain(f" {printable(logged)}", tone)
    return plain(f" {printable(logged)}")


def server_log_lines(log: ServerLog) -> list[Line]:
    """Return the log of a server, or why it is not there."""
    lines = [log_line(line) for line in log.lines()]
    if log.why_not:
        note = [plain(f" {log.why_not}", "strong"), plain(" esc shows the router's log.", "dim")]
        return [*lines, *note]
    if log.is_here:
        return lines or message(f"{log.name} has printed nothing yet.")
    return message(f"Asking for the log of {log.name} ...")


def config_lines(config: Document | None, snapshot: Document, why_not: str = "") -> list[Line]:
    """Return the settings and servers with where each came from, or why they are not known."""
    if config is None:
        return [
            plain(f" file      {text(snapshot, 'config') or 'none'}"),
            plain(f" policy    {text(snapshot, 'policy') or NOTHING}"),
            EMPTY_LINE,
            plain(f" {why_not or 'The settings are not here yet.'}", "dim"),
        ]
    lines = [((" file  ", "dim"), (text(config, "path") or "none", "strong")), EMPTY_LINE]
    path = text(config, "path")
    lines += [_server_line(server, path) for server in entries(config, "servers")]
    settings = look_up(config, "settings")
    lines.append(EMPTY_LINE)
    if isinstance(settings, dict):
        # What somebody set is what one looks for: the defaults come after it.
        chosen = sorted(settings, key=lambda name: text(settings[name], "from") == "default")
        lines += [_setting_line(name, settings[name], path) for name in chosen]
    return lines


# What an entry says where the file says nothing.
_USUAL = {"engine": "auto", "weight": 1.0, "tls_verify": True}
EMPTY_LINE: Line = plain("")


def _setting_line(name: str, setting: Document, path: str) -> Line:
    origin, place = text(setting, "from"), _place(setting, path)
    value = look_up(setting, "value")
    shown = printable(str(value)) if value not in ("", None) else NOTHING
    note = "" if look_up(setting, "live") else "  (a restart changes it)"
    return (
        (f" {name:<36} ", "plain"),
        *fit(plain(cut(shown, 24), "dim" if origin == "default" else "strong"), 24),
        (f"  {place or origin}", "dim" if origin == "default" else "accent"),
        (note, "dim"),
    )


def _server_line(server: Document, path: str) -> Line:
    left_out = ("name", "url", "from", "place")
    more = " ".join(
        f"{key}={printable(str(value))}"
        for key, value in server.items()
        if key not in left_out and value not in (None, "", [], {}, (), _USUAL.get(key))
    )
    return (
        (f" {text(server, 'name'):<16} ", "strong"),
        (f"{text(server, 'url')}  ", "plain"),
        (f"{_place(server, path) or text(server, 'from')}  ", "accent"),
        (more, "dim"),
    )


def _place(entry: Document, path: str) -> str:
    """Return where a value stands; the folder of the file is said once, above all."""
    place = text(entry, "place")
    folder = path[: path.rfind("/") + 1]
    return place[len(folder) :] if folder and place.startswith(folder) else place


def empty_requests(url: str, model: str) -> list[Line]:
    """Return what a person may do when nothing has come yet."""
    body = f'{{"model": "{model or "MODEL"}", "messages": [{{"role": "user", "content": "Hi"}}]}}'
    return [
        plain(" No requests yet. Send one:", "strong"),
        EMPTY_LINE,
        plain(
            f"   curl {url}/v1/chat/completions -H 'content-type: application/json' \\", "accent"
        ),
        plain(f"     -d '{body}'", "accent"),
    ]


def message(*texts: str) -> list[Line]:
    """Return a short explanation: its first line strong, the others under it."""
    return [plain(f" {line}", "dim" if number_ else "strong") for number_, line in enumerate(texts)]


def empty_servers(typed: str, faults_only: bool, known: int) -> list[Line]:
    """Return what to do about a table without a row."""
    if known and (typed or faults_only):
        what = f"the filter `{typed}`" if typed else "a fault: all of them are up"
        how = "esc takes the filter away" if typed else "f shows all servers again"
        return message(f"None of {known} servers has {what}.", f"{how}.")
    return message("No servers yet.", "a adds one; `router init` writes a servers.toml with them.")
