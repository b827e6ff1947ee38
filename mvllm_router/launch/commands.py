"""What an engine is started with: words and environment, from a launch and its place."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mvllm_router.config import LaunchSpec, ServerSpec
from mvllm_router.config.launches import looks_like_path
from mvllm_router.launch.gpus import VARIABLES
from mvllm_router.launch.placement import Place
from mvllm_router.launch.programs import Program

HOST = "127.0.0.1"
# llama-server has a thread for each connection; with too few a burst blocks even /health.
_HTTP_THREADS = "256"
# Tokens of one slot of llama.cpp, whose memory is set aside at the start.
_CONTEXT = 4096
# What llama-server takes when it is not told.
_SLOTS = 4
_ALL_LAYERS = "999"
# Where each engine looks for the key that it shall ask for. On the command line `ps` shows it.
_KEY_VARIABLES = {
    "vllm": "VLLM_API_KEY",
    "llama-server": "LLAMA_API_KEY",
    "llama-cpp-python": "API_KEY",
}
# As the router speaks to them.
_DIALECTS = {
    "vllm": "vllm",
    "llama-server": "llama.cpp",
    "llama-cpp-python": "llama-cpp-python",
    "mlx": "mlx",
    "command": "auto",
}
_HIDDEN = "***"
# In names of variables and of options. --max-num-batched-tokens is none, HF_TOKEN is one.
_KEY = re.compile(r"api[-_]?key(?!-file)|token$|secret|passw|credential", re.I)


@dataclass(frozen=True, slots=True)
class Command:
    """A server's command: `env` is set beside what the router itself has, but for `without`."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    secret: str = field(default="", repr=False)  # the name of the variable with the key

    def environment(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """Return the whole environment of the server. The router's own settings are not its."""
        kept = {
            name: value
            for name, value in inherited.items()
            if name not in self.without and not name.startswith("ROUTER_")
        }
        return {**kept, **self.env}

    def shown(self) -> str:
        """Return a line for a shell, but for keys."""
        pairs = [
            f"{name}={shlex.quote(_HIDDEN if name == self.secret or _is_key(name) else value)}"
            for name, value in self.env.items()
        ]
        unset = [word for name in self.without for word in ("-u", name)]
        before = ["env", *unset, *pairs] if unset else pairs
        return " ".join([*before, shlex.join(_without_keys(self.argv))])


def _is_key(name: str) -> bool:
    return _KEY.search(name) is not None


def _without_keys(words: Sequence[str]) -> list[str]:
    """Hide what stands behind options such as --api-key, up to the next option."""
    shown: list[str] = []
    hides = False
    for word in words:
        option, equals, _ = word.partition("=")
        if option.startswith("-"):
            hides = _is_key(option)
            word = f"{option}={_HIDDEN}" if hides and equals else word
        elif hides:
            word = _HIDDEN
        shown.append(word)
    return shown


def command(place: Place, program: Program, port: int) -> Command:
    """Return what starts the server of a place, listening on `port` of this machine alone."""
    launch = place.launch
    words = _WORDS[program.kind](launch, place, port)
    env, without = _gpu_environment(place, program.kind)
    secret = ""
    if launch.api_key:
        secret = _KEY_VARIABLES[program.kind]
        env[secret] = launch.api_key
    argv = (*program.argv, *words, *launch.args)
    if program.kind == "command":
        argv = tuple(_filled(word, place, port) for word in program.argv)
    return Command(argv, {**env, **launch.env}, without, secret)


def server(place: Place, program: Program, port: int) -> ServerSpec:
    """Return the same server as the router sends requests to it."""
    launch = place.launch
    return ServerSpec(
        url=f"http://{HOST}:{port}",
        name=place.name,
        engine=_DIALECTS[program.kind],
        max_concurrent_requests=launch.slots,
        weight=launch.weight,
        # It lists what it finds on the disk, and knows a local model by its folder only.
        models=(launch.model,) if program.kind == "mlx" else (),
        api_key=launch.api_key,
    )


def served_name(model: str) -> str:
    """Return what clients call a model: its name, and of a path the last part."""
    if not looks_like_path(model):
        return model
    path = Path(model)
    return path.stem if path.suffix == ".gguf" else path.name


def _listening(port: int) -> tuple[str, ...]:
    return ("--host", HOST, "--port", str(port))


def _vllm(launch: LaunchSpec, place: Place, port: int) -> list[str]:
    # No --shutdown-timeout: a server is drained before it is stopped, and older versions end
    # with an error when they see it.
    words = [launch.model, *_listening(port)]
    if looks_like_path(launch.model):
        words += ["--served-model-name", served_name(launch.model)]
    if launch.tp > 1:
        words += ["--tensor-parallel-size", str(launch.tp)]
    if launch.slots:
        words += ["--max-num-seqs", str(launch.slots)]
    if launch.context:
        words += ["--max-model-len", str(launch.context)]
    return words


def _llama_server(launch: LaunchSpec, place: Place, port: int) -> list[str]:
    slots = launch.slots or _SLOTS
    source = ["--model"] if looks_like_path(launch.model) else ["-hf"]
    words = [*source, launch.model, "--alias", served_name(launch.model), *_listening(port)]
    # Without -np the slots share one context, and when that is full all requests fail together.
    words += ["-np", str(slots), "-c", str(slots * (launch.context or _CONTEXT))]
    words += ["--metrics", "--threads-http", _HTTP_THREADS]
    return [*words, "-ngl", _ALL_LAYERS] if place.gpus else words


def _llama_cpp_python(launch: LaunchSpec, place: Place, port: int) -> list[str]:
    words = ["--model", launch.model, "--model_alias", served_name(launch.model)]
    words += [*_listening(port), "--n_ctx", str(launch.context or _CONTEXT)]
    # Else any other request, even a question for its models, cuts a stream.
    words += ["--interrupt_requests", "false"]
    return [*words, "--n_gpu_layers", "-1"] if place.gpus else words


def _mlx(launch: LaunchSpec, place: Place, port: int) -> list[str]:
    words = ["--model", launch.model, *_listening(port)]
    return [*words, "--decode-concurrency", str(launch.slots)] if launch.slots else words


def _nothing(launch: LaunchSpec, place: Place, port: int) -> list[str]:
    return []


_WORDS = {
    "vllm": _vllm,
    "llama-server": _llama_server,
    "llama-cpp-python": _llama_cpp_python,
    "mlx": _mlx,
    "command": _nothing,
}


def _filled(word: str, place: Place, port: int) -> str:
    """Fill in what a command may ask for; other braces, as in JSON, stay as they are."""
    gpus = ",".join(gpu.uuid or str(gpu.number) for gpu in place.gpus)
    values = {"port": str(port), "host": HOST, "gpus": gpus, "name": place.name}
    for name, value in values.items():
        word = word.replace(f"{{{name}}}", value)
    return word.replace("{model}", place.launch.model)


def _gpu_environment(place: Place, kind: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return what shows a server its GPUs and no others, and the variables that it must not see.

    By UUID: numbers mean one thing to the driver's tools and another to CUDA, unless that is told
    to count as they do. Many versions of vLLM end with an error when they see a UUID.
    """
    if not place.gpus:
        return ({"CUDA_VISIBLE_DEVICES": ""}, ()) if place.launch.gpus == () else ({}, ())
    if kind == "vllm" and all(gpu.vendor == "nvidia" and gpu.part is None for gpu in place.gpus):
        numbers = ",".join(str(gpu.number) for gpu in place.gpus)
        return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": numbers}, ()
    outer, *inner = VARIABLES[place.gpus[0].vendor]
    return {outer: ",".join(gpu.uuid or str(gpu.number) for gpu in place.gpus)}, tuple(inner)
