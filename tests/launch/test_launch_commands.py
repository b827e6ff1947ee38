"""What each engine is started with."""

from __future__ import annotations

from typing import Any

import pytest
from launch_kit import gpu, launch, split

from mvllm_router.launch.commands import Command, command, served_name, server
from mvllm_router.launch.placement import Place
from mvllm_router.launch.programs import Program

PROGRAMS = {
    "vllm": Program("vllm", ("vllm", "serve")),
    "llama.cpp": Program("llama-server", ("llama-server",)),
    "llama-cpp-python": Program("llama-cpp-python", ("python", "-m", "llama_cpp.server")),
    "mlx": Program("mlx", ("python", "-m", "mlx_lm", "server")),
}


def made(engine: str = "vllm", gpus: Any = (), **more: Any) -> Command:
    one = Place(launch(engine=engine, **more), 0, tuple(gpus))
    return command(one, PROGRAMS[engine], 20001)


def test_vllm_serves_a_model_of_the_hub_under_its_own_name() -> None:
    assert made().argv == (
        *("vllm", "serve", "Qwen/Qwen3-8B", "--host", "127.0.0.1", "--port", "20001"),
    )


def test_vllm_gets_its_share_of_what_was_asked_for_before_the_words_of_the_user() -> None:
    argv = made(tp=2, slots=32, context=8192, args=("--dtype", "half")).argv
    assert argv[7:] == (
        *("--tensor-parallel-size", "2", "--max-num-seqs", "32", "--max-model-len", "8192"),
        *("--dtype", "half"),
    )


def test_a_model_on_the_disk_is_served_under_the_last_part_of_its_path() -> None:
    argv = made(model="/models/qwen3/").argv
    assert argv[-2:] == ("--served-model-name", "qwen3")
    assert served_name("/models/a.b/tiny.gguf") == "tiny"
    assert served_name("/models/Qwen3.5") == "Qwen3.5"
    assert served_name("org/model") == "org/model"


def test_llama_server_always_has_slots_context_metrics_and_threads() -> None:
    assert made("llama.cpp", model="/m/tiny.gguf").argv == (
        *("llama-server", "--model", "/m/tiny.gguf", "--alias", "tiny"),
        *("--host", "127.0.0.1", "--port", "20001", "-np", "4", "-c", "16384"),
        *("--metrics", "--threads-http", "256"),
    )
    argv = made("llama.cpp", [gpu(0)], model="org/m-GGUF:Q4_K_M", slots=8, context=100).argv
    assert argv[1:5] == ("-hf", "org/m-GGUF:Q4_K_M", "--alias", "org/m-GGUF:Q4_K_M")
    assert argv[9:13] == ("-np", "8", "-c", "800")
    assert argv[-2:] == ("-ngl", "999")


def test_llama_cpp_python_is_never_interrupted() -> None:
    argv = made("llama-cpp-python", [gpu(0)], model="/m/tiny.gguf").argv
    assert argv[3:] == (
        *("--model", "/m/tiny.gguf", "--model_alias", "tiny", "--host", "127.0.0.1"),
        *("--port", "20001", "--n_ctx", "4096", "--interrupt_requests", "false"),
        *("--n_gpu_layers", "-1"),
    )


def test_mlx_gets_its_batch_size() -> None:
    argv = made("mlx", slots=32).argv
    assert argv[4:6] == ("--model", "Qwen/Qwen3-8B")
    assert argv[-2:] == ("--decode-concurrency", "32")


def test_a_command_is_filled_in_and_other_braces_are_left() -> None:
    words = ("run", "--port={port}", "{host}", "{gpus}", "{name}", '{"a": "{model}"}')
    place = Place(launch(engine="command", args=words), 1, (gpu(2), gpu(3)))
    found = command(place, Program("command", ("/bin/run", *words[1:])), 20001)
    assert found.argv == (
        *("/bin/run", "--port=20001", "127.0.0.1", "GPU-0002,GPU-0003", "qwen-1"),
        '{"a": "Qwen/Qwen3-8B"}',
    )


