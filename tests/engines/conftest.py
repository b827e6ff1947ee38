"""Fixtures that start real inference servers, each with the same tiny model.

`scripts/get-engines` installs the servers. A test whose engine is not installed is skipped; with
MVLLM_REQUIRE_ENGINES=vllm,llama-server in the environment it fails where one of these is missing.
Run them by themselves (`pytest -m engine`), or with `-n 2 --dist loadgroup`: else every worker
starts servers of its own. pytest 9.2 does not let pytest-xdist 3.8 group tests.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pytest

HERE = Path(__file__).parent
START_TIMEOUT = 200.0  # seconds; vLLM takes 25 alone on two cores, several times that beside others
STOP_GRACE = 5.0  # seconds between SIGTERM and SIGKILL
TEST_TIMEOUT = 300.0  # seconds for one test, the start of its engine included
MODEL = "tiny"


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests here: one worker for all of them, and time for their engines to start."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("engine")
            item.add_marker(pytest.mark.xdist_group("engines"))
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(TEST_TIMEOUT))


@dataclass
class EngineServer:
    """One running engine. `model` is the name that requests for it carry."""

    url: str
    model: str
    process: subprocess.Popen[bytes]
    log: Path

    def tail(self) -> str:
        """The last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-30:])

    def stop(self) -> None:
        """End it and all it started; harmless when it has ended."""
        self.signal_group(signal.SIGTERM)
        try:
            self.process.wait(STOP_GRACE)
        except subprocess.TimeoutExpired:
            pass  # some wait for their clients to hang up
        self.kill()

    def kill(self) -> None:
        """End it and all it started in mid-word, as a crash does."""
        self.signal_group(signal.SIGKILL)
        self.process.wait()

    def signal_group(self, number: signal.Signals) -> None:
        try:
            os.killpg(self.process.pid, number)
        except (ProcessLookupError, PermissionError):
            pass  # nobody is left; macOS says so with PermissionError


@dataclass(frozen=True)
class Command:
    """How to start an engine, but for its port; `health` is the path that says it is ready."""

    argv: list[str]
    health: str
    model: str = MODEL
    environ: dict[str, str] = field(default_factory=dict)


class StartLlamaServer(Protocol):
    def __call__(
        self, slots: int = 4, extra: Sequence[str] = (), model: str = MODEL, port: int = 0
    ) -> EngineServer: ...


class StartVllm(Protocol):
    def __call__(
        self, max_num_seqs: int = 4, extra: Sequence[str] = (), model: str = MODEL
    ) -> EngineServer: ...


class Launcher:
    """Starts engines, and stops at the end what is left of them."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self.servers: list[EngineServer] = []

    def start(self, command: Command, port: int = 0) -> EngineServer:
        """Start an engine and wait until it is healthy; fails the test when it does not get so.

        Port 0 takes a free one; another is that of an engine which has ended.
        """
        port = port or free_port()
        server = EngineServer(
            url=f"http://127.0.0.1:{port}",
            model=command.model,
            process=self.spawn(command, port),
            log=self.log_of(port),
        )
        self.servers.append(server)
        wait_until_healthy(server, command.health)
        return server

    def spawn(self, command: Command, port: int) -> subprocess.Popen[bytes]:
        """Start it in a process group of its own, so that its children can be ended with it.

        Not in a session of its own: Linux shares the processors out among sessions, and one that
        was stopped and goes on can take them all for seconds, in which a test does not run.
        """
        with self.log_of(port).open("wb") as log:
            return subprocess.Popen(
                [*command.argv, "--host", "127.0.0.1", "--port", str(port)],
                env=os.environ | command.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=os.setpgrp,
            )

    def log_of(self, port: int) -> Path:
        return self.logs / f"{port}.log"

    def stop_all(self) -> None:
        for server in self.servers:
            server.stop()


def free_port() -> int:
    """A port below those that systems hand out by themselves, and those of simulated engines.

    vLLM takes half a minute to bind it, and other tests are given ports all that time.
    """
    while True:
        port = random.SystemRandom().randrange(10000, 20000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def wait_until_healthy(server: EngineServer, path: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while not is_healthy(server.url + path):
        code = server.process.poll()
        if code is not None:
            pytest.fail(f"the engine ended with {code}:\n{server.tail()}", pytrace=False)
        if time.monotonic() > deadline:
            server.stop()
            pytest.fail(f"not healthy after {START_TIMEOUT} s:\n{server.tail()}", pytrace=False)
        time.sleep(0.05)


def is_healthy(url: str) -> bool:
    # Environment variables may name a proxy, which does not serve this machine's addresses.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        error.close()
        return False
    except OSError:
        return False


def engines_root() -> Path:
    """Where scripts/get-engines puts engines."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("MVLLM_ENGINES") or cache / "mvllm-router" / "engines").absolute()


def engine_folder(name: str) -> Path:
    """The folder of an installed engine; skips or fails the test when it is not installed.

    An installation has its stamp when it is complete, and a mark beside it when it is being
    replaced.
    """
    folder = engines_root() / name
    unfinished = engines_root() / f".{name}.unfinished"
    if not (folder / ".installed").exists() or unfinished.exists():
        reason = f"{name} is not installed: scripts/get-engines {name}"
        required = os.environ.get("MVLLM_REQUIRE_ENGINES", "").replace(" ", "").split(",")
        if name in required:
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return folder


def python_of(name: str) -> str:
    return str(engine_folder(name) / "bin" / "python")


