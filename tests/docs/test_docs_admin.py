"""docs/admin.md names every key of what the admin API answers and takes, with a curl for each."""

from __future__ import annotations

import re

from docs_text import commands, text_of
from pool_kit import add_up, new_pool

from mvllm_router.api.config import config_document
from mvllm_router.api.explain import explain_document
from mvllm_router.api.requests import requests_document
from mvllm_router.api.wanted import SERVER_KEYS
from mvllm_router.config import Config, ServerSpec, Settings
from mvllm_router.policies import Policies, Supposed
from mvllm_router.pool.requests import Ended
from mvllm_router.proxy.dispatch import Dispatch, QueueRules
from mvllm_router.server import Router

PAGE = text_of("docs/admin.md")
CURLS = [line for line in commands(PAGE) if line.startswith("curl ")]
ROUTER = Router(Config((ServerSpec(url="http://gpu1:8000", name="gpu1"),), Settings()))


def about(route: str) -> str:
    """The paragraph on a route."""
    return PAGE.split(f"**`{route}`**", 1)[1].split("\n\n")[0]


def missing(document: object, route: str) -> set[str]:
    assert isinstance(document, dict)
    keys = {key for key in document if isinstance(key, str)}
    return {key for key in keys if f"`{key}`" not in about(route)}


def asked(line: str) -> tuple[str, str]:
    method = re.search(r"-X (\w+)", line)
    path = re.search(r"127\.0\.0\.1:8888([^\s'?]*)", line)
    assert path is not None
    return method[1] if method else "GET", path[1]


def test_there_is_a_curl_for_each_route_and_each_method_of_it() -> None:
    shown = {
        (method, re.sub(r"/(backends|launch|logs)/.+", r"/\1/{name}", path))
        for method, path in map(asked, CURLS)
    }
    wanted = {
        (method, path)
        for path, own in ROUTER.app.own.table.items()
        if path.startswith("/router/")
        for method in own.methods
        if method != "HEAD"
    }
    assert shown == wanted


async def test_every_key_of_a_request_is_described() -> None:
    pool = new_pool()
    pool.requests.add(
        Ended(0.0, 1.0, "", "", "", "m", 200, "", "", [add_up(pool, "a")], [], 1, None, None, "")
    )
    document = await requests_document(pool)
    (request,) = document["requests"]  # type: ignore[misc]
    (attempt,) = request["tried"]
    for part in (document, request, attempt):
        assert not missing(part, "GET /router/requests")


def test_every_key_of_an_event_is_described() -> None:
    pool = new_pool()
    add_up(pool, "a")
    assert not missing(pool.events.last(1)[0].document(), "GET /router/events")


def test_every_key_of_the_configuration_is_described() -> None:
    document = config_document(ROUTER.live)
    assert not missing(document, "GET /router/config")
    for setting in document["settings"].values():  # type: ignore[attr-defined]
        assert not missing(setting, "GET /router/config")
    for key in ("from", "place", "changed"):
        assert key in document["servers"][0]  # type: ignore[index]
        assert f"`{key}`" in about("GET /router/config")


def test_every_key_of_an_explanation_is_described() -> None:
    pool = new_pool()
    add_up(pool, "a", "m")
    dispatch = Dispatch(pool, Policies(), QueueRules())
    document = explain_document(pool, dispatch, Supposed("m"))
    assert not missing(document, "POST /router/explain")
    (candidate,) = document["candidates"]  # type: ignore[misc]
    assert not missing(candidate, "POST /router/explain")


def test_every_key_of_a_server_that_can_be_added_is_named() -> None:
    for key in SERVER_KEYS:
        assert f"`{key}`" in about("POST /router/backends")
