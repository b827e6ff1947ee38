"""`router launch`: servers on this machine, and the router in front of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mvllm_router.cli.output import Exit, fail
from mvllm_router.cli.run import loaded, overrides_of, serve
from mvllm_router.config import Config, load

if TYPE_CHECKING:
    from mvllm_router.launch.plan import Plan

_WAYS = """nothing to launch. Begin in one of two ways:
  router launch vllm Qwen/Qwen3-8B     an engine and a model, one server for each GPU
  router launch -c servers.toml        what the file has under [[launch]]"""


def entry_of(
    engine: str | None, model: str | None, args: Sequence[str], options: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Return what the command line asks for, with the keys of `[[launch]]`; None for nothing.

    Args:
        args: what stands behind the model; for a command the model is its first word.
        options: values by their keys, None for those that were not given.
    """
    given = {key: value for key, value in options.items() if value is not None}
    if engine is None:
        given.pop("api_key", None)  # it may stand in the environment for all commands
        if given:
            word = f"--{next(iter(given)).replace('_', '-')}"
            fail(f"{word} is for an engine and a model on the command line", Exit.USAGE)
        return None
    if isinstance(gpus := given.get("gpus"), str):
        named = [part.strip() for part in gpus.split(",") if part.strip()]
        given["gpus"] = [] if named == ["none"] else named
    if engine == "command":
        return {"engine": engine, "args": [*([model] if model else []), *args], **given}
    return {"engine": engine, **({"model": model} if model else {}), "args": [*args], **given}


def launch_servers(
    entry: Mapping[str, Any] | None,
    config_path: Path | None,
    flags: Mapping[str, str],
    *,
    parallel: int | None,
    dry_run: bool,
) -> None:
    """Start servers and the router in front of them, and run until stopped.

    Args:
        entry: what is to be launched, with the keys of `[[launch]]`; None: what the file has.
        config_path: the file named by flag or environment, if any.
        flags: settings given as options, by their name in the file.
        parallel: how many may start at the same time; None: all of them.
        dry_run: print the commands, and start nothing.
    """
    path = config_path
    if path is None and entry is None:
        path = Path("servers.toml")
        if not path.exists():
            fail(_WAYS, Exit.USAGE)
    overrides = overrides_of(flags)

    def reread() -> Config:
        return load(path, launch=entry, overrides=overrides)

    config = loaded(reread)
    if not dry_run:
        clear_up()
    plan = plan_of(config, parallel)
    if plan is None:
        hint = "such as [[launch]] with engine and model; `router launch --help`"
        fail(f"{path} has no [[launch]]", Exit.USAGE, hint=hint)
    if dry_run:
        return _print(plan)
    return serve(config, reread if path else None, plan=plan, is_launch=True)


def plan_of(config: Config, parallel: int | None = None) -> Plan | None:
    """Return what is to be started where; None for nothing. What does not fit ends the command."""
    if not config.launches:
        return None
    from mvllm_router.launch.faults import CannotLaunch
    from mvllm_router.launch.plan import make_plan

    try:
        return make_plan(config.launches, parallel)
    except CannotLaunch as error:
        fail(str(error), Exit.USAGE, hint=error.hint)


def clear_up() -> None:
    """End what routers that were killed have left; it would hold GPUs."""
    from mvllm_router.launch.leftovers import end_leftovers
    from mvllm_router.launch.supervisor import journals_folder

    try:
        folder = journals_folder()
    except RuntimeError:  # a user without a home has launched nothing
        return
    end_leftovers(folder)


def _print(plan: Plan) -> None:
    for gpu in plan.gpus:
        typer.echo(f"# {gpu.describe()}")
    for place, command in plan.commands():
        gpus = ", ".join(f"GPU {gpu.label}" for gpu in place.gpus)
        typer.echo(f"# {place.name}{': ' if gpus else ''}{gpus}")
        typer.echo(command.shown())
