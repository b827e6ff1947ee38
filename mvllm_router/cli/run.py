"""`router run`."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mvllm_router import __version__
from mvllm_router.cli.output import Exit, count, fail, problems
from mvllm_router.config import (
    Config,
    ConfigError,
    KeySpec,
    Override,
    ServerSpec,
    is_loopback,
    key_digest,
    load,
)

if TYPE_CHECKING:
    from mvllm_router.launch.plan import Plan
    from mvllm_router.launch.supervisor import Supervisor
    from mvllm_router.server import Router

log = logging.getLogger("mvllm_router")

_WAYS = """nothing to route to. Begin in one of three ways:
  router run http://gpu1:8000 http://gpu2:8000     servers on the command line
  router init && router run                        servers in a file, servers.toml
  router run --demo                                three simulated servers, to try it"""

# Seconds that the simulated clients of a demo get to finish, unless a time was asked for.
_DEMO_PATIENCE = 1.0
# What the key of these clients is called.
_DEMO_KEY = "demo"


def run_router(
    arguments: Sequence[str],
    config_path: Path | None,
    max_load: Sequence[int],
    flags: Mapping[str, str],
    *,
    demo: bool,
    console: bool,
    announce: bool,
) -> None:
    """Load the configuration and run until stopped, on a terminal behind a dashboard.

    Args:
        arguments: URLs; after `--max-load 16`, further bare numbers belong to it.
        config_path: the file named by flag or environment, if any.
        max_load: the numbers of `--max-load`.
        flags: settings given as options, by their name in the file.
        demo: add the simulated servers.
        console: no dashboard.
        announce: this is the router of a dashboard; see `mvllm_router.cli.announce`.
    """
    urls = [text for text in arguments if not (max_load and text.isdecimal())]
    loads = [*max_load, *(int(text) for text in arguments if text not in urls)]
    path = config_path or _default_path(urls, demo)
    if path is None and not urls and not demo:
        fail(_WAYS, Exit.USAGE)
    overrides = overrides_of(flags)

    def reread() -> Config:
        return load(path, urls=urls, max_load=loads, overrides=overrides)

    config = read_or_end(reread)
    if not console and not announce:
        from mvllm_router.cli.attended import is_attended, run_attended

        if is_attended():
            return run_attended(sys.argv[1:], config.settings.log_file)
    _configure_logs(config)
    tell: Callable[[Router], None] | None = None
    if announce:
        from mvllm_router.cli.announce import announcer, with_key

        config, reread, key = with_key(config, reread)
        tell = announcer(key)
    from mvllm_router.cli.launch import clear_up, plan_of

    clear_up()
    plan = plan_of(config)
    if not demo:
        return serve(config, reread if path else None, tell, plan=plan)
    from mvllm_router.cli.demo import start_demo

    config, demo_key = _with_demo_key(config)
    with start_demo(demo_key) as servers:

        def started(router: Router) -> None:
            if tell:
                tell(router)
            servers.go(router.url)

        return serve(_with_demo(config, servers.servers), None, started, plan=plan)


def overrides_of(flags: Mapping[str, str]) -> dict[str, Override]:
    """Return the settings that were given as options, by their name in the file."""
    return {
        name: Override(value, "flag", f"--{name.replace('_', '-')}")
        for name, value in flags.items()
    }


def read_or_end(read: Callable[[], Config]) -> Config:
    """Return what `read` loads; a mistake in it ends the command."""
    try:
        return read()
    except ConfigError as error:
        problems(str(error))
        raise typer.Exit(Exit.USAGE) from None


def loaded(read: Callable[[], Config]) -> Config:
    """Return what `read` loads, with logs as that has it; a mistake in it ends the command."""
    config = read_or_end(read)
    _configure_logs(config)
    return config


def _with_demo_key(config: Config) -> tuple[Config, str | None]:
    """Add a key for the simulated clients where the file has keys; its own are not kept."""
    key = config.settings.api_key
    if key or not config.keys:
        return config, key or None
    if any(spec.name == _DEMO_KEY for spec in config.keys):
        fail(f"--demo has a key called `{_DEMO_KEY}`, and so has the file", Exit.USAGE)
    import secrets

    key = secrets.token_urlsafe()
    return replace(config, keys=(*config.keys, KeySpec(_DEMO_KEY, key_digest(key)))), key


def _with_demo(config: Config, servers: tuple[ServerSpec, ...]) -> Config:
    """Add the simulated servers, which have the names of real ones where a file is tried."""
    taken = {spec.name for spec in config.servers}
    for spec in servers:
        if spec.name in taken:
            fail(f"--demo has a server called `{spec.name}`, and so has the file", Exit.USAGE)
    settings = config.settings
    if config.origins["shutdown_timeout"] == "default":
        settings = replace(settings, shutdown_timeout=_DEMO_PATIENCE)
    return replace(config, servers=(*config.servers, *servers), settings=settings)


def _default_path(urls: Sequence[str], demo: bool) -> Path | None:
    path = Path("servers.toml")
    return path if not urls and not demo and path.exists() else None


def _configure_logs(config: Config) -> None:
    from mvllm_router import logs

    settings = config.settings
    try:
        logs.configure(settings.log_level, settings.log_format, settings.log_file)
    except OSError as error:
        fail(f"cannot write the log {settings.log_file}: {error.strerror}", Exit.USAGE)
    for warning in config.warnings:
        log.warning("%s", warning.render().removeprefix("warning: "))


def serve(
    config: Config,
    reread: Callable[[], Config] | None,
    started: Callable[[Router], None] | None = None,
    *,
    plan: Plan | None = None,
    is_launch: bool = False,
) -> None:
    """Run the router until it is stopped.

    Args:
        reread: loads the configuration again; None when there is no file.
        started: is called with the router when it listens.
        plan: servers to start.
        is_launch: these servers are what it is for: when none of them starts, it ends.
    """
    from mvllm_router.launch.faults import CannotLaunch
    from mvllm_router.server import CannotListen, Router, run

    none_started = False

    async def work() -> None:
        router = Router(config, reread, plan)
        await router.start()

        async def announce() -> None:
            _greet(router.url, config, plan)
            if started:
                started(router)
            if router.supervisor is not None:
                await follow(router.supervisor)

        async def follow(supervisor: Supervisor) -> None:
            from mvllm_router.cli.progress import follow_start

            nonlocal none_started
            any_started = await follow_start(supervisor)
            if not any_started and is_launch and not config.servers:
                none_started = True
                router.ask_to_stop()

        # In this order: who reads that it runs may stop it, and signals must be heeded by then.
        await asyncio.gather(router.serve_until_stopped(), announce())
        log.info("stopped")

    try:
        run(work())
    except CannotLaunch as error:
        fail(str(error), Exit.FAILED, hint=error.hint)
    except CannotListen as error:
        text, _, hint = str(error).partition("\nhint: ")
        fail(text, Exit.USAGE, hint=hint)
    if none_started:
        fail("no server could be started", Exit.FAILED)


def _greet(url: str, config: Config, plan: Plan | None) -> None:
    settings = config.settings
    servers = len(config.servers) + (len(plan.places) if plan else 0)
    log.info(
        "mvllm-router %s on %s, %s, policy %s (Ctrl-C to stop)",
        __version__,
        url,
        count(servers, "server"),
        settings.policy,
    )
    if not config.client_keys and not is_loopback(settings.host):
        log.warning(
            "listening on %s without an API key: whoever reaches it may use it "
            "(ROUTER_API_KEY asks for a key)",
            settings.host,
        )
