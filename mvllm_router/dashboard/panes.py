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
    texts,
)
from mvllm_router.dashboard.lines import (
    EMPTY,
    LONGEST_NAME,
    Line,
    Part,
    cell,
    cut,
    fit,
    plain,
    widest,
    width_of,
)
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
# Names of servers get what all else of a request leaves of the width, and these columns at least.
_SHORTEST_NAME, _ALL_ELSE = 12, 96
_KIND_TONES = {
    "admin": "accent", "you": "accent", "reload": "accent", "up": "good", "down": "bad",
    "circuit": "warn",
}  # fmt: skip


class RequestLines:
    """The lines of the last requests. What has ended does not change: its line is made once."""

    def __init__(self) -> None:
        self._made: dict[int, tuple[Document, Line]] = {}  # by the identity of the request
        self._widths = (0, 0)

    def of(self, requests: Sequence[Document], width: int) -> list[Line]:
        """Return a line for each, the names of their models under each other."""
        most = _WIDE_MODEL if width >= 120 else _MODEL_WIDTH
        model = max(1, widest({text(request, "model") for request in requests}, most))
        widths = (model, max(_SHORTEST_NAME, width - _ALL_ELSE))
        before = self._made if widths == self._widths else {}
        self._made, self._widths = {}, widths
        for request in requests:
            kept = before.get(id(request))
            if kept is None or kept[0] is not request:
                kept = (request, _request_line(request, *widths))
            self._made[id(request)] = kept
        return [line for _, line in self._made.values()]


def _left_out(entry: Document) -> Line:
    """Return how many entries this one stands for."""
    return plain(f" … {number(entry, 'left_out') or 0:.0f} more", "dim")


