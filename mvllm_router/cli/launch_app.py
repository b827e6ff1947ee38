"""The commands that start servers and look after those that were started."""

from __future__ import annotations

from typing import Annotated, Any, Optional

import typer

from mvllm_router.cli.options import (
    ROUTER,
    AdminKey,
    ApiKey,
    ConfigPath,
    Host,
    LogFile,
    LogFormat,
    LogLevel,
    Policy,
    Port,
    RouterAddress,
    RouterKey,
    flag,
)

LAUNCH_HELP = (
    "Start servers on this machine's GPUs, and the router in front of them.\n\n"
    "One server for each GPU, or for each --tp of them. They are watched, started again when they "
    "end, and stopped with the router. What stands behind -- goes to the engine as it is. Without "
    "ENGINE and MODEL, the file's [[launch]] tables say what is started."
)
LAUNCH_EXAMPLES = (
    "Examples:\n\n"
    "router launch vllm Qwen/Qwen3-8B\n\n"
    "router launch vllm meta-llama/Llama-3.3-70B-Instruct --tp 4 -- --max-model-len 32k\n\n"
    "router launch llama.cpp ./model.gguf --replicas 2 --slots 8 --gpus 0,1\n\n"
    "router launch command -- ./my-server --port {port}"
)
_SERVERS = "Servers"


def _option(*names: str, help: str, metavar: str, **more: Any) -> Any:
    return typer.Option(
        *names, help=help, metavar=metavar, rich_help_panel=_SERVERS, show_default=False, **more
    )


# typer reads these at run time, on Python 3.10 as well: no `X | None` here.
_Text = Optional[str]  # noqa: UP045
_Number = Optional[int]  # noqa: UP045
_Words = Optional[list[str]]  # noqa: UP045
Engine = Annotated[
    _Text,
    typer.Argument(
        metavar="ENGINE",
        help="vllm, llama.cpp, llama-cpp-python, mlx or command.",
        show_default=False,
    ),
]
Model = Annotated[
    _Text,
    typer.Argument(metavar="MODEL", help="A name of the model hub, or a path.", show_default=False),
]
EngineWords = Annotated[
    _Words,
    typer.Argument(metavar="-- ...", help="More words for the engine.", show_default=False),
]
Replicas = Annotated[_Number, _option("--replicas", help="How many servers.", metavar="N")]
Tp = Annotated[_Number, _option("--tp", help="GPUs that work together as one server.", metavar="N")]
Gpus = Annotated[
    _Text, _option("--gpus", help="The only GPUs to use, as 0,1 or UUIDs; none.", metavar="LIST")
]
Slots = Annotated[
    _Number,
    _option("--slots", "--batch-size", help="Requests that each works on at once.", metavar="N"),
]
Context = Annotated[
    _Number,
    _option("--context", help="Longest request and answer together, in tokens.", metavar="N"),
]
Name = Annotated[
    _Text, _option("--name", help="What the servers are called, before -0, -1.", metavar="NAME")
]
EnginePath = Annotated[
    _Text, _option("--engine-path", help="The engine's program, or its Python.", metavar="FILE")
]
ServerKey = Annotated[
    _Text,
    _option(
        "--server-key",
        help="Key that the servers shall ask for.",
        metavar="KEY",
        envvar="ROUTER_SERVER_KEY",
    ),
]
Parallel = Annotated[
    _Number,
    _option("--parallel", help="How many start at the same time; all.", metavar="N", min=1),
]
Force = Annotated[
    bool, flag("--force", help="Use GPUs that are in use, too.", rich_help_panel=_SERVERS)
]
DryRun = Annotated[
    bool, flag("--dry-run", help="Print the commands, start nothing.", rich_help_panel=_SERVERS)
]


def launch(
    engine: Engine = None,
    model: Model = None,
    args: EngineWords = None,
    config: ConfigPath = None,
    replicas: Replicas = None,
    tp: Tp = None,
    gpus: Gpus = None,
    slots: Slots = None,
    context: Context = None,
    name: Name = None,
    engine_path: EnginePath = None,
    server_key: ServerKey = None,
    parallel: Parallel = None,
    force: Force = False,
    dry_run: DryRun = False,
    policy: Policy = None,
    host: Host = None,
    port: Port = None,
    api_key: ApiKey = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
    log_file: LogFile = None,
) -> None:
    from mvllm_router.cli.launch import entry_of, launch_servers

    given = {
        "replicas": replicas,
        "tp": tp,
        "gpus": gpus,
        "slots": slots,
        "context": context,
        "name": name,
        "engine_path": engine_path,
        "api_key": server_key,
        "force": force or None,
    }
    settings = {
        "policy": policy,
        "host": host,
        "port": port,
        "api_key": api_key,
        "log_level": log_level,
        "log_format": log_format,
        "log_file": log_file,
    }
    launch_servers(
        entry_of(engine, model, args or [], given),
        config,
        {key: value for key, value in settings.items() if value is not None},
        parallel=parallel,
        dry_run=dry_run,
    )


LOGS_EXAMPLES = "Example:\n\nrouter logs qwen3-8b-0 --follow"
RESTART_HELP = (
    "Restart a server that the router has started, once it has nothing in flight.\n\n"
    "With --rolling all of a launch, or all there are, one after the other: each is up again "
    "before the next one goes."
)
RESTART_EXAMPLES = (
    "Examples:\n\nrouter restart qwen3-8b-0\n\nrouter restart --rolling\n\n"
    "router restart --rolling qwen3-8b"
)
SCALE_EXAMPLES = "Example:\n\nrouter scale qwen3-8b 3"
LaunchedName = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="The server, as `router status` calls it.", show_default=False
    ),
]


def logs(
    name: LaunchedName,
    follow: Annotated[bool, flag("--follow", "-f", help="Go on with what comes.")] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", metavar="N", min=0, max=1000, help="Last lines to show.")
    ] = 100,
    url: RouterAddress = ROUTER,
    admin_key: AdminKey = None,
    api_key: RouterKey = None,
) -> None:
    """Show what a server prints that the router has started."""
    from mvllm_router.cli.launched import show_log
    from mvllm_router.cli.manage import Remote

    show_log(Remote(url, admin_key or api_key), name, lines, follow=follow)


def restart(
    name: Annotated[
        _Text,
        typer.Argument(
            metavar="NAME", help="The server; with --rolling the launch.", show_default=False
        ),
    ] = None,
    rolling: Annotated[bool, flag("--rolling", help="All, one after the other.")] = False,
    url: RouterAddress = ROUTER,
    admin_key: AdminKey = None,
    api_key: RouterKey = None,
) -> None:
    from mvllm_router.cli.launched import restart_servers
    from mvllm_router.cli.manage import Remote

    restart_servers(Remote(url, admin_key or api_key), name, rolling=rolling)


def scale(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The launch.", show_default=False)],
    servers: Annotated[
        int, typer.Argument(metavar="N", help="How many servers.", min=1, show_default=False)
    ],
    url: RouterAddress = ROUTER,
    admin_key: AdminKey = None,
    api_key: RouterKey = None,
) -> None:
    """Start more servers of a launch, or drain and stop some of them."""
    from mvllm_router.cli.launched import scale_launch
    from mvllm_router.cli.manage import Remote

    scale_launch(Remote(url, admin_key or api_key), name, servers)
