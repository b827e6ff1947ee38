"""Reading the metrics texts that engines really send, and the ones they should not."""

from __future__ import annotations

import json
import random

import pytest

from mvllm_router.engines import exposition, get
from mvllm_router.pool import Sample

VLLM = get("vllm")
LLAMA_CPP = get("llama.cpp")


def vllm_text(*engines: tuple[float, float, float]) -> str:
    """Return metrics of a vLLM with these (running, waiting, KV usage) of its engines."""

    def lines(name: str, kind: str, values: list[float], more: str = "") -> str:
        rows = "".join(
            f'vllm:{name}{{engine="{number}",model_name="tiny-deep"{more}}} {value}\n'
            for number, value in enumerate(values)
        )
        return f"# HELP vllm:{name} Some words.\n# TYPE vllm:{name} {kind}\n{rows}"

    running, waiting, usage = (list(column) for column in zip(*engines, strict=True))
    return "".join(
        (
            'http_requests_total{handler="/v1/completions",method="POST",status="2xx"} 99.0\n',
            lines("num_requests_running", "gauge", running),
            lines("num_requests_waiting", "gauge", waiting),
            lines("num_requests_waiting_by_reason", "gauge", waiting, ',reason="capacity"'),
            lines("num_requests_waiting_by_reason", "gauge", waiting, ',reason="deferred"'),
            lines("kv_cache_usage_perc", "gauge", usage),
            lines("prompt_tokens_total", "counter", [100.0 for _ in engines]),
            lines("prompt_tokens_created", "gauge", [1.795198e09 for _ in engines]),
            lines("prompt_tokens_by_source_total", "counter", [70.0 for _ in engines]),
            lines("generation_tokens_total", "counter", [20.0 for _ in engines]),
            lines("generation_tokens_created", "gauge", [1.795198e09 for _ in engines]),
            lines("request_generation_tokens_sum", "histogram", [20.0 for _ in engines]),
        )
    )


def test_one_engine_is_read_as_it_is() -> None:
    assert VLLM.read_metrics(vllm_text((2, 4, 0.033))) == Sample(2, 4, 0.033, 100, 20)


def test_engines_behind_one_address_are_summed_and_the_fullest_cache_counts() -> None:
    sample = VLLM.read_metrics(vllm_text((2, 3, 0.1), (1, 3, 0.7), (0, 0, 0.2)))
    assert sample == Sample(3, 6, 0.7, 300, 60)


def test_the_order_of_the_lines_does_not_matter() -> None:
    text = vllm_text((2, 3, 0.1), (5, 1, 0.7))
    lines = text.splitlines()
    for seed in range(20):
        random.Random(seed).shuffle(lines)
        assert VLLM.read_metrics("\n".join(lines)) == VLLM.read_metrics(text)


def test_a_server_that_has_had_no_request_says_nothing() -> None:
    text = (
        "# HELP vllm:num_requests_running Number of requests in model execution batches.\n"
        "# TYPE vllm:num_requests_running gauge\n"
        "# TYPE vllm:num_requests_waiting gauge\n"
        "# TYPE vllm:kv_cache_usage_perc gauge\n"
        'vllm:prompt_tokens_total{engine="0",model_name="tiny-deep"} 0.0\n'
    )
    assert VLLM.read_metrics(text) == Sample(prompt_tokens=0.0)


@pytest.mark.parametrize(
    "text", ["", "\n", "<html>not found</html>", "process_open_fds 12.0\n", "\x00"]
)
def test_a_text_without_the_metrics_says_nothing(text: str) -> None:
    assert VLLM.read_metrics(text) == Sample()
    assert LLAMA_CPP.read_metrics(text) == Sample()


@pytest.mark.parametrize("name", ["kv_cache_usage_perc", "gpu_cache_usage_perc"])
def test_the_cache_has_a_new_and_an_old_name(name: str) -> None:
    assert VLLM.read_metrics(f'vllm:{name}{{model_name="m"}} 0.25\n').kv_usage == 0.25


def test_the_new_name_of_the_cache_goes_before_the_old_one() -> None:
    text = "vllm:gpu_cache_usage_perc 0.9\nvllm:kv_cache_usage_perc 0.2\n"
    assert VLLM.read_metrics(text).kv_usage == 0.2


@pytest.mark.parametrize(
    "labels",
    [
        "",
        "{}",
        '{model_name="m"}',
        '{engine="0",model_name="a model with spaces"}',
        '{model_name="{braces} } 7"}',
        r'{model_name="a \"quoted\" \\ name\n",engine="0"}',
        '{model_name="größer 模型"}',
        '{model_name=""}',
        "{model_name=\"a # b, c='d'\"}",
    ],
)
def test_labels_are_passed_over_whatever_they_hold(labels: str) -> None:
    assert VLLM.read_metrics(f"vllm:num_requests_running{labels} 3.0\n").running == 3


@pytest.mark.parametrize(
    ("written", "value"),
    [("3", 3), ("3.0", 3), ("3e0", 3), ("+3", 3), ("3 1795198304000", 3), ("3\r", 3), ("\t3", 3)],
)
def test_numbers_are_read_in_each_form(written: str, value: float) -> None:
    assert VLLM.read_metrics(f"vllm:num_requests_running {written}\n").running == value


@pytest.mark.parametrize("written", ["NaN", "nan", "+Inf", "-Inf", "three", "0x3"])
def test_what_is_no_number_says_nothing(written: str) -> None:
    assert VLLM.read_metrics(f"vllm:num_requests_running {written}\n").running is None


