"""`router init` and `router check`."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path

import typer

from mvllm_router.cli.output import Exit, as_json, count, fail, problems, styled
from mvllm_router.config import Config, ConfigError, Problem, ServerSpec, load, template
from mvllm_router.config.problems import printable


def write_template(path: Path, *, force: bool) -> None:
    """Write the commented configuration; never over a file unless `force`."""
    if path.exists() and not force:
        fail(f"{path} is there already", Exit.FAILED, hint="--force replaces it")
    try:
        path.write_text(template(), encoding="utf-8")
    except OSError as error:
        fail(f"cannot write {path}: {error.strerror}", Exit.FAILED)
    typer.echo(f"wrote {path}: name your servers in it, then `router check --connect`", err=True)


def check_config(path: Path, *, connect: bool, as_document: bool) -> None:
    """Print all problems of a file and end with 2, or 1 if a server does not answer."""
    try:
        config = load(path)
    except ConfigError as error:
        if as_document:
            as_json({"ok": False, "problems": [_as_document(p) for p in error.problems]})
        problems(str(error))
        raise typer.Exit(Exit.USAGE) from None
    for warning in config.warnings:
        problems(warning.render())
    found = asyncio.run(_ask_all(config)) if connect else [_unasked(s) for s in config.servers]
    ok = all(server.ok for server in found)
    if as_document:
        warnings = [_as_document(warning) for warning in config.warnings]
        servers = [vars(server) for server in found]
        launches = [launch.name for launch in config.launches]
        rest = {"keys": _key_names(config), "launches": launches}
        as_json({"ok": ok, "problems": warnings, "servers": servers, **rest})
    else:
        _print(path, found, config, asked=connect)
    if not ok:
        raise typer.Exit(Exit.FAILED)


def _as_document(problem: Problem) -> dict[str, object]:
    return {
        "label": problem.label,
        "message": problem.message,
        "place": problem.place,
        "line": problem.line,
        "column": problem.column,
        "hint": problem.hint,
    }


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

    # What is found is printed in one place; as a log it would come twice.
    logging.getLogger("mvllm_router").addHandler(logging.NullHandler())
    pool, prober = Pool(), Prober()
    try:
        return await asyncio.gather(*(ask(pool.add(spec)) for spec in config.servers))
    finally:
        await prober.close()


def _key_names(config: Config) -> list[str]:
    return [key.name for key in config.client_keys]


def _print(path: Path, found: list[Found], config: Config, *, asked: bool) -> None:
    width = max((len(server.name) for server in found), default=0)
    for server in found:
        mark, colour = ("ok", typer.colors.GREEN) if server.ok else ("down", typer.colors.RED)
        # A server may say anything, also what a terminal would act on.
        facts = printable(server.says or ", ".join(_facts(server)))
        typer.echo(f"{styled(f'{mark:<4}', colour)}  {server.name:<{width}}  {facts}")
    for launch in config.launches:
        servers = [count(launch.replicas, "server")] if launch.replicas else []
        facts = ", ".join([launch.engine, *filter(None, [launch.model]), *servers])
        typer.echo(printable(f"{launch.name} is launched: {facts}"))
    typer.echo(f"{path}: {_summary(found, config, asked=asked)}")


def _facts(server: Found) -> list[str]:
    capacity = [] if server.capacity is None else [f"{server.capacity:g} at once"]
    return [server.engine, *capacity, *server.models]


def _summary(found: list[Found], config: Config, *, asked: bool) -> str:
    keys, launches = len(config.client_keys), len(config.launches)
    with_keys = f", {count(keys, 'key')} of clients" if keys else ""
    if launches:
        with_keys = f", {launches} launched with the router{with_keys}"
    if not found:
        return f"no servers{with_keys}"
    if not asked:
        return f"no problems, {count(len(found), 'server')}{with_keys} (--connect asks)"
    well = sum(server.ok for server in found)
    return f"{well} of {count(len(found), 'server')} well{with_keys}"
