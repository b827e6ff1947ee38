"""Which paths are relayed, where they go, and what metrics call them."""

from __future__ import annotations

import pytest

from mvllm_router.proxy.routes import Route, relayed

OPENAI = ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"]
OTHERS = ["/v1/messages", "/v1/rerank", "/v1/score", "/rerank", "/score", "/pooling"]
TOKENS = ["/tokenize", "/detokenize"]


@pytest.mark.parametrize("path", [*OPENAI, *OTHERS, *TOKENS])
def test_a_known_path_goes_where_it_says_and_takes_json(path: str) -> None:
    end_is_marked = path in [
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/messages",
    ]
    assert relayed(path) == Route(path, path, json=True, end_is_marked=end_is_marked)


@pytest.mark.parametrize("name", ["chat/completions", "completions", "embeddings"])
def test_the_short_form_is_the_same_route(name: str) -> None:
    assert relayed(f"/{name}") == relayed(f"/v1/{name}")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/audio/transcriptions",
        "/v1/images/generations",
        "/v1/responses/resp_1/cancel",
        "/v1/chat/completions/",
        "/v1/files/..hidden",
        "/v1/files/a..b/.well-known",
        "/v1/files/...;x",
        "/v1/files/..a;/b",
        "/v1/files/x;a=..",
        "/v1/models/org%2Fname:q4_K/versions/1.0",
        "/v1/",
    ],
)
def test_all_else_under_v1_is_relayed_under_one_name(path: str) -> None:
    assert relayed(path) == Route(label="/v1/*", path=path, json=False)


@pytest.mark.parametrize(
    "path",
    [
        *("/", "", "/v1", "/v2/embed", "/v1x/models", "//v1/completions", "/V1/completions"),
        *("/slots", "/props", "/sleep", "/metrics", "/router/snapshot"),
        *("/api/v1/completions", "/chat", "/messages", "v1/x"),
    ],
)
def test_nothing_else_is_relayed(path: str) -> None:
    assert relayed(path) is None


@pytest.mark.parametrize(
    "path",
    [
        "/v1/../metrics",
        "/v1/./../sleep",
        "/v1/files/../../reset_prefix_cache",
        "/v1/..",
        "/v1/.",
        "/v1/%2e%2e/metrics",
        "/v1/%2E./metrics",
        "/v1/..%2fmetrics",
        "/v1/x%2f..%2f..%2fmetrics",
        "/v1/..\\metrics",
        "/v1/%5c..%5c..%5cmetrics",
        "/v1/%252e%252e/metrics",
        "/v1/..;/metrics",
        "/v1/..;x=y/metrics",
        "/v1/x/.;/../..;",
        "/v1/..%3b/metrics",
        "/v1/..%00/metrics",
        "/v1/..%09/metrics",
        "/v1/..%20/metrics",
        "/v1/..%0d%0a/metrics",
        "/v1/files#/../../metrics",
    ],
)
def test_no_way_leads_out_of_v1(path: str) -> None:
    assert relayed(path) is None


def test_clients_cannot_invent_names_for_metrics() -> None:
    labels = {route.label for number in range(1000) if (route := relayed(f"/v1/x{number}"))}
    assert labels == {"/v1/*"}
