"""The file that `router init` writes: complete, right, and the same as servers.example.toml."""

from __future__ import annotations

import re
from pathlib import Path

from mvllm_router.config import AUTH_KEYS, SERVER_KEYS, SETTINGS, Settings, parse, template

ROOT = Path(__file__).parents[2]


def test_the_example_file_is_the_template() -> None:
    assert (ROOT / "servers.example.toml").read_text(encoding="utf-8") == template()


def test_it_loads_without_problems_and_with_one_server() -> None:
    config = parse(template(), environ={})
    assert [one.url for one in config.servers] == ["http://127.0.0.1:8000"]
    assert config.warnings == ()
    assert set(config.origins.values()) == {"default"}


def test_all_settings_are_in_it_with_their_defaults() -> None:
    text = re.sub(r"^# (\w+ = )", r"\1", template(), flags=re.MULTILINE)
    config = parse(text, environ={})
    assert config.settings == Settings()
    in_file = {name for name, origin in config.origins.items() if origin == "file"}
    assert in_file == {setting.name for setting in SETTINGS if not setting.no_effect}


def test_every_setting_is_explained_in_it() -> None:
    text = " ".join(template().replace("\n# ", " ").split())
    for setting in SETTINGS:
        assert (setting.doc in text) is not setting.no_effect


def test_every_key_of_a_server_is_explained_in_it() -> None:
    for key in SERVER_KEYS:
        assert f"#   {key.name} = {key.example}\n#       {key.doc}\n" in template()


def test_every_key_of_a_client_is_explained_in_it() -> None:
    for key in AUTH_KEYS:
        assert f"#   {key.name} = {key.example}\n#       {key.doc}\n" in template()


def test_its_example_of_keys_is_right(tmp_path: Path) -> None:
    (tmp_path / "bob.key").write_text("y")
    text = template().partition("everybody may come in.\n")[2].partition("# The keys of")[0]
    example = text.replace("#   ", "")
    config = parse(example, tmp_path / "servers.toml", environ={"ALICE_KEY": "x"})
    assert [key.name for key in config.keys] == ["alice", "bob"]


def test_its_examples_of_servers_are_right() -> None:
    text = template().replace("    # {", "    {")
    config = parse(text, environ={"EXAMPLE_API_KEY": "x"})
    assert len(config.servers) == 4


def test_its_lines_fit_a_terminal() -> None:
    assert max(len(line) for line in template().splitlines()) <= 100
