"""`router run`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import typer

from mvllm_router import __version__
from mvllm_router.cli.output import Exit, fail, problems
from mvllm_router.config import Config, ConfigError, Override, load

log = logging.getLogger("mvllm_router")

_WAYS = """nothing to route to. Begin in one of three ways:
  router run http://gpu1:8000 http://gpu2:8000     servers on the command line
  router init && router run                        servers in a file, servers.toml
  router run --demo                                three simulated servers, to try it"""

_LOOPBACK = ("127.", "::1", "localhost")


def run_router(
    arguments: Sequence[str],
    config_path: Path | None,
    max_load: Sequence[int],
    flags: Mapping[str, str],
    *,
    demo: bool,
) -> None:
    """Load the configuration and run until stopped.

    Args:
        arguments: URLs; after `--max-load 16`, further bare numbers belong to it.
        config_path: the file named by flag or environment, if any.
        max_load: the numbers of `--max-load`.
        flags: settings given as options, by their name in the file.
        demo: add the simulated servers.
    """
    urls = [text for text in arguments if not (max_load and text.isdigit())]
    loads = [*max_load, *(int(text) for text in arguments if text not in urls)]
    path = config_path or _default_path(urls, demo)
    if path is None and not urls and not demo:
        fail(_WAYS, Exit.USAGE)
    overrides = {
        name: Override(value, "flag", f"--{name.replace('_', '-')}")
        for name, value in flags.items()
    }

    def reread() -> Config:
        return load(path, urls=urls, max_load=loads, overrides=overrides)

    try:
        config = reread()
    except ConfigError as error:
        problems(str(error))
        raise typer.Exit(Exit.USAGE) from None
    _configure_logs(config)
    if not demo:
        return _serve(config, reread if path else None)
    from mvllm_router.cli.demo import start_demo

    with start_demo(config.settings.api_key or None) as servers:
        config = replace(config, servers=(*config.servers, *servers.servers))
        return _serve(config, None, servers.go)


def _default_path(urls: Sequence[str], demo: bool) -> Path | None:
    path = Path("servers.toml")
    return path if not urls and not demo and path.exists() else None


def _configure_logs(config: Config) -> None:
    from mvllm_router import logs

    settings = config.settings
    try:
        logs.configure(settings.log_level, settings.log_format, settings.log_file)
    except OSError as error:
        fail(f"cannot write the log: {error}", Exit.USAGE)
    for warning in config.warnings:
        log.warning("%s", warning.render().removeprefix("warning: "))


def _serve(
    config: Config,
    reread: Callable[[], Config] | None,
    started: Callable[[str], None] | None = None,
) -> None:
    from mvllm_router.server import CannotListen, Router, run

    async def work() -> None:
        router = Router(config, reread)
        await router.start()
        _greet(router.url, config)
        if started:
            started(router.url)
        await router.serve_until_stopped()
        log.info("stopped")

    try:
        run(work())
    except CannotListen as error:
        text, _, hint = str(error).partition("\nhint: ")
        fail(text, Exit.USAGE, hint=hint)


def _greet(url: str, config: Config) -> None:
    settings = config.settings
    log.info(
        "mvllm-router %s on %s, %d servers, policy %s (Ctrl-C to stop)",
        __version__,
        url,
        len(config.servers),
        settings.policy,
    )
    if not settings.api_key and not settings.host.startswith(_LOOPBACK):
        log.warning(
            "everybody who reaches %s:%d may use it: set ROUTER_API_KEY to ask for a key",
            settings.host,
            settings.port,
        )
