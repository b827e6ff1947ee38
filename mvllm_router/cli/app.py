"""The commands of `router`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mvllm_router import __version__
from mvllm_router.cli.options import (
    ApiKey,
    AsJson,
    ConfigPath,
    Console,
    Demo,
    Host,
    LogFile,
    LogFormat,
    LogLevel,
    MaxLoad,
    Policy,
    Port,
    RouterKey,
    RouterUrl,
    Servers,
    flag,
)

_EXIT_CODES = (
    "Exit codes: 0 ok, 1 a check or an operation failed, 2 usage or configuration, "
    "3 router unreachable, 4 not authorised, 130 interrupted."
)
_RUN_HELP = (
    "Run the router in front of the servers of a file, or of URLs.\n\n"
    "Options and all settings of the file may also come from the environment with the prefix "
    "ROUTER_, such as ROUTER_PORT or ROUTER_REQUEST_TIMEOUT. A flag comes before the "
    "environment, and that before the file."
)
_RUN_EXAMPLES = (
    "Examples:\n\n"
    "router run\n\n"
    "router run http://gpu1:8000 http://gpu2:8000 --max-load 16 32\n\n"
    "router run --demo"
)

app = typer.Typer(
    name="router",
    help="One OpenAI-compatible address in front of every LLM server you have.",
    epilog=_EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # locals hold API keys
    context_settings={"help_option_names": ["-h", "--help"]},
)

_RUN, _OBSERVE, _CONFIGURE = "Run", "Observe", "Configure"


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mvllm-router {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        flag("--version", "-V", help="Print the version.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """One OpenAI-compatible address in front of every LLM server you have."""


@app.command(rich_help_panel=_RUN, help=_RUN_HELP, epilog=_RUN_EXAMPLES)
def run(
    servers: Servers = None,
    config: ConfigPath = None,
    demo: Demo = False,
    max_load: MaxLoad = None,
    policy: Policy = None,
    host: Host = None,
    port: Port = None,
    api_key: ApiKey = None,
    console: Console = False,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
    log_file: LogFile = None,
) -> None:
    from mvllm_router.cli.run import run_router

    flags = {
        "policy": policy,
        "host": host,
        "port": port,
        "api_key": api_key,
        "log_level": log_level,
        "log_format": log_format,
        "log_file": log_file,
    }
    given = {name: value for name, value in flags.items() if value is not None}
    run_router(servers or [], config, max_load or [], given, demo=demo)


@app.command(rich_help_panel=_OBSERVE)
def status(
    url: RouterUrl = "http://127.0.0.1:8888", api_key: RouterKey = None, json: AsJson = False
) -> None:
    """Show the servers of a running router and how busy they are."""
    from mvllm_router.cli.status import show_status

    show_status(url, api_key, as_document=json)


@app.command(rich_help_panel=_CONFIGURE)
def init(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it.")] = Path(
        "servers.toml"
    ),
    force: Annotated[bool, flag("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a commented servers.toml to start from."""
    from mvllm_router.cli.configure import write_template

    write_template(path, force=force)


@app.command(rich_help_panel=_CONFIGURE)
def check(
    config: ConfigPath = None,
    connect: Annotated[bool, flag("--connect", help="Ask each server as well.")] = False,
    json: AsJson = False,
) -> None:
    """Say all that is wrong with a configuration, and what it comes to."""
    from mvllm_router.cli.configure import check_config

    check_config(config or Path("servers.toml"), connect=connect, as_document=json)


app.command(name="check-config", hidden=True, help="The predecessor's name for `check`.")(check)


@app.command(rich_help_panel=_OBSERVE)
def version(json: AsJson = False) -> None:
    """Print the versions of the router and of what it is built on."""
    from mvllm_router.cli.version import show_version

    show_version(as_document=json)
