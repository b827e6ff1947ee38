"""`router explain`: where a request would go now, and why."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mvllm_router.cli.manage import Remote
from mvllm_router.cli.output import Exit, as_json, fail
from mvllm_router.client import Refused
from mvllm_router.config.problems import printable

# Columns that names and reasons have at least; and those of a pipe, which has no end of a line.
_LEAST, _PIPED = 12, 10_000


def explain(
    router: Remote,
    model: str | None,
    *,
    session: str | None,
    body: Path | None,
    as_document: bool,
) -> None:
    """Print each server with its score and why it is chosen or not; end with 1 if none would do.

    `body` is a file with the body of a request, for policies that look into it.
    """
    asked: dict[str, object] = {"model": model}
    if session is not None:
        asked["session"] = session
    if body is not None:
        asked["body"] = _read(body)
    try:
        document = router.ask("POST", "/router/explain", asked)
    except Refused as error:
        fail(printable(str(error)), Exit.FAILED)
    if "candidates" not in document:
        router.is_none()
    if as_document:
        as_json(document)
    else:
        _print(document)
    if document.get("refused"):
        fail(printable(str(document["refused"])), Exit.FAILED)


def _read(path: Path) -> object:
    try:
        body: object = json.loads(path.read_bytes())
        json.dumps(body, allow_nan=False)  # Python reads NaN, and takes 1e400 for infinity
    except OSError as error:
        fail(f"{path}: {error.strerror or error}", Exit.USAGE)
    except ValueError as error:
        fail(f"{path} is not JSON: {error}", Exit.USAGE)
    return body


def _print(document: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, markup=False)
    if not console.is_terminal and not os.environ.get("COLUMNS"):
        console.width = _PIPED
    console.print(Text(printable(_headline(document))))
    if document["candidates"]:
        console.print(_table(document))


def _headline(document: Mapping[str, Any]) -> str:
    what = document["model"] or "a request without a model"
    where = document["chosen"] or ("nowhere" if document["refused"] else "one of several servers")
    return f"{what} would go to {where} · {document['policy']}"


def _table(document: Mapping[str, Any]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    # Names without an end, and words: where the width is short, both go on in the next line.
    table.add_column("server", overflow="fold", min_width=_LEAST)
    table.add_column("(running + 0.5·waiting)/capacity", no_wrap=True)
    table.add_column("why", overflow="fold", min_width=_LEAST)
    for one in document["candidates"]:
        is_chosen = one["name"] == document["chosen"]
        glyph, style = (
            ("●", "green") if is_chosen else ("◌", "") if one["eligible"] else ("○", "dim")
        )
        cells = (glyph, one["name"], one["arithmetic"], one["reason"])
        table.add_row(*(Text(printable(str(cell)), style) for cell in cells))
    return table