def test_one_engine_without_a_number_does_not_hide_the_other() -> None:
    text = (
        'vllm:num_requests_running{engine="0"} NaN\nvllm:num_requests_running{engine="1"} 2.0\n'
        'vllm:kv_cache_usage_perc{engine="0"} NaN\nvllm:kv_cache_usage_perc{engine="1"} 0.5\n'
    )
    assert VLLM.read_metrics(text) == Sample(running=2.0, kv_usage=0.5)


@pytest.mark.parametrize(
    "line",
    [
        "vllm:num_requests_running_total 3",
        "vllm:num_requests_running_created 1.79e9",
        'xvllm:num_requests_running{engine="0"} 3',
        "# vllm:num_requests_running 3",
        "vllm_num_requests_running 3",
        "vllm:num_requests_running",
        'vllm:num_requests_running{engine="0"}3',
    ],
)
def test_names_that_only_look_alike_are_not_taken(line: str) -> None:
    assert VLLM.read_metrics(f"{line}\n").running is None


def test_a_text_that_was_cut_off_takes_no_number_from_another_line() -> None:
    text = 'vllm:num_requests_running{engine="0\nprocess_open_fds{a="b"} 12.0\n'
    assert VLLM.read_metrics(text).running is None
    text = "vllm:num_requests_running{engine=\nprocess_open_fds{} 12.0\n"
    assert VLLM.read_metrics(text).running is None


LLAMA_CPP_TEXT = """\
# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed, excluding cached tokens
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 77
# HELP llamacpp:prompt_tokens_cached_total Number of prompt tokens reused from the cache
# TYPE llamacpp:prompt_tokens_cached_total counter
llamacpp:prompt_tokens_cached_total 290
# HELP llamacpp:tokens_predicted_total Number of generation tokens processed
# TYPE llamacpp:tokens_predicted_total counter
llamacpp:tokens_predicted_total 138
# HELP llamacpp:tokens_predicted_seconds_total Total time spent generating tokens
# TYPE llamacpp:tokens_predicted_seconds_total counter
llamacpp:tokens_predicted_seconds_total 0.025831
# HELP llamacpp:n_busy_slots_per_decode Average number of busy slots per llama_decode() call
# TYPE llamacpp:n_busy_slots_per_decode gauge
llamacpp:n_busy_slots_per_decode 1.02
# HELP llamacpp:requests_processing Number of requests processing
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 4
# HELP llamacpp:requests_deferred Number of requests deferred
# TYPE llamacpp:requests_deferred gauge
llamacpp:requests_deferred 3
"""


def test_llama_server_tells_busy_slots_and_its_queue() -> None:
    expected = Sample(running=4, waiting=3, prompt_tokens=77, generation_tokens=138)
    assert LLAMA_CPP.read_metrics(LLAMA_CPP_TEXT) == expected


def test_a_text_that_is_a_json_string_is_read_as_well() -> None:
    quoted = json.dumps(LLAMA_CPP_TEXT)
    assert LLAMA_CPP.read_metrics(quoted) == LLAMA_CPP.read_metrics(LLAMA_CPP_TEXT)


@pytest.mark.parametrize("text", ['"', '"unterminated', '"a" "b"', '"\\ud800"'])
def test_a_broken_json_string_says_nothing(text: str) -> None:
    assert LLAMA_CPP.read_metrics(text) == Sample()


@pytest.mark.parametrize("name", ["openai", "mlx", "llama-cpp-python"])
def test_engines_without_metrics_are_not_asked_and_say_nothing(name: str) -> None:
    engine = get(name)
    assert engine.metrics_path is None
    assert engine.read_metrics(LLAMA_CPP_TEXT) == Sample()


# --- texts that are meant to keep the router busy


def test_sixteen_engines_with_all_their_histograms_are_read() -> None:
    gauges = vllm_text(*((number, 1, number / 20) for number in range(16)))
    bucket = 'vllm:e2e_request_latency_seconds_bucket{engine="0",le="0.3",model_name="tiny"} 1.0\n'
    text = bucket * 9000 + gauges + bucket * 9000
    assert len(text) > 16 * 90_000
    assert VLLM.read_metrics(text) == Sample(sum(range(16)), 16, 0.75, 1600, 320)


@pytest.mark.parametrize("end", [" 1\n", "_by_reason 1\n", '{engine="0\n'])
def test_a_metric_with_more_lines_than_there_are_engines_is_not_read(
    end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at = 0
    value = exposition._value

    def counting(rest: str) -> float | None:
        nonlocal looked_at
        looked_at += 1
        return value(rest)

    monkeypatch.setattr(exposition, "_value", counting)
    text = f"vllm:num_requests_running{end}" * 100_000 + "vllm:num_requests_waiting 7\n"
    assert VLLM.read_metrics(text) == Sample(waiting=7)
    assert looked_at <= 5000


@pytest.mark.parametrize("label", ["a" * 5000, 'a="b",' * 1000, 'a="' + '\\"' * 3000 + '"'])
def test_a_line_that_is_longer_than_any_is_passed_over(label: str) -> None:
    long = f"vllm:num_requests_running{{{label}}} 3\n"
    assert VLLM.read_metrics(long).running is None
    assert VLLM.read_metrics(long + "vllm:num_requests_running 4\n").running == 4


def test_a_value_is_taken_only_from_its_own_line() -> None:
    text = 'vllm:num_requests_running{a="b"}\n 3\nvllm:num_requests_waiting\t\n4\n'
    assert VLLM.read_metrics(text) == Sample()


@pytest.mark.parametrize("figure", ["9" * 4000, "1e400", "-1e400", "1" * 400 + ".0", "0x1p3"])
def test_a_number_that_no_float_holds_says_nothing(figure: str) -> None:
    assert VLLM.read_metrics(f"vllm:num_requests_running {figure}\n").running is None
