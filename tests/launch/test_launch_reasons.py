"""Why servers ended, out of what real engines printed (vLLM 0.32, llama.cpp, mlx-lm 0.32)."""

from __future__ import annotations

import pytest

from mvllm_router.launch.reasons import Reason, reason_of, stage_of

VLLM_FLAG = """Triton is installed, but doesn't include CPU backend. Disabling Triton.
usage: vllm [-h] [-v]
            {chat,complete,serve,launch,bench,collect-env,download-kernels,preload,run-batch}
            ...
vllm: error: unrecognized arguments: --bogus"""
VLLM_LENGTH = """  File ".../pydantic/_internal/_dataclasses.py", line 121, in __init__
    s.__pydantic_validator__.validate_python(ArgsKwargs(args, kwargs), self_instance=s)
pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
  Value error, User-specified max_model_len (999999) is greater than the derived max_model_len \
(8192). [type=value_error, input_value=ArgsKwargs((), {'model': ...'}), input_type=ArgsKwargs]
    For further information visit https://errors.pydantic.dev/2.14/v/value_error"""
VLLM_BLOCK = """(EngineCore pid=12) ERROR 11-21 18:06:58 [core.py:1213] Traceback (most recent:
(EngineCore pid=12) ERROR 11-21 18:06:58 [core.py:1213]     raise ValueError(
(EngineCore pid=12) ERROR 11-21 18:06:58 [core.py:1213] ValueError: No common block size for 16 \
(CPU_ATTN: [MultipleOf(32)]).
(APIServer pid=10) RuntimeError: Engine core initialization failed. See root cause above. Failed \
core proc(s): {'EngineCore': 1}
.../resource_tracker.py:254: UserWarning: resource_tracker: There appear to be 1 leaked objects
  warnings.warn('resource_tracker: There appear to be %d '"""
CUDA_MEMORY = """(EngineCore pid=9) ERROR 11-21 18:06:58 [core.py:1] ValueError: Free memory on \
device (3.1/79.1 GiB) on startup is less than desired GPU memory utilization (0.92)."""
LLAMA_FLAG = "error: invalid argument: --bogus"
LLAMA_MODEL = """0.00.021.635 E gguf_init_from_file: failed to open GGUF file '/nope.gguf' (No \
such file or directory)
0.00.021.658 E llama_model_load: error loading model: failed to load model from /nope.gguf
0.00.021.717 I srv    operator(): operator(): cleaning up before exit...
0.00.022.374 E srv  llama_server: exiting due to model loading error"""
LLAMA_PORT = """0.00.011.451 E srv         start: couldn't bind HTTP server socket, hostname: \
127.0.0.1, port: 23002
0.00.011.607 E srv  llama_server: exiting due to HTTP server error"""
UVICORN_PORT = """INFO:     Started server process [1]
ERROR:    [Errno 98] error while attempting to bind on address ('127.0.0.1', 8000): address \
already in use"""


def reason(text: str, code: int = 1) -> Reason:
    return reason_of(text.splitlines(), code)


@pytest.mark.parametrize(
    ("text", "code", "said", "hopeless"),
    [
        (VLLM_FLAG, 2, "error: unrecognized arguments: --bogus (it ended with exit code 2)", True),
        (VLLM_LENGTH, 1, "User-specified max_model_len (999999) is greater than the", True),
        (VLLM_BLOCK, 1, "ValueError: No common block size for 16 (CPU_ATTN: [M", True),
        (CUDA_MEMORY, 1, "ValueError: Free memory on device (3.1/79.1 GiB) on", False),
        (LLAMA_FLAG, 1, "error: invalid argument: --bogus (it ended with exit code 1)", True),
        (LLAMA_MODEL, 1, "gguf_init_from_file: failed to open GGUF file '/nope.gguf'", True),
        ("hello\nRuntimeError: boom\n\n", 3, "RuntimeError: boom (it ended with exit code", False),
        ("going down", 0, "going down (it ended with exit code 0)", False),
    ],
)
def test_the_line_that_tells_most_is_the_reason(
    text: str, code: int, said: str, hopeless: bool
) -> None:
    found = reason(text, code)
    assert found.text.startswith(said)
    assert found.hopeless is hopeless
    assert not found.port_taken


@pytest.mark.parametrize("text", [LLAMA_PORT, UVICORN_PORT])
def test_a_port_that_somebody_took_is_told_apart(text: str) -> None:
    found = reason(text)
    assert found.port_taken
    assert not found.hopeless


def test_a_signal_is_named_and_a_kill_is_guessed_at() -> None:
    assert reason("", -9).text == "it was ended by SIGKILL, out of memory perhaps"
    busy = "3.04.100.275 I slot      release: id  0 | task 336 | stop processing: n_tokens = 38"
    assert reason(busy, -9).text == "it was ended by SIGKILL, out of memory perhaps"
    wrong = "RuntimeError: boom"
    assert reason(f"{wrong}\n{busy}", -9).text.startswith(f"{wrong} (it was ended by SIGKILL")
    assert reason("", -11).text == "it was ended by SIGSEGV"
    assert reason("Segmentation fault", -11).text == "Segmentation fault (it was ended by SIGSEGV)"
    assert reason("", -77).text == "it was ended by 77"
    assert reason("", 2).hopeless


def test_a_reason_is_of_bounded_length() -> None:
    assert len(reason("RuntimeError: " + "x" * 5000).text) < 350


@pytest.mark.parametrize(
    ("line", "stage"),
    [
        ("INFO 11-21 [gpu_model_runner.py:1] Starting to load model x/y...", "loading"),
        ("Loading safetensors checkpoint shards:  50% Completed", "loading"),
        ("INFO 11-21 [gpu_model_runner.py:9] Graph capturing finished in 21 secs", "warming"),
        ("common_init_from_params: warming up the model with an empty run", "warming"),
        ("INFO 11-21 [kv_cache_utils.py:8] GPU KV cache size: 123 tokens", "warming"),
        ("INFO:     Started server process [12]", None),
    ],
)
def test_how_far_a_server_has_come_is_read_off_its_lines(line: str, stage: str | None) -> None:
    assert stage_of(line) == stage
