"""`router status`."""

from __future__ import annotations

from typing import Any

from mvllm_router.cli.output import Exit, as_json, fail
from mvllm_router.client import NotAuthorised, Unreachable, get

_GLYPHS = {"up": "●", "down": "○", "loading": "◌", "checking": "◌"}
_COLOURS = {"up": "green", "down": "red", "loading": "yellow", "checking": "yellow"}


def show_status(url: str, api_key: str | None, *, as_document: bool) -> None:
    """Print a running router's snapshot, as a table or as JSON."""
    try:
        snapshot = get(url, "/router/snapshot", api_key)
    except Unreachable as error:
        fail(str(error), Exit.UNREACHABLE, hint="start one with `router run`, or name its address")
    except NotAuthorised as error:
        fail(str(error), Exit.NOT_AUTHORISED, hint="set ROUTER_API_KEY or use --api-key")
    if as_document:
        as_json(snapshot)
    else:
        _print_table(snapshot)


def _print_table(snapshot: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    summary = snapshot["summary"]
    console = Console(highlight=False)
    facts = (
        f"[bold]{snapshot['address']}[/] {snapshot['state']}",
        f"up {_span(snapshot['uptime_seconds'])}",
        snapshot["policy"],
        f"servers {summary['healthy_servers']}/{summary['total_servers']}",
        f"in flight {snapshot['in_flight']}",
        f"requests {snapshot['requests']['total']}",
    )
    console.print(" · ".join(facts))
    table = Table(box=None, header_style="dim", pad_edge=False)
    for heading in ("server", "state", "engine", "models"):
        table.add_column(heading, overflow="fold")
    for heading in ("run/cap", "wait", "score", "kv", "ttft p50", "requests", "errors"):
        table.add_column(heading, justify="right")
    for server in snapshot["servers"]:
        table.add_row(*_row(server))
    console.print(table)


def _row(server: dict[str, Any]) -> tuple[str, ...]:
    state = server["state"]
    colour = _COLOURS[state]
    kv = server["detailed_metrics"]["gpu_cache_usage_perc"]
    ttft = server["ttft_seconds"]["p50"]
    return (
        server["name"],
        f"[{colour}]{_GLYPHS[state]} {state}[/]",
        server["engine"],
        ", ".join(server["models"]) or "–",
        f"{server['running']}/{server['max_capacity']}",
        str(server["waiting"]),
        f"{server['score']:.2f}",
        "–" if kv is None else f"{kv:.0%}",
        "–" if ttft is None else f"{ttft * 1000:.0f} ms",
        str(server["requests"]),
        str(server["errors"]),
    )


def _span(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h {minutes:02}m"
    return f"{minutes}m {seconds:02}s" if minutes else f"{seconds}s"