def models_folder() -> Path:
    """The tiny models, made on first use; their folder's name changes with what makes them."""
    script = HERE / "tiny_models.py"
    version = hashlib.sha256(script.read_bytes()).hexdigest()[:12]
    folder = engines_root() / "models-cache" / version
    if not folder.is_dir():
        subprocess.run([python_of("models"), str(script), str(folder)], check=True)
    return folder


def llama_server_command(slots: int, extra: Sequence[str], model: str) -> Command:
    program = str(engine_folder("llama-server") / "llama-server")
    gguf = str(models_folder() / "tiny.gguf")
    argv = [program, "--model", gguf, "--alias", model, "-np", str(slots), "-c", "8192", "-t", "1"]
    # With its default a burst of connections can block /health: one thread serves one connection.
    argv += ["--metrics", "--threads-http", "64"]
    help_text = subprocess.run([program, "--help"], capture_output=True, text=True).stdout
    for option in (["--cache-ram", "0"], ["--no-ui"]):  # not known to every version
        if option[0] in help_text:
            argv += option
    return Command([*argv, *extra], health="/health", model=model)


def vllm_command(max_num_seqs: int, extra: Sequence[str], model: str) -> Command:
    folder = engine_folder("vllm")
    argv = [str(folder / "bin" / "vllm"), "serve", str(models_folder() / "tiny")]
    argv += ["--served-model-name", model, "--dtype", "bfloat16", "--enforce-eager"]
    argv += ["--max-model-len", "1024", "--max-num-seqs", str(max_num_seqs)]
    environ = {
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }
    openmp = folder / "lib" / "libiomp5.so"
    if openmp.exists():
        environ["LD_PRELOAD"] = str(openmp)
    return Command([*argv, *extra], health="/health", model=model, environ=environ)


def llama_cpp_python_command() -> Command:
    argv = [python_of("llama-cpp-python"), "-m", "llama_cpp.server"]
    argv += ["--model", str(models_folder() / "tiny.gguf"), "--model_alias", MODEL]
    argv += ["--n_ctx", "4096", "--n_threads", "1"]
    # It has no /health, and GET /v1/models would cut an answer that is under way.
    return Command(argv, health="/openapi.json")


def mlx_command(hub: Path) -> Command:
    """`hub` is an empty folder in place of the user's downloads, which it would list too."""
    (hub / "hub").mkdir()
    model = str((models_folder() / "tiny").resolve())
    argv = [python_of("mlx"), "-m", "mlx_lm", "server", "--model", model]
    environ = {"HF_HOME": str(hub), "HF_HUB_OFFLINE": "1"}
    # It knows a local model by its folder only.
    return Command(argv, health="/health", model=model, environ=environ)


@pytest.fixture(scope="session")
def session_launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    launcher = Launcher(tmp_path_factory.mktemp("engines"))
    yield launcher
    launcher.stop_all()


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Launcher]:
    launcher = Launcher(tmp_path)
    yield launcher
    launcher.stop_all()


@pytest.fixture(scope="session")
def vllm_server(session_launcher: Launcher) -> EngineServer:
    return session_launcher.start(vllm_command(4, (), MODEL))


@pytest.fixture(scope="session")
def llama_server(session_launcher: Launcher) -> EngineServer:
    return session_launcher.start(llama_server_command(4, (), MODEL))


@pytest.fixture(scope="session")
def llama_cpp_python_server(session_launcher: Launcher) -> EngineServer:
    return session_launcher.start(llama_cpp_python_command())


@pytest.fixture(scope="session")
def mlx_server(
    session_launcher: Launcher, tmp_path_factory: pytest.TempPathFactory
) -> EngineServer:
    return session_launcher.start(mlx_command(tmp_path_factory.mktemp("hub")))


@pytest.fixture
def start_llama_server(launcher: Launcher) -> StartLlamaServer:
    """Starts llama-servers that a test may kill; what is left of them ends with the test."""

    def start(
        slots: int = 4, extra: Sequence[str] = (), model: str = MODEL, port: int = 0
    ) -> EngineServer:
        return launcher.start(llama_server_command(slots, extra, model), port)

    return start


@pytest.fixture
def start_vllm(launcher: Launcher) -> StartVllm:
    """Starts vLLM servers that a test may kill; what is left of them ends with the test."""

    def start(max_num_seqs: int = 4, extra: Sequence[str] = (), model: str = MODEL) -> EngineServer:
        return launcher.start(vllm_command(max_num_seqs, extra, model))

    return start


@pytest.fixture
def start_llama_cpp_python(launcher: Launcher) -> Callable[[], EngineServer]:
    """Starts servers of llama-cpp-python that a test may kill."""
    return lambda: launcher.start(llama_cpp_python_command())


@pytest.fixture
def start_mlx(launcher: Launcher, tmp_path: Path) -> Callable[[], EngineServer]:
    """Starts an MLX server that a test may kill."""
    return lambda: launcher.start(mlx_command(tmp_path))


@pytest.fixture(scope="module")
def strict_vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], EngineServer]]:
    """Gives a vLLM that takes eight requests at once, and drains when it is told to stop.

    The tests of a file share it; after one that has stopped it there is another.
    """
    launcher = Launcher(tmp_path_factory.mktemp("strict"))
    # "Queued" are also those that run. Seconds to drain: more than any test takes.
    extra = ("--max-num-queued-reqs", "8", "--shutdown-timeout", "120", "--max-model-len", "8192")
    command = vllm_command(4, (*extra, "--enable-log-requests"), MODEL)
    command.environ["VLLM_SERVER_DEV_MODE"] = "1"  # for /abort_requests

    def get() -> EngineServer:
        if not launcher.servers or launcher.servers[-1].process.poll() is not None:
            launcher.start(command)
        return launcher.servers[-1]

    yield get
    launcher.stop_all()
