"""The commands of `router`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mvllm_router import __version__
from mvllm_router.cli.launch_app import (
    LAUNCH_EXAMPLES,
    LAUNCH_HELP,
    LOGS_EXAMPLES,
    RESTART_EXAMPLES,
    RESTART_HELP,
    SCALE_EXAMPLES,
    launch,
    logs,
    restart,
    scale,
)
from mvllm_router.cli.options import (
    ROUTER,
    AdminKey,
    Announce,
    ApiKey,
    AsJson,
    ConfigPath,
    Console,
    Demo,
    EntryEngine,
    EntryKey,
    EntryMaxLoad,
    EntryModels,
    EntryName,
    EntryTags,
    EntryWeight,
    Host,
    LogFile,
    LogFormat,
    LogLevel,
    MaxLoad,
    ModelName,
    NoTlsVerify,
    Policy,
    Port,
    RouterAddress,
    RouterKey,
    RouterUrl,
    ServerName,
    Servers,
    ServerUrl,
    TlsCert,
    TlsKey,
    Weight,
    Write,
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
_TOP_HELP = (
    "Show a running router full-screen: servers, load, latency, requests and events as they "
    "happen.\n\n"
    "Keys drain, enable, weigh, add and remove servers. `?` shows all of them."
)
_TOP_EXAMPLES = "Examples:\n\nrouter top\n\nrouter top https://router.example.com --read-only"
_DRAIN_HELP = (
    "Let a server get no new requests, and wait until those that it has are finished.\n\n"
    "It stays drained until `router enable`, or until the router is started anew."
)
_DRAIN_EXAMPLES = (
    "Examples:\n\n"
    "router drain gpu1 && ssh gpu1 systemctl restart vllm && router enable gpu1\n\n"
    "router drain gpu1 --url http://router:8888 --timeout 60"
)
_ENABLE_EXAMPLES = "Example:\n\nrouter enable gpu1"
_ADD_HELP = (
    "Let a running router send requests to one more server.\n\n"
    "It holds until the router is started anew, and outlasts reloads; with --write it stands in "
    "the router's file as well."
)
_ADD_EXAMPLES = (
    "Examples:\n\n"
    "router add http://gpu3:8000\n\n"
    "router add http://gpu3:8000 --name gpu3 --max-load 32 --write"
)
_REMOVE_EXAMPLES = "Example:\n\nrouter drain gpu3 && router remove gpu3 --write"
_WEIGHT_EXAMPLES = "Example:\n\nrouter weight gpu3 0.5"
_EXPLAIN_HELP = (
    "Show where a request would go now, and why there and nowhere else.\n\n"
    "It ends with 1 when no server could take it."
)
_EXPLAIN_EXAMPLES = "Example:\n\nrouter explain qwen3-8b"
_RELOAD_HELP = (
    "Let a router read its file again, and print what has changed.\n\n"
    "It follows changes of the file by itself; this waits for the outcome, and ends with 1 when "
    "the file is refused."
)
_RELOAD_EXAMPLES = "Example:\n\nrouter check && router reload"

app = typer.Typer(
    name="router",
    help="One OpenAI-compatible address in front of every LLM server you have.",
    epilog=_EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # locals hold API keys
    context_settings={"help_option_names": ["-h", "--help"]},
)

_RUN, _OBSERVE, _OPERATE, _CONFIGURE = "Run", "Observe", "Operate", "Configure"


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
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    console: Console = False,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
    log_file: LogFile = None,
    announce: Announce = False,
) -> None:
    from mvllm_router.cli.run import run_router

    flags = {
        "policy": policy,
        "host": host,
        "port": port,
        "api_key": api_key,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        "log_level": log_level,
        "log_format": log_format,
        "log_file": log_file,
    }
    given = {name: value for name, value in flags.items() if value is not None}
    run_router(
        servers or [], config, max_load or [], given, demo=demo, console=console, announce=announce
    )


app.command(rich_help_panel=_RUN, help=LAUNCH_HELP, epilog=LAUNCH_EXAMPLES)(launch)


@app.command(rich_help_panel=_OBSERVE)
def status(url: RouterUrl = ROUTER, api_key: RouterKey = None, json: AsJson = False) -> None:
    """Show the servers of a running router and how busy they are."""
    from mvllm_router.cli.status import show_status

    show_status(url, api_key, as_document=json)


@app.command(rich_help_panel=_OBSERVE, help=_TOP_HELP, epilog=_TOP_EXAMPLES)
def top(
    url: RouterUrl = ROUTER,
    api_key: RouterKey = None,
    admin_key: AdminKey = None,
    interval: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=0.2, max=60, help="Seconds between two looks."),
    ] = 1.0,
    read_only: Annotated[bool, flag("--read-only", help="Change nothing, only look.")] = False,
) -> None:
    from mvllm_router.cli.top import show_dashboard

    show_dashboard(url, admin_key or api_key, interval=interval, read_only=read_only)


app.command(rich_help_panel=_OBSERVE, epilog=LOGS_EXAMPLES)(logs)


@app.command(rich_help_panel=_OBSERVE, help=_EXPLAIN_HELP, epilog=_EXPLAIN_EXAMPLES)
def explain(
    model: ModelName = None,
    url: RouterAddress = ROUTER,
    session: Annotated[
        str | None, typer.Option(metavar="NAME", help="The session that the request names.")
    ] = None,
    body: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON file with the request's body.")
    ] = None,
    json: AsJson = False,
    admin_key: AdminKey = None,
    api_key: RouterKey = None,
) -> None:
    from mvllm_router.cli.explain import explain as explain_model
    from mvllm_router.cli.manage import Remote

    router = Remote(url, admin_key or api_key)
    explain_model(router, model, session=session, body=body, as_document=json)


@app.command(rich_help_panel=_OPERATE, help=_DRAIN_HELP, epilog=_DRAIN_EXAMPLES)
def drain(
    name: ServerName,
    url: RouterAddress = ROUTER,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, show_default="300", help="Longest wait.")
    ] = 300.0,
    no_wait: Annotated[bool, flag("--no-wait", help="Return at once.")] = False,
    json: AsJson = False,
    admin_key: AdminKey = None,
    api_key: RouterKey = None,
) -> None:
    from mvllm_router.cli.manage import Remote, drain_server

    router = Remote(url, admin_key or api_key)
    drain_server(router, name, timeout=timeout, wait=not no_wait, as_document=json)


@app.command(rich_help_panel=_OPERATE, epilog=_ENABLE_EXAMPLES)
def enable(
    name: ServerName,
    url: RouterAddress = ROUTER,
    json: AsJson = False,
    admin_key: AdminKey = None,
    api_key: RouterKey = None,
) -> None:
    """Let a drained server get requests again."""
    from mvllm_router.cli.manage import Remote, enable_server

    enable_server(Remote(url, admin_key or api_key), name, as_document=json)


@app.command(rich_help_panel=_OPERATE, help=_ADD_HELP, epilog=_ADD_EXAMPLES)
def add(
    server: ServerUrl,
    name: EntryName = None,
    engine: EntryEngine = None,
    weight: EntryWeight = None,
    max_load: EntryMaxLoad = None,
    model: EntryModels = None,
    tag: EntryTags = None,
    server_key: EntryKey = None,
    no_tls_verify: NoTlsVerify = False,
    write: Write = False,
    url: RouterAddress = ROUTER,
    json: AsJson = False,
    admin_key: AdminKey = None,
    api_key: RouterKey = None,
) -> None:
    from mvllm_router.cli.manage import Remote
    from mvllm_router.cli.servers import add_server

    keys = {
        "name": name,
        "engine": engine,
        "weight": weight,
        "max_concurrent_requests": max_load,
        "models": model or None,
        "tags": tag or None,
        "api_key": server_key,
        "tls_verify": False if no_tls_verify else None,
    }
    add_server(Remote(url, admin_key or api_key), server, keys, write=write, as_document=json)


@app.command(rich_help_panel=_OPERATE, epilog=_REMOVE_EXAMPLES)
def remove(
    name: ServerName,
    write: Write = False,
    url: RouterAddress = ROUTER,
    json: AsJson = False,
    admin_key: AdminKey = None,
    api_key: RouterKey = None,
) -> None:
    """Let a running router send no more requests to a server, and forget it."""
    from mvllm_router.cli.manage import Remote
    from mvllm_router.cli.servers import remove_server

    remove_server(Remote(url, admin_key or api_key), name, write=write, as_document=json)


@app.command(rich_help_panel=_OPERATE, epilog=_WEIGHT_EXAMPLES)
def weight(
    name: ServerName,
    weight: Weight,
    write: Write = False,
    url: RouterAddress = ROUTER,
    json: AsJson = False,
    admin_key: AdminKey = None,
    api_key: RouterKey = None,
) -> None:
    """Let a server get a larger or a smaller share of the requests."""
    from mvllm_router.cli.manage import Remote
    from mvllm_router.cli.servers import weigh_server

    weigh_server(Remote(url, admin_key or api_key), name, weight, write=write, as_document=json)


app.command(rich_help_panel=_OPERATE, help=RESTART_HELP, epilog=RESTART_EXAMPLES)(restart)
app.command(rich_help_panel=_OPERATE, epilog=SCALE_EXAMPLES)(scale)


@app.command(rich_help_panel=_OPERATE, help=_RELOAD_HELP, epilog=_RELOAD_EXAMPLES)
def reload(
    url: RouterAddress = ROUTER,
    json: AsJson = False,
    admin_key: AdminKey = None,
    api_key: RouterKey = None,
) -> None:
    from mvllm_router.cli.manage import Remote, reload_config

    reload_config(Remote(url, admin_key or api_key), as_document=json)


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
