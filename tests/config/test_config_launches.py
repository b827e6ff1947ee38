"""The tables `[[launch]]`: what they come to, and what is said of their mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from mvllm_router.config import Config, ConfigError, LaunchSpec, changes, parse
from mvllm_router.config.launches import default_launch_name

ONE = '[[launch]]\nengine = "vllm"\nmodel = "Qwen/Qwen3-8B"\n'


def load(text: str, **more: object) -> Config:
    return parse(text, Path("/etc/router/servers.toml"), environ={"KEY": "hush"}, **more)  # type: ignore[arg-type]


def launches(text: str) -> tuple[LaunchSpec, ...]:
    return load(text).launches


def complaint(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(text)
    return str(caught.value)


def test_an_engine_and_a_model_are_enough() -> None:
    assert launches(ONE) == (LaunchSpec("qwen3-8b", "vllm", "Qwen/Qwen3-8B"),)


def test_every_key_arrives() -> None:
    (found,) = launches(
        ONE
        + 'name = "big"\nreplicas = 2\ntp = 4\ngpus = [0, "GPU-1"]\nslots = 8\ncontext = 100\n'
        + 'args = ["--a", "--a", ""]\nenv = { A = "b" }\napi_key_env = "KEY"\nweight = 2\n'
        + 'force = true\nstart_timeout = 5\nengine_path = "./vllm"\n'
    )
    assert found == LaunchSpec(
        "big",
        "vllm",
        "Qwen/Qwen3-8B",
        replicas=2,
        tp=4,
        gpus=("0", "GPU-1"),
        slots=8,
        context=100,
        engine_path="/etc/router/vllm",
        args=("--a", "--a", ""),
        env={"A": "b"},
        api_key="hush",
        weight=2.0,
        force=True,
        start_timeout=5.0,
    )
    assert "hush" not in repr(found)


def test_paths_begin_at_the_folder_of_the_file_and_names_of_the_hub_are_left() -> None:
    text = '[[launch]]\nengine = "llama.cpp"\nmodel = "{}"\n'
    for model, found in (
        ("./m.gguf", "/etc/router/m.gguf"),
        ("m.gguf", "/etc/router/m.gguf"),
        ("/m/x", "/m/x"),
        ("~/x", str(Path.home() / "x")),
        ("org/m", "org/m"),
    ):
        assert launches(text.format(model))[0].model == found


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        ("Qwen/Qwen3-8B", "qwen3-8b"),
        ("/models/Tiny.gguf", "tiny"),
        ("org/m-GGUF:Q4_K_M", "m-gguf-q4_k_m"),
        ("/", "server"),
        ("x/" + "y" * 80, "y" * 48),
    ],
)
def test_a_launch_is_called_after_its_model(subject: str, name: str) -> None:
    assert default_launch_name(subject) == name


def test_a_second_launch_of_a_model_gets_another_name() -> None:
    assert [one.name for one in launches(ONE * 3)] == ["qwen3-8b", "qwen3-8b-b", "qwen3-8b-c"]


def test_it_stands_beside_servers_and_those_of_the_command_line() -> None:
    config = load(
        '[servers]\nservers = ["http://a:1"]\n' + ONE,
        launch={"engine": "mlx", "model": "x/y", "gpus": ["0"]},
    )
    assert len(config.servers) == 1
    assert [one.engine for one in config.launches] == ["vllm", "mlx"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("launch = 3", "`launch` must be an array of tables, but it is a whole number"),
        ("launch = [3]", "a launch must be a table, but it is a whole number"),
        ('[[launch]]\nmodel = "x"', "the launch has no `engine`"),
        ('[[launch]]\nengine = "vlm"\nmodel = "x"', "did you mean `vllm`?"),
        ('[[launch]]\nengine = "vllm"', "the launch has no `model`"),
        ('[[launch]]\nengine = "command"', "has no command in `args`"),
        (ONE + "replica = 2", "did you mean `replicas`?"),
        (ONE + "replicas = 0", "`replicas` must be a whole number from 1 to 50, but it is 0"),
        (ONE + 'gpus = "0"', '= write gpus = ["0"]'),
        (ONE + 'args = "--x y"', '= write each word by itself: args = ["--seed", "1"]'),
        (ONE + "env = 3", "`env` must be a table, but it is a whole number"),
        (ONE + "env = { A = 1 }", "the variable `A` must be a string"),
        (ONE + 'name = "a b"', "`name` may hold letters, digits and . _ : - only"),
        (ONE + 'api_key = "a"\napi_key_env = "KEY"', "both `api_key` and `api_key_env`"),
        (ONE + 'api_key_env = "NO_SUCH"', "the environment variable `NO_SUCH` is not set"),
        ('[[launch]]\nengine = "mlx"\nmodel = "x"\napi_key = "k"', "the engine mlx knows no key"),
        (ONE + 'name = "a"\n' + ONE + 'name = "a"', "two launches have the name `a`"),
        (
            '[[servers]]\nurl = "http://a:1"\nname = "q-0"\n' + ONE + 'name = "q"',
            "the launch `q` may have a server `q-0`, and there is one already",
        ),
    ],
)
def test_mistakes_are_named(text: str, said: str) -> None:
    assert said in complaint(text)


def test_a_mistake_is_shown_where_it_stands() -> None:
    assert complaint(ONE + "tpp = 2") == (
        "error: unknown key `tpp`\n"
        " --> /etc/router/servers.toml:4:1\n"
        "  |\n"
        "4 | tpp = 2\n"
        "  | ^^^\n"
        "  = in launch[0]\n"
        "  = did you mean `tp`?"
    )


@pytest.mark.parametrize(
    "line",
    [
        'api_key = ["hush"]',
        'args = "--api-key hush"',
        'api_kee = "hush"',
        'env = { A = "hush", B = 1 }',
        'api_key_env = "hush"',
    ],
)
def test_what_may_be_a_key_is_not_shown(line: str) -> None:
    assert "hush" not in complaint(ONE + line)


@pytest.mark.parametrize(
    ("before", "after", "becomes"),
    [
        ("", "", {}),
        ("", "replicas = 2", {"qwen3-8b": "scaled"}),
        ("replicas = 2", "", {}),
        ("replicas = 2", "replicas = 3\nslots = 4", {"qwen3-8b": "changed"}),
        ("replicas = 2", "slots = 4", {"qwen3-8b": "changed"}),
        ("", 'args = ["--seed", "1"]', {"qwen3-8b": "changed"}),
        ("", 'name = "other"', {"qwen3-8b": "removed", "other": "added"}),
    ],
)
def test_what_becomes_of_a_launch_is_told_by_its_name(
    before: str, after: str, becomes: dict[str, str]
) -> None:
    diff = changes(load(ONE + before), load(ONE + after))
    assert (diff.launches, diff.needs_restart) == (becomes, ())
    assert bool(diff) == bool(becomes)


@pytest.mark.parametrize("line", ["tp = 2", "gpus = [1]", "gpus = []"])
def test_other_gpus_for_a_launch_need_a_restart(line: str) -> None:
    diff = changes(load(ONE), load(ONE + line + "\nreplicas = 2"))
    assert (diff.launches, diff.needs_restart) == ({}, ("launch qwen3-8b",))
