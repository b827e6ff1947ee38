"""`router init` and `router check`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import typer

from mvllm_router.cli.output import Exit, as_json, fail, problems
from mvllm_router.config import Config, ConfigError, ServerSpec, load, template


def write_template(path: Path, *, force: bool) -> None:
    """Write the commented configuration; never over a file unless `force`."""
    if path.exists() and not force:
        fail(f"{path} is there already", Exit.FAILED, hint="--force replaces it")
    try:
        path.write_text(template(), encoding="utf-8")
    except OSError as error:
        fail(f"cannot write {path}: {error.strerror}", Exit.FAILED)
    typer.echo(f"wrote {path}: name your servers in it, then `router check --connect`")


def check_config(path: Path, *, connect: bool, as_document: bool) -> None:
    """Print all problems of a file and end with 2, or 1 if a server does not answer."""
    try:
        config = load(path)
    except ConfigError as error:
        if as_document:
            as_json({"ok": False, "problems": [str(problem) for problem in error.problems]})
        problems(str(error))
        raise typer.Exit(Exit.USAGE) from None
    for warning in config.warnings:
        problems(warning.render())
    found = asyncio.run(_ask_all(config)) if connect else [_unasked(s) for s in config.servers]
    if as_document:
        as_json({"ok": all(server.ok for server in found), "servers": [vars(s) for s in found]})
    else:
        _print(path, found)
    if not all(server.ok for server in found):
        raise typer.Exit(Exit.FAILED)


@dataclass
class Found:
    """What is known of a server; `ok` is False when it was asked and did not answer well."""

    name: str
    url: str
    ok: bool
    engine: str
    says: str
    capacity: float | None
    models: list[str]


def _unasked(spec: ServerSpec) -> Found:
    models = sorted({*spec.models, *spec.aliases})
    capacity = spec.max_concurrent_requests
    return Found(spec.name, spec.url, True, spec.engine, "", capacity, models)


async def _ask_all(config: Config) -> list[Found]:
    """Check each server once, all at the same time, as the router does when it starts."""
    from mvllm_router.control.prober import Prober
    from mvllm_router.control.watch import Watch
    from mvllm_router.pool import Backend, Pool

    async def ask(backend: Backend) -> Found:
        await Watch(backend, pool, prober, config.settings).check()
        return Found(
            backend.name,
            backend.spec.url,
            backend.is_up,
            backend.engine,
            "" if backend.is_up else backend.health.reason,
            backend.capacity,
            sorted(backend.model_names() or ()),
        )

    pool, prober = Pool(), Prober()
    try:
        return await asyncio.gather(*(ask(pool.add(spec)) for spec in config.servers))
    finally:
        await prober.close()


def _print(path: Path, found: list[Found]) -> None:
    for server in found:
        mark, colour = ("ok", typer.colors.GREEN) if server.ok else ("down", typer.colors.RED)
        typer.secho(f"{mark:<4} ", fg=colour, nl=False)
        capacity = "" if server.capacity is None else f", {server.capacity:g} at once"
        models = f", {', '.join(server.models)}" if server.models else ""
        typer.echo(f"{server.name}  {server.says or server.engine + capacity + models}")
    good = sum(server.ok for server in found)
    typer.echo(f"{path}: {good} of {len(found)} servers ok" if found else f"{path}: no servers")
