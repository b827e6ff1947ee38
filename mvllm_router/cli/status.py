"""`router status`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mvllm_router.cli.output import Exit, as_json, fail
from mvllm_router.client import NotAuthorised, Unreachable, get

Server = Mapping[str, Any]  # an entry of the snapshot

_GLYPHS = {
    "up": "●",
    "resting": "◍",
    "drain": "◐",
    "half-open": "◌",
    "open": "⊘",
    "down": "○",
    "loading": "◌",
    "checking": "◌",
}
_COLOURS = dict.fromkeys(_GLYPHS, "yellow") | {"up": "green", "open": "red", "down": "red"}
_GAP = 2  # columns of white space between two columns
# Terminal columns for names of models, below which other things are left out.
_MODELS_WIDTH = 20


@dataclass(frozen=True)
class Column:
    """A heading and what stands under it; `is_number` puts it to the right."""

    heading: str
    text: Callable[[Server], str]
    is_number: bool = True


_COLUMNS = (
    Column("server", lambda s: str(s["name"]), is_number=False),
    Column("state", lambda s: f"{_GLYPHS.get(s['state'], '?')} {s['state']}", is_number=False),
    Column("engine", lambda s: str(s["engine"]), is_number=False),
    Column("models", lambda s: ", ".join(s["models"]) or "–", is_number=False),
    Column("run/cap", lambda s: f"{s['running']}/{s['max_capacity']}"),
    Column("wait", lambda s: str(s["waiting"])),
    Column("score", lambda s: f"{s['score']:.2f}"),
    Column("kv", lambda s: _share(s["detailed_metrics"]["gpu_cache_usage_perc"])),
    Column("ttft p50", lambda s: _milliseconds(s["ttft_seconds"]["p50"])),
    Column("requests", lambda s: str(s["requests"])),
    Column("errors", lambda s: str(s["errors"])),
)
# What a narrow terminal does without, the least needed first.
_LEFT_OUT = ("score", "kv", "engine", "ttft p50", "requests", "models", "errors", "wait")


def show_status(url: str, api_key: str | None, *, as_document: bool) -> None:
    """Print a running router's snapshot, as a table or as JSON."""
    try:
        snapshot = get(url, "/router/snapshot", api_key)
    except Unreachable as error:
        fail(
            str(error),
            Exit.UNREACHABLE,
            hint=error.hint or "start one with `router run`, or name its address",
        )
    except NotAuthorised as error:
        fail(str(error), Exit.NOT_AUTHORISED, hint="set ROUTER_API_KEY or use --api-key")
    if "summary" not in snapshot:
        fail(f"{url} answers, but not as a router does", Exit.UNREACHABLE)
    if as_document:
        as_json(snapshot)
    else:
        _print(snapshot)


def _print(snapshot: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, markup=False)
    for line in _facts(snapshot):
        console.print(line)
    if snapshot["servers"]:
        console.print(_table(snapshot["servers"], console.width))
    for server in snapshot["servers"]:
        if server["state"] != "up":
            console.print(Text(f"{server['name']}: {server['reason']}", _colour(server)))


def _facts(snapshot: Mapping[str, Any]) -> tuple[str, str]:
    summary, requests = snapshot["summary"], snapshot["requests"]
    return (
        f"{snapshot['address']} {snapshot['state']} · up {_span(snapshot['uptime_seconds'])} · "
        f"{snapshot['policy']}",
        f"servers {summary['healthy_servers']}/{summary['total_servers']} up · "
        f"in flight {snapshot['in_flight']} · queued {snapshot['queued']} · "
        f"requests {requests['total']} · errors {requests['errors']}",
    )


def _table(servers: Sequence[Server], width: int) -> Any:
    from rich.table import Table
    from rich.text import Text

    columns, models_width = fit(servers, width)
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, _GAP, 0, 0))
    for column in columns:
        table.add_column(
            column.heading,
            justify="right" if column.is_number else "left",
            no_wrap=True,
            overflow="ellipsis",
        )
    for server in servers:
        cells = [Text(column.text(server)) for column in columns]
        cells[1].stylize(_colour(server))
        for cell, column in zip(cells, columns, strict=True):
            if column.heading == "models":
                cell.plain = shorten(server["models"], models_width)
        table.add_row(*cells)
    return table


def fit(servers: Sequence[Server], width: int) -> tuple[list[Column], int]:
    """Choose the columns that fit into `width`, and how wide the names of models may be."""
    widths = {column.heading: _natural_width(column, servers) for column in _COLUMNS}
    models = widths["models"]
    widths["models"] = min(models, _MODELS_WIDTH)
    for heading in _LEFT_OUT:
        if _total(widths) <= width:
            break
        del widths[heading]
    spare = max(0, width - _total(widths))
    columns = [column for column in _COLUMNS if column.heading in widths]
    return columns, min(models, widths.get("models", 0) + spare)


def _total(widths: Mapping[str, int]) -> int:
    return sum(widths.values()) + _GAP * (len(widths) - 1)


def _natural_width(column: Column, servers: Sequence[Server]) -> int:
    from rich.cells import cell_len

    return max(cell_len(text) for text in (column.heading, *map(column.text, servers)))


def shorten(names: Sequence[str], width: int) -> str:
    """Join as many names as fit into `width` columns, and count the others: `a, b +3`."""
    from rich.cells import cell_len

    if not names:
        return "–"
    for shown in range(len(names), 0, -1):
        rest = len(names) - shown
        text = ", ".join(names[:shown]) + (f" +{rest}" if rest else "")
        if cell_len(text) <= width:
            return text
    more = f" +{len(names) - 1}" if len(names) > 1 else ""
    return _cut(names[0], width - len(more)) + more


def _cut(text: str, width: int) -> str:
    """Cut `text` in its middle: the ends of names of models tell most."""
    from rich.cells import cell_len

    if cell_len(text) <= width or width < 1:
        return text
    head = (width - 1) // 2
    return f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}"


def _colour(server: Server) -> str:
    return _COLOURS.get(server["state"], "")


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def _milliseconds(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds * 1000:.0f} ms"


def _span(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h {minutes:02}m"
    return f"{minutes}m {seconds:02}s" if minutes else f"{seconds}s"
