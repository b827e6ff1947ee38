"""What every command prints in the same way, and the exit codes."""

from __future__ import annotations

import json
import os
from enum import IntEnum
from typing import NoReturn

import typer


class Exit(IntEnum):
    """The exit codes of all commands; 130, interrupted, is `mvllm_router.cli`'s."""

    OK = 0
    FAILED = 1  # a check or an operation failed
    USAGE = 2  # wrong usage or configuration
    UNREACHABLE = 3  # no router answers
    NOT_AUTHORISED = 4  # the API key is missing or wrong


def styled(text: str, colour: str) -> str:
    """Return `text` in a colour, or plain where NO_COLOR asks for that.

    What is not a terminal gets it plain in any case, from `typer.echo`.
    """
    return text if os.environ.get("NO_COLOR") else typer.style(text, fg=colour, bold=True)


def fail(message: str, code: Exit, *, hint: str = "") -> NoReturn:
    """Say on stderr what is wrong and what to do, and end with `code`."""
    problems(f"error: {message}")
    if hint:
        typer.echo(f"hint: {hint}", err=True)
    raise typer.Exit(code)


def problems(text: str) -> None:
    """Print rendered problems on stderr, their first words in colour."""
    for line in text.splitlines():
        for label, colour in (("error:", typer.colors.RED), ("warning:", typer.colors.YELLOW)):
            if line.startswith(label):
                line = styled(label, colour) + line[len(label) :]
        typer.echo(line, err=True)


def as_json(document: object) -> None:
    """Print a document for programs, on stdout."""
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


def count(number: int, thing: str) -> str:
    """Return `1 server`, `2 servers`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
