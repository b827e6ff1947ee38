"""Where engines are found, and what is said where they are not."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from launch_kit import launch

from mvllm_router.launch import programs as module
from mvllm_router.launch.faults import CannotLaunch
from mvllm_router.launch.programs import find_program


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Leave nothing on the PATH, beside the Python or in it; return the folder on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(module.sys, "executable", str(tmp_path / "no" / "python"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    return folder


def installed(folder: Path, name: str) -> str:
    path = folder / name
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


def refusal(**more: Any) -> CannotLaunch:
    with pytest.raises(CannotLaunch) as caught:
        find_program(launch(**more))
    return caught.value


@pytest.mark.parametrize(
    ("engine", "extra"), [("vllm", "vllm"), ("llama.cpp", "llama-cpp"), ("mlx", "mlx")]
)
def test_an_engine_that_is_not_installed_is_refused_with_the_command_that_installs_it(
    engine: str, extra: str
) -> None:
    error = refusal(engine=engine)
    assert "not installed" in str(error)
    assert f"pip install 'mvllm-router[{extra}]'" in error.hint
    assert "--engine-path" in error.hint


def test_the_extras_that_are_named_exist() -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    for line in module._INSTALL.values():
        assert f"\n{line.partition('[')[2].rstrip(chr(39) + ']')} = [" in text


def test_engines_on_the_path_are_found(nothing_installed: Path) -> None:
    vllm = installed(nothing_installed, "vllm")
    llama = installed(nothing_installed, "llama-server")
    assert find_program(launch()).argv == (vllm, "serve")
    found = find_program(launch(engine="llama.cpp"))
    assert (found.kind, found.argv) == ("llama-server", (llama,))


def test_without_llama_server_the_module_of_python_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "llama_cpp" or None)
    found = find_program(launch(engine="llama.cpp"))
    assert found.kind == "llama-cpp-python"
    assert found.argv == (sys.executable, "-m", "llama_cpp.server")


def test_a_path_that_was_given_is_taken_as_a_program_or_as_a_python(tmp_path: Path) -> None:
    program = installed(tmp_path, "my-llama")
    python = installed(tmp_path, "python3.12")
    found = find_program(launch(engine="llama.cpp", engine_path=program))
    assert (found.kind, found.argv) == ("llama-server", (program,))
    found = find_program(launch(engine="llama.cpp", engine_path=python))
    assert (found.kind, found.argv[1:]) == ("llama-cpp-python", ("-m", "llama_cpp.server"))
    found = find_program(launch(engine="mlx", engine_path=python))
    assert found.argv == (python, "-m", "mlx_lm", "server")


def test_a_program_or_a_model_that_is_not_there_is_refused(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    assert missing in str(refusal(engine_path=missing))
    assert "no model at" in str(refusal(model=missing + ".gguf"))
    assert "no program" in str(refusal(engine="command", model="", args=("no-such-program",)))


def test_a_command_keeps_its_words(nothing_installed: Path) -> None:
    path = installed(nothing_installed, "serve")
    found = find_program(launch(engine="command", model="", args=("serve", "--port", "{port}")))
    assert found.argv == (path, "--port", "{port}")
    assert os.access(path, os.X_OK)
