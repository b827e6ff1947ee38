"""The options of `router run`, and those that several commands share."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

_LISTEN, _ROUTING, _LOGGING = "Listen", "Routing", "Logging"


def _setting(*names: str, help: str, panel: str, metavar: str) -> Any:
    """Make an option for a setting: a text, which the configuration checks with the others."""
    return typer.Option(
        *names, help=help, rich_help_panel=panel, metavar=metavar, show_default=False
    )


def flag(*names: str, help: str, **more: Any) -> Any:
    """Make an option without a value."""
    return typer.Option(*names, help=help, metavar="", show_envvar=False, **more)


# typer reads these at run time, on Python 3.10 as well: no `X | None` here.
ConfigPath = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        envvar="ROUTER_CONFIG",
        show_envvar=False,
        help="The configuration; servers.toml if that is there.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, flag("--json", help="Print JSON for programs.")]
Servers = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Argument(
        metavar="URL",
        help="Servers to route to, such as http://gpu1:8000; no file is needed then.",
        show_default=False,
    ),
]
Demo = Annotated[
    bool,
    flag(
        "--demo",
        envvar="ROUTER_DEMO",
        help="Try it with three simulated servers and a trickle of traffic.",
    ),
]
MaxLoad = Annotated[
    Optional[list[int]],  # noqa: UP045
    typer.Option(
        "--max-load",
        metavar="N",
        envvar="ROUTER_MAX_LOAD",
        show_envvar=False,
        help="Requests that each URL can work on at once: one number for all, or one for each.",
        rich_help_panel=_ROUTING,
        show_default=False,
    ),
]
Policy = Annotated[
    Optional[str],  # noqa: UP045
    _setting(
        "--policy",
        help="How a server is chosen: least_load (the default), round_robin or random.",
        panel=_ROUTING,
        metavar="NAME",
    ),
]
Host = Annotated[
    Optional[str],  # noqa: UP045
    _setting(
        "--host",
        help="Address to listen on, by default 127.0.0.1; 0.0.0.0 lets other machines in.",
        panel=_LISTEN,
        metavar="ADDRESS",
    ),
]
Port = Annotated[
    Optional[str],  # noqa: UP045
    _setting(
        "--port", "-p", help="Port to listen on, by default 8888.", panel=_LISTEN, metavar="PORT"
    ),
]
ApiKey = Annotated[
    Optional[str],  # noqa: UP045
    _setting(
        "--api-key",
        help="Key that clients must present; ROUTER_API_KEY keeps it out of `ps`.",
        panel=_LISTEN,
        metavar="KEY",
    ),
]
TlsCert = Annotated[
    Optional[str],  # noqa: UP045
    _setting(
        "--tls-cert",
        help="File with the certificate for https; with --tls-key.",
        panel=_LISTEN,
        metavar="FILE",
    ),
]
TlsKey = Annotated[
    Optional[str],  # noqa: UP045
    _setting(
        "--tls-key", help="File with the certificate's private key.", panel=_LISTEN, metavar="FILE"
    ),
]
Console = Annotated[
    bool,
    flag(
        "--console",
        envvar="ROUTER_CONSOLE",
        help="Plain logs on stderr, as without a terminal.",
        rich_help_panel=_LOGGING,
    ),
]
# For the dashboard of `router run`, which starts the router in this way.
Announce = Annotated[
    bool, flag("--announce", help="Tell a dashboard where it listens.", hidden=True)
]
LogLevel = Annotated[
    Optional[str],  # noqa: UP045
    _setting(
        "--log-level",
        help="debug, info (the default), warning or error.",
        panel=_LOGGING,
        metavar="LEVEL",
    ),
]
LogFormat = Annotated[
    Optional[str],  # noqa: UP045
    _setting("--log-format", help="text (the default) or json.", panel=_LOGGING, metavar="FORMAT"),
]
LogFile = Annotated[
    Optional[str],  # noqa: UP045
    _setting(
        "--log-file", help="File for the log, in place of stderr.", panel=_LOGGING, metavar="FILE"
    ),
]
# Where a router is that was not told to listen elsewhere.
ROUTER = "http://127.0.0.1:8888"
RouterUrl = Annotated[
    str, typer.Argument(metavar="URL", envvar="ROUTER_URL", help="The router's address.")
]
RouterKey = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--api-key",
        metavar="KEY",
        envvar="ROUTER_API_KEY",
        help="The router's key.",
        show_default=False,
    ),
]


def _server_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete the name of a server: the running router knows them."""
    from mvllm_router.cli.manage import server_names

    given = ctx.params
    names = server_names(given.get("url") or ROUTER, given.get("admin_key") or given.get("api_key"))
    return [name for name in names if name.startswith(incomplete)]


