"""What every command prints in the same way, and the exit codes."""

from __future__ import annotations

import json
from enum import IntEnum
from typing import NoReturn

import typer


class Exit(IntEnum):
    """The exit codes of all commands."""

    OK = 0
    FAILED = 1  # a check or an operation failed
    USAGE = 2  # wrong usage or configuration
    UNREACHABLE = 3  # no router answers
    NOT_AUTHORISED = 4  # the API key is missing or wrong
    INTERRUPTED = 130  # Ctrl-C


def fail(message: str, code: Exit, *, hint: str = "") -> NoReturn:
    """Say on stderr what is wrong and what to do, and end with `code`."""
    typer.secho("error: ", fg=typer.colors.RED, bold=True, err=True, nl=False)
    typer.echo(message, err=True)
    if hint:
        typer.echo(f"hint: {hint}", err=True)
    raise typer.Exit(code)


def problems(text: str) -> None:
    """Print rendered problems on stderr, their first words in colour."""
    for line in text.splitlines():
        for label, colour in (("error:", typer.colors.RED), ("warning:", typer.colors.YELLOW)):
            if line.startswith(label):
                typer.secho(label, fg=colour, bold=True, err=True, nl=False)
                line = line[len(label) :]
        typer.echo(line, err=True)


def as_json(document: object) -> None:
    """Print a document for programs, on stdout."""
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))