def _request_line(request: Document, model_width: int, name_width: int) -> Line:
    """Return one request: when, how it ended, what it was, where it went, and how long it took."""
    if "left_out" in request:
        return _left_out(request)
    status = int(number(request, "status") or 0)
    parts: list[Part] = [
        (f" {figures.clock(_ended(request))} ", "dim"),
        (f"{status or NOTHING:>3} ", _tone_of(status)),
        (f"{_kind(text(request, 'path')):<{_KIND_WIDTH}} ", "plain"),
        *cell(text(request, "model") or NOTHING, model_width),
        ("  ", "plain"),
        *_tried(request, name_width),
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


def _tried(request: Document, width: int) -> list[Part]:
    """Return every server that was tried: those that did not answer with the reason."""
    parts: list[Part] = []
    for number_, one in enumerate(entries(request, "tried")):
        outcome = text(one, "outcome")
        name = cut(text(one, "server"), width)
        if number_:
            parts.append((" → ", "dim"))
        parts.append((f"{name} ({outcome})" if outcome else name, "warn" if outcome else "strong"))
    if not parts:
        server = text(request, "server")
        parts.append((cut(server, width) or NOTHING, "strong" if server else "dim"))
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


def event_lines(events: Sequence[Document]) -> list[Line]:
    """Return the events: when, which kind, which server, and why; that may take several lines."""
    return [line for event in events for line in _event(event)]


def _event(event: Document) -> list[Line]:
    if "left_out" in event:
        return [_left_out(event)]
    kind = text(event, "kind")
    backend = text(event, "backend")
    # Its lines are parted first: `text` would write the ends of them as escapes.
    told = str(look_up(event, "message") or "").splitlines() or [""]
    begin: Line = (
        (f" {figures.clock(number(event, 'at'))} ", "dim"),
        (f"{kind:<12} ", _KIND_TONES.get(kind, "second")),
    )
    indent = plain(" " * width_of(begin))
    server: Line = ((f"{backend}: ", "strong"),) if backend else ()
    return [
        (*begin, *server, *plain(printable(told[0]))),
        *((*indent, *plain(printable(line))) for line in told[1:]),
    ]


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


def config_lines(
    config: Document | None, snapshot: Document, width: int, why_not: str = ""
) -> list[Line]:
    """Return the settings and servers with where each came from, or why they are not known."""
    if config is None:
        return [
            plain(f" file      {text(snapshot, 'config') or 'none'}"),
            plain(f" policy    {text(snapshot, 'policy') or NOTHING}"),
            EMPTY,
            plain(f" {why_not or 'The settings are not here yet.'}", "dim"),
        ]
    path = text(config, "path")
    return [
        ((" file  ", "dim"), (path or "none", "strong")),
        EMPTY,
        *_server_lines(entries(config, "servers"), path),
        EMPTY,
        *_setting_lines(look_up(config, "settings"), path, width),
    ]


# What an entry says where the file says nothing.
_USUAL = {"engine": "auto", "weight": 1.0, "tls_verify": True}
_LONGEST_SETTING, _SHORTEST_VALUE = 36, 12


def _setting_lines(settings: object, path: str, width: int) -> list[Line]:
    """Return name, value and origin in columns; a value that is wider than its column is whole."""
    if not isinstance(settings, dict):
        return []
    # What somebody set is what one looks for: the defaults come after it.
    chosen = sorted(settings, key=lambda name: text(settings[name], "from") == "default")
    names = widest(chosen, _LONGEST_SETTING)
    origins = {name: _origin(settings[name], path) for name in chosen}
    room = width - names - max(map(width_of, origins.values()), default=0) - 4
    values = widest((_value(settings[name]) for name in chosen), max(_SHORTEST_VALUE, room))
    lines: list[Line] = []
    for name in chosen:
        tone = "dim" if text(settings[name], "from") == "default" else "strong"
        value = _padded(_value(settings[name]), values, tone)
        lines.append((*plain(" "), *_padded(name, names), *plain("  "), *value, *origins[name]))
    return lines


def _padded(word: str, width: int, tone: str = "plain") -> Line:
    return fit(plain(word, tone), max(width, cell_len(word)))


def _value(setting: Document) -> str:
    value = look_up(setting, "value")
    return printable(str(value)) if value not in ("", None) else NOTHING


def _origin(setting: Document, path: str) -> Line:
    origin = text(setting, "from")
    note = "" if look_up(setting, "live") else "  (a restart changes it)"
    tone = "dim" if origin == "default" else "accent"
    return ((f"  {_place(setting, path) or origin}", tone), (note, "dim"))


def _server_lines(servers: Sequence[Document], path: str) -> list[Line]:
    names = widest((text(server, "name") for server in servers), LONGEST_NAME)
    return [_server_line(server, names, path) for server in servers]


def _server_line(server: Document, names: int, path: str) -> Line:
    left_out = ("name", "url", "from", "place")
    more = " ".join(
        f"{key}={printable(str(value))}"
        for key, value in server.items()
        if key not in left_out and value not in (None, "", [], {}, (), _USUAL.get(key))
    )
    return (
        (" ", "plain"),
        *_padded(text(server, "name"), names, "strong"),
        (f"  {text(server, 'url')}  ", "plain"),
        (f"{_place(server, path) or text(server, 'from')}  ", "accent"),
        (more, "dim"),
    )


def _place(entry: Document, path: str) -> str:
    """Return where a value stands; the folder of the file is said once, above all."""
    place = text(entry, "place")
    folder = path[: path.rfind("/") + 1]
    return place[len(folder) :] if folder and place.startswith(folder) else place


def empty_requests(snapshot: Document, url: str) -> list[Line]:
    """Return what a person may do when nothing has come yet; requests are listed when they end."""
    if running := number(snapshot, "in_flight"):
        verb = "runs" if running == 1 else "run"
        return message(f"No request has finished yet: {running:.0f} {verb}.")
    models = [model for server in entries(snapshot, "servers") for model in texts(server, "models")]
    model = models[0] if models else "MODEL"
    address = text(snapshot, "address") or url
    body = f'{{"model": "{model}", "messages": [{{"role": "user", "content": "Hi"}}]}}'
    return [
        plain(" No requests yet. Send one:", "strong"),
        EMPTY,
        plain(
            f"   curl {address}/v1/chat/completions -H 'content-type: application/json' \\",
            "accent",
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