ServerName = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="The server, as `router status` calls it.",
        show_default=False,
        autocompletion=_server_names,
    ),
]


def _model_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete the name of a model that the running router's servers have."""
    from mvllm_router.cli.manage import model_names

    given = ctx.params
    names = model_names(given.get("url") or ROUTER, given.get("admin_key") or given.get("api_key"))
    return [name for name in names if name.startswith(incomplete)]


ModelName = Annotated[
    Optional[str],  # noqa: UP045
    typer.Argument(
        metavar="MODEL",
        help="The model that a request names; without it, one that names none.",
        show_default=False,
        autocompletion=_model_names,
    ),
]
ServerUrl = Annotated[
    str,
    typer.Argument(metavar="URL", help="The server, such as http://gpu3:8000.", show_default=False),
]
_ENTRY, _WEIGHT = "Server", "Factor on its capacity."


def _of_entry(*names: str, help: str, metavar: str, **more: Any) -> Any:
    """Make an option for a key of a server's entry, which the router checks."""
    return typer.Option(
        *names, help=help, metavar=metavar, rich_help_panel=_ENTRY, show_default=False, **more
    )


def _finite(value: Optional[float]) -> Optional[float]:  # noqa: UP045
    """Refuse nan and inf, as which 1e400 is read: JSON does not have them."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number.")
    return value


EntryName = Annotated[
    Optional[str],  # noqa: UP045
    _of_entry("--name", help="What it is called; else host:port.", metavar="NAME"),
]
EntryEngine = Annotated[
    Optional[str],  # noqa: UP045
    _of_entry("--engine", help="vllm, llama.cpp, mlx, ...; else found out.", metavar="NAME"),
]
EntryWeight = Annotated[
    Optional[float],  # noqa: UP045
    _of_entry("--weight", help=_WEIGHT, metavar="W", callback=_finite),
]
Weight = Annotated[
    float,
    typer.Argument(metavar="W", help=_WEIGHT, show_default=False, callback=_finite),
]
EntryMaxLoad = Annotated[
    Optional[int],  # noqa: UP045
    _of_entry("--max-load", help="Requests that it can work on at once.", metavar="N"),
]
EntryModels = Annotated[
    Optional[list[str]],  # noqa: UP045
    _of_entry("--model", help="The only model that it is used for; may be repeated.", metavar="M"),
]
EntryTags = Annotated[
    Optional[list[str]],  # noqa: UP045
    _of_entry("--tag", help="A word of your own; may be repeated.", metavar="WORD"),
]
EntryKey = Annotated[
    Optional[str],  # noqa: UP045
    _of_entry(
        "--server-key",
        help="Key that the server asks for.",
        metavar="KEY",
        envvar="ROUTER_SERVER_KEY",
    ),
]
NoTlsVerify = Annotated[
    bool,
    flag("--no-tls-verify", help="Trust any certificate of it.", rich_help_panel=_ENTRY),
]
Write = Annotated[bool, flag("--write", help="Put it into the router's file as well.")]
RouterAddress = Annotated[
    str,
    typer.Option("--url", "-u", metavar="URL", envvar="ROUTER_URL", help="The router's address."),
]
AdminKey = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--admin-key",
        metavar="KEY",
        envvar="ROUTER_ADMIN_KEY",
        help="The router's key for operators; without it, --api-key is sent.",
        show_default=False,
    ),
]
