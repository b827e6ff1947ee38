"""The commands of `router` and their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from mvllm_router import __version__

_EXIT_CODES = (
    "Exit codes: 0 ok, 1 a check or an operation failed, 2 usage or configuration, "
    "3 router unreachable, 4 not authorised, 130 interrupted."
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
_LISTEN, _ROUTING, _LOGGING = "Listen", "Routing", "Logging"


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mvllm-router {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """One OpenAI-compatible address in front of every LLM server you have."""


ConfigPath = Annotated[
    Optional[Path],  # noqa: UP045  (typer reads this at run time, on Python 3.10 as well)
    typer.Option(
        "--config",
        "-c",
        envvar="ROUTER_CONFIG",
        help="The configuration file.",
        show_default="servers.toml, if it is there",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@app.command(rich_help_panel=_RUN)
def run(
    servers: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(
            metavar="[URL]...",
            help="Servers to route to, such as http://gpu1:8000; no file is needed then.",
            show_default=False,
        ),
    ] = None,
    config: ConfigPath = None,
    demo: Annotated[
        bool,
        typer.Option(
            "--demo", help="Try it with three simulated servers and a trickle of traffic."
        ),
    ] = False,
    max_load: Annotated[
        Optional[list[int]],  # noqa: UP045
        typer.Option(
            "--max-load",
            metavar="N [N]...",
            help="Requests each URL can work on at once: one number for all, or one for each.",
            rich_help_panel=_ROUTING,
            show_default=False,
        ),
    ] = None,
    policy: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="How a server is chosen: least_load, round_robin or random.",
            rich_help_panel=_ROUTING,
            show_default="least_load",
        ),
    ] = None,
    host: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="Address to listen on; 0.0.0.0 lets other machines in.",
            rich_help_panel=_LISTEN,
            show_default="127.0.0.1",
        ),
    ] = None,
    port: Annotated[
        Optional[str],  # noqa: UP045  (checked with the settings, for one kind of error)
        typer.Option(
            "--port",
            "-p",
            metavar="INTEGER",
            help="Port to listen on.",
            rich_help_panel=_LISTEN,
            show_default="8888",
        ),
    ] = None,
    api_key: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--api-key",
            help="Key that clients must present; better given as ROUTER_API_KEY.",
            rich_help_panel=_LISTEN,
            show_default="everybody may come in",
        ),
    ] = None,
    console: Annotated[
        bool,
        typer.Option(
            "--console",
            help="Plain logs on stderr, as without a terminal.",
            rich_help_panel=_LOGGING,
        ),
    ] = False,
    log_level: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="debug, info, warning or error.", rich_help_panel=_LOGGING, show_default="info"
        ),
    ] = None,
    log_format: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="text or json.", rich_help_panel=_LOGGING, show_default="text"),
    ] = None,
    log_file: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="A file for the log.", rich_help_panel=_LOGGING, show_default="stderr"),
    ] = None,
) -> None:
    """Run the router in front of the servers of a file, or of URLs.

    Every setting may also come from the environment with the prefix ROUTER_, such as
    ROUTER_PORT or ROUTER_REQUEST_TIMEOUT: flag before environment before file.

    Examples: router run · router run http://gpu1:8000 http://gpu2:8000 --max-load 16 32 ·
    router run --demo
    """
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
    url: Annotated[
        str, typer.Argument(envvar="ROUTER_URL", help="The router's address.")
    ] = "http://127.0.0.1:8888",
    api_key: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--api-key", envvar="ROUTER_API_KEY", help="The router's key."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Show the servers of a running router and how busy they are."""
    from mvllm_router.cli.status import show_status

    show_status(url, api_key, as_document=json)


@app.command(rich_help_panel=_CONFIGURE)
def init(
    path: Annotated[Path, typer.Argument(help="Where to write it.")] = Path("servers.toml"),
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a commented servers.toml to start from."""
    from mvllm_router.cli.configure import write_template

    write_template(path, force=force)


@app.command(rich_help_panel=_CONFIGURE)
def check(
    config: ConfigPath = None,
    connect: Annotated[bool, typer.Option("--connect", help="Ask each server as well.")] = False,
    json: AsJson = False,
) -> None:
    """Say all that is wrong with a configuration, and what it comes to."""
    from mvllm_router.cli.configure import check_config

    check_config(config or Path("servers.toml"), connect=connect, as_document=json)


app.command(name="check-config", hidden=True, help="The predecessor's name for `check`.")(check)


@app.command(rich_help_panel=_OBSERVE)
def version(json: AsJson = False) -> None:
    """Print the versions of the router, of Python and of its event loop."""
    from mvllm_router.cli.version import show_version

    show_version(as_document=json)
