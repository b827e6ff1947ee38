"""Commands, options and variables: the documentation names all there are, and no others."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main
from docs_text import PAGES, all_text, blocks, commands, first_cells, section, text_of

from mvllm_router import __version__
from mvllm_router.cli.app import app
from mvllm_router.config import SETTINGS, parse

# Typer brings its own copy of Click in newer releases, so that its types cannot be named here.
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
ROOT_OPTIONS = {"--version", "-V", "--help", "-h"}
SET_UP = ("pip install . && router run --demo", "pip install '.[test]' && pytest")


def options(name: str) -> set[str]:
    command = COMMANDS[name]
    found = {text for parameter in command.params for text in parameter.opts}
    return {text for text in found if text.startswith("-")} | {"--help", "-h"}


def variables() -> set[str]:
    """Every ROUTER_ variable that the settings and the options have."""
    parameters = [one for command in COMMANDS.values() for one in command.params]
    named = {one.envvar for one in parameters if isinstance(one.envvar, str)}
    return named | {setting.variable for setting in SETTINGS}


ROUTER_LINES = [line for line in commands(all_text()) if re.match(r"(router|docker run .*) ", line)]


def test_the_readme_names_every_command_and_no_other() -> None:
    table = first_cells(section(text_of("README.md"), "Commands"))
    shown = {name for name, command in COMMANDS.items() if not command.hidden}
    assert {cell.split()[1] for cell in table} == shown
    named = set(re.findall(r"`router ([a-z][a-z-]*)", all_text()))
    assert named <= set(COMMANDS)


def test_commands_under_other_names_are_named() -> None:
    for name in (name for name, command in COMMANDS.items() if command.hidden):
        assert f"`{name}`" in text_of("docs/configuration.md")


@pytest.mark.parametrize("line", ROUTER_LINES)
def test_a_command_of_an_example_exists_with_its_options(line: str) -> None:
    words = shlex.split(line)
    if words[0] == "docker":  # what follows the image goes to `router`, which without it runs
        words = ["router", *(words[words.index("mvllm-router") + 1 :] or ["run"])]
    name, *rest = words[1:]
    assert name in COMMANDS
    for word in rest[: rest.index("--")] if "--" in rest else rest:  # what follows is the engine's
        if word.startswith("-"):
            assert word in options(name), line


def test_there_are_examples_to_check() -> None:
    assert len(ROUTER_LINES) >= 6


def test_every_option_is_named_in_the_documentation() -> None:
    text = all_text()
    for option in ROOT_OPTIONS.union(*(options(name) for name in COMMANDS)):
        assert re.search(rf"[`\s]{option}[`\s=\])]", text), option


def test_the_table_of_options_of_run_is_complete() -> None:
    table = first_cells(section(text_of("docs/configuration.md"), "Options of `router run`"))
    named = {part.strip("` ") for cell in table for part in cell.split(",")}
    assert named - {"URL..."} == options("run") - {"--help", "-h"}


def test_the_table_of_options_of_launch_is_complete() -> None:
    table = text_of("docs/launch.md").partition("## In servers.toml")[0]
    named = {part.strip("` ") for cell in first_cells(table) for part in cell.split(",")}
    assert named == options("launch") - options("run")


def test_every_environment_variable_is_named_and_no_other() -> None:
    named = set(re.findall(r"\bROUTER_[A-Z_]*[A-Z]\b", all_text()))
    assert named == variables()


def test_the_set_up_commands_stand_in_the_readme_as_they_are() -> None:
    for command in SET_UP:
        assert command in text_of("README.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_configuration_examples_load_without_problems(page: Any, tmp_path: Path) -> None:
    for block in blocks(page.read_text(encoding="utf-8"), "toml"):
        environ = {name: name for name in re.findall(r'key_env = "(\w+)"', block)}
        for name in re.findall(r'tls_\w+ = "(.+)"', block):
            (tmp_path / name).write_text("BEGIN CERTIFICATE-----, BEGIN PRIVATE KEY-----")
        config = parse(block, tmp_path / "servers.toml", environ=environ)
        assert config.warnings == ()
        assert config.servers or config.launches


def test_the_changelog_begins_with_the_version_of_the_package() -> None:
    first = re.search(r"^## (\S+)", text_of("CHANGELOG.md"), re.MULTILINE)
    assert first is not None
    assert first[1] == __version__