def test_each_server_sees_its_gpus_by_uuid_and_no_others() -> None:
    place = Place(launch(engine="llama.cpp"), 0, (gpu(2), gpu(3)))
    found = command(place, PROGRAMS["llama.cpp"], 20000)
    assert found.env == {"CUDA_VISIBLE_DEVICES": "GPU-0002,GPU-0003"}
    assert found.environment({"CUDA_VISIBLE_DEVICES": "0,1,2,3", "HOME": "/"}) == {
        "CUDA_VISIBLE_DEVICES": "GPU-0002,GPU-0003",
        "HOME": "/",
    }


def test_vllm_which_may_not_know_uuids_is_told_to_count_as_the_driver_does() -> None:
    found = made(gpus=[gpu(2), gpu(3)])
    inherited = {"CUDA_VISIBLE_DEVICES": "0,1,2,3", "CUDA_DEVICE_ORDER": "FASTEST_FIRST"}
    assert found.environment(inherited) == {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": "2,3",
    }
    # Of a GPU that is split, there is no other name for a part.
    assert made(gpus=split(2, 3)[1:2]).env == {"CUDA_VISIBLE_DEVICES": "MIG-0002-1"}


def test_of_amd_the_inner_variables_are_taken_away_since_they_would_number_what_is_left() -> None:
    found = made(gpus=[gpu(1, vendor="amd")])
    inherited = {"HIP_VISIBLE_DEVICES": "1", "CUDA_VISIBLE_DEVICES": "1"}
    assert found.environment(inherited) == {"ROCR_VISIBLE_DEVICES": "GPU-0001"}
    assert found.shown().startswith(
        "env -u HIP_VISIBLE_DEVICES -u CUDA_VISIBLE_DEVICES ROCR_VISIBLE_DEVICES=GPU-0001 vllm"
    )


def test_no_gpu_at_all_can_be_asked_for() -> None:
    assert made().env == {}
    place = Place(launch(gpus=()), 0)
    assert command(place, PROGRAMS["vllm"], 1).env == {"CUDA_VISIBLE_DEVICES": ""}


@pytest.mark.parametrize(
    ("engine", "variable"),
    [
        ("vllm", "VLLM_API_KEY"),
        ("llama.cpp", "LLAMA_API_KEY"),
        ("llama-cpp-python", "API_KEY"),
    ],
)
def test_the_key_travels_in_the_environment_and_is_not_shown(engine: str, variable: str) -> None:
    found = made(engine, model="/m/x.gguf", api_key="hush", env={"A": "b c"})
    assert found.env[variable] == "hush"
    assert found.env["A"] == "b c"
    assert "hush" not in found.shown() + repr(found.argv)
    assert f"{variable}='***' A='b c' " in found.shown()


def test_keys_that_the_user_gives_by_himself_are_not_shown_either() -> None:
    words = ("--api-key", "hush", "hush2", "--max-num-batched-tokens", "8", "--hf-token=hush3")
    shown = made(args=words, env={"HF_TOKEN": "hush4", "A_SECRET": "hush5"}).shown()
    assert "hush" not in shown
    assert shown.endswith("--api-key '***' '***' --max-num-batched-tokens 8 '--hf-token=***'")


def test_the_routers_own_settings_and_keys_are_not_for_its_servers() -> None:
    inherited = {"ROUTER_API_KEY": "hush", "ROUTER_PORT": "1", "HF_TOKEN": "theirs"}
    assert made().environment(inherited) == {"HF_TOKEN": "theirs"}


def test_the_router_sends_requests_as_the_server_was_started() -> None:
    place = Place(launch(slots=8, weight=2.0, api_key="hush"), 1)
    found = server(place, PROGRAMS["vllm"], 20001)
    assert (found.url, found.name, found.engine) == ("http://127.0.0.1:20001", "qwen-1", "vllm")
    assert (found.max_concurrent_requests, found.weight, found.api_key) == (8, 2.0, "hush")
    assert server(place, PROGRAMS["mlx"], 1).models == ("Qwen/Qwen3-8B",)
    assert server(place, PROGRAMS["llama.cpp"], 1).engine == "llama.cpp"
    assert server(place, Program("command", ()), 1).engine == "auto"
