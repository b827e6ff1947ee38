"""Servers that are added, changed and removed while the router runs, and what the file does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from admin_kit import Api, admin_events, message, with_file
from support import StartRouter, StartSim, chat, until
from wire import Client

from mvllm_router.config import ServerSpec
from mvllm_router.server import Router

NOBODY = ServerSpec(url="http://127.0.0.1:9", name="s0", weight=2.0)
FILE = """\
[servers]
servers = [
    { url = "http://127.0.0.1:1", name = "a" },
    { url = "http://127.0.0.1:2", name = "b", weight = 2.0 },
]
[config]
port = 0
"""


@pytest.fixture
async def router(tmp_path: Path) -> AsyncIterator[Router]:
    """A router with a file that names `a` and `b`."""
    router = with_file(tmp_path / "servers.toml", FILE)
    await router.start()
    yield router
    await router.stop(1)


@pytest.fixture
def api(http: aiohttp.ClientSession, router: Router) -> Api:
    return Api(http, router)


def rewrite(router: Router, before: str, after: str) -> None:
    path = router.config.path
    assert path is not None
    path.write_text(path.read_text().replace(before, after))


def names(router: Router) -> list[str]:
    return list(router.pool.backends)


# --- adding


async def test_an_added_server_gets_requests(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    router = await start_router()
    engine = await start_sim()
    body = {"url": engine.url, "name": "new", "tags": ["x"], "weight": 2}
    api = Api(http, router)
    status, entry = await api.add(body)
    assert (status, entry["name"], entry["tags"], entry["weight"]) == (201, "new", ["x"], 2.0)
    assert api.etag == entry["etag"]
    await until(lambda: router.pool.backends["new"].is_up)
    async with http.post(f"{router.url}/v1/chat/completions", json=chat()) as response:
        assert (response.status, response.headers["x-router-backend"]) == (200, "new")
    assert admin_events(router) == [("new", "added, asked for from 127.0.0.1")]


async def test_an_added_server_is_called_by_its_address_unless_it_has_a_name(api: Api) -> None:
    assert (await api.add({"url": "http://127.0.0.1:7/"}))[1]["name"] == "127.0.0.1:7"


async def test_keys_and_headers_of_an_added_server_are_not_shown_again(api: Api) -> None:
    secrets = {"api_key": "k-secret", "headers": {"x-team": "h-secret"}}
    status, entry = await api.add({"url": "http://127.0.0.1:7", "name": "new", **secrets})
    assert status == 201
    spec = api.router.pool.backends["new"].spec
    assert (spec.api_key, spec.headers) == ("k-secret", (("x-team", "h-secret"),))
    assert "secret" not in json.dumps([entry, await api.get("/router/snapshot")])


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ({}, "the server has no `url`"),
        ({"url": "gpu 1"}, "the URL has white space in it"),
        ({"url": 1}, "`url` must be a string"),
        ({"url": "http://x", "weight": 0}, "`weight` must be a number from 0.001 to 1000"),
        ({"url": "http://x", "max_concurrent_requests": 0}, "`max_concurrent_requests` must be"),
        ({"url": "http://x", "name": "a b"}, "`name` may hold letters"),
        ({"url": "http://x", "engine": "vlm"}, "did you mean `vllm`?"),
        ({"url": "http://x", "models": "m"}, "`models` must be an array of names"),
        ({"url": "http://x", "wieght": 1}, "Unknown key `wieght`. Did you mean `weight`?"),
        ({"url": "http://x", "api_key": "a\nb"}, "control character"),
        ({"url": "http://x", "write": "yes"}, "`write` has to be true or false"),
        # They would let who has the admin key read files and variables of the machine.
        ({"url": "http://x", "api_key_env": "HOME"}, "Unknown key `api_key_env`"),
        ({"url": "https://x", "tls_ca": "/etc/passwd"}, "Unknown key `tls_ca`"),
    ],
)
async def test_a_server_that_breaks_the_rules_of_the_file_is_not_added(
    body: object, part: str, api: Api
) -> None:
    answer = await api.add(body)
    assert answer[0] == 400
    assert part in message(answer)
    assert names(api.router) == ["a", "b"]
    assert admin_events(api.router) == []


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ({"url": "http://127.0.0.1:7", "name": "a"}, "There is a server `a` already"),
        ({"url": "http://127.0.0.1:1/", "name": "c"}, "`a` has this URL already"),
    ],
)
async def test_a_server_that_is_there_already_is_a_409(body: object, part: str, api: Api) -> None:
    answer = await api.add(body)
    assert answer[0] == 409
    assert part in message(answer)
    assert names(api.router) == ["a", "b"]


# --- changing


async def test_a_weight_and_a_limit_are_live_at_once(api: Api) -> None:
    status, entry = await api.patch("b", {"weight": 0.5, "max_concurrent_requests": 10})
    assert status == 200
    shown = (entry["weight"], entry["max_concurrent_requests"], entry["max_capacity"])
    assert shown == (0.5, 10, 5)
    assert api.router.pool.backends["b"].capacity == 5.0
    assert admin_events(api.router) == [
        ("b", "weight 2 -> 0.5, max_concurrent_requests none -> 10, asked for from 127.0.0.1")
    ]


async def test_a_limit_can_be_taken_back(api: Api) -> None:
    await api.patch("b", {"max_concurrent_requests": 10})
    _, entry = await api.patch("b", {"max_concurrent_requests": None})
    assert (entry["max_concurrent_requests"], entry["max_capacity"]) == (None, 16)
    assert await api.changes() == 0


async def test_a_change_keeps_the_server_and_its_counts(api: Api) -> None:
    before = api.router.pool.backends["b"]
    await api.patch("b", {"weight": 0.5})
    assert api.router.pool.backends["b"] is before


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ({"weight": 0}, "`weight` must be a number from 0.001 to 1000, but it is 0"),
        ({"weight": "2"}, "write it without quotes"),
        ({"weight": None}, "`weight` must be a number"),
        ({"weight": True}, "`weight` must be a number"),
        ({"weight": 1e400}, "has to be a JSON object"),  # infinity is no JSON
        ({"max_concurrent_requests": 1.5}, "`max_concurrent_requests` must be a whole number"),
        ({"weight": 2, "state": "off"}, "`state` has to be"),
        ({"weight": 2, "url": "http://x"}, "Unknown key `url`"),
        ({"weight": 2, "write": 1}, "`write` has to be true or false"),
    ],
)
async def test_a_change_that_is_not_understood_changes_nothing(
    body: object, part: str, api: Api
) -> None:
    answer = await api.patch("b", body)
    assert answer[0] == 400
    assert part in message(answer)
    assert api.router.pool.backends["b"].spec.weight == 2.0
    assert admin_events(api.router) == []


# --- removing


async def test_what_runs_on_a_removed_server_finishes(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engine = await start_sim()
    router = await start_router(engine)
    backend = router.pool.backends["s0"]
    engine.hold()
    async with Client(router.url) as client:
        client.post(json.dumps(chat(stream=True, max_tokens=5)).encode())
        await engine.wait_for(lambda sim: sim.running == 1)
        assert await Api(http, router).remove("s0") == (200, {"removed": "s0"})
        assert backend.in_flight == 1
        assert names(router) == []
        engine.release()
        assert b"[DONE]" in await client.last_of_stream()
    await until(lambda: backend.in_flight == 0)


async def test_a_removed_server_is_unknown(api: Api) -> None:
    await api.remove("a")
    assert admin_events(api.router) == [("a", "removed, asked for from 127.0.0.1")]
    for answer in (await api.remove("a"), await api.patch("a", {"weight": 1})):
        assert answer[0] == 404
        assert "There are: b" in message(answer)


async def test_a_removal_takes_no_other_keys(api: Api) -> None:
    assert (await api.remove("a", {"force": True}))[0] == 400
    assert names(api.router) == ["a", "b"]


# --- the file


async def test_changes_outlast_a_reload_of_the_file(api: Api) -> None:
    await api.add({"url": "http://127.0.0.1:7", "name": "new"})
    await api.patch("b", {"weight": 0.5})
    await api.remove("a")
    rewrite(api.router, 'name = "b"', 'name = "b", tags = ["x"]')
    _, document = await api.reload()
    assert document["changed"]["updated"] == {"b": ["tags"]}
    assert names(api.router) == ["b", "new"]
    spec = api.router.pool.backends["b"].spec
    assert (spec.weight, spec.tags) == (0.5, ("x",))
    assert await api.changes() == 3


async def test_what_the_file_comes_to_say_itself_is_no_live_change(api: Api) -> None:
    await api.patch("b", {"weight": 0.5})
    assert await api.changes() == 1
    rewrite(api.router, "weight = 2.0", "weight = 0.5")
    assert not any((await api.reload())[1]["changed"].values())
    assert await api.changes() == 0


async def test_draining_is_no_change_of_the_configuration(api: Api) -> None:
    await api.patch("b", {"state": "drain"})
    assert await api.changes() == 0
    assert admin_events(api.router) == [("b", "drain, asked for from 127.0.0.1")]


async def test_a_change_that_changes_nothing_is_no_event(api: Api) -> None:
    await api.patch("b", {"state": "enabled", "weight": 2})
    assert admin_events(api.router) == []


# --- two who change the same thing


async def test_a_change_of_what_somebody_else_has_changed_is_a_412(api: Api) -> None:
    seen = (await api.get("/router/backends/b"))["etag"]
    assert api.etag == seen
    assert (await api.patch("b", {"weight": 1.5}))[0] == 200
    for answer in (
        await api.patch("b", {"weight": 9, "state": "drain"}, if_match=seen),
        await api.remove("b", if_match=seen),
    ):
        assert (answer[0], answer[1]["error"]["code"]) == (412, "changed_since")
    backend = api.router.pool.backends["b"]
    assert (backend.spec.weight, backend.draining) == (1.5, False)
    assert (await api.patch("b", {"weight": 9}, if_match=backend.etag))[0] == 200


@pytest.mark.parametrize("change", ["drain", "reload"])
async def test_every_change_of_a_server_gives_it_another_etag(change: str, api: Api) -> None:
    seen = (await api.get("/router/backends/b"))["etag"]
    if change == "drain":
        await api.patch("b", {"state": "drain"})
    else:
        rewrite(api.router, "weight = 2.0", "weight = 3.0")
        await api.reload()
    assert (await api.get("/router/backends/b"))["etag"] != seen
    assert (await api.get("/router/backends/a"))["etag"] != seen


async def test_of_two_writers_who_have_seen_the_same_one_wins(api: Api) -> None:
    seen = (await api.get("/router/backends/b"))["etag"]
    answers = await asyncio.gather(
        *(api.patch("b", {"weight": weight}, if_match=seen) for weight in (3, 4, 5))
    )
    assert sorted(status for status, _ in answers) == [200, 412, 412]
    (won,) = [entry["weight"] for status, entry in answers if status == 200]
    assert api.router.pool.backends["b"].spec.weight == won


async def test_a_star_matches_whatever_is_there_and_one_of_several_is_enough(api: Api) -> None:
    assert (await api.patch("b", {"weight": 3}, if_match="*"))[0] == 200
    seen = (await api.get("/router/backends/b"))["etag"]
    assert (await api.patch("b", {"weight": 4}, if_match=f'"x", {seen}'))[0] == 200


async def test_an_addition_and_a_reload_match_the_whole_configuration(api: Api) -> None:
    await api.reload()
    seen = api.etag
    assert seen
    rewrite(api.router, "weight = 2.0", "weight = 3.0")
    assert (await api.reload(if_match=seen))[0] == 200
    assert (await api.reload(if_match=seen))[0] == 412
    new = {"url": "http://127.0.0.1:7", "name": "new"}
    assert (await api.add(new, if_match=seen))[0] == 412
    assert names(api.router) == ["a", "b"]
    assert (await api.add(new, if_match=api.router.live.etag))[0] == 201


async def test_two_who_add_the_same_server_add_it_once(api: Api) -> None:
    new = {"url": "http://127.0.0.1:7", "name": "new"}
    answers = await asyncio.gather(api.add(new), api.add(new))
    assert sorted(status for status, _ in answers) == [201, 409]
    assert names(api.router) == ["a", "b", "new"]


async def test_a_router_that_stops_is_not_changed_any_more(api: Api) -> None:
    api.router.live.stopping = True
    assert "stopping" in message(await api.patch("b", {"weight": 3}))
    assert api.router.pool.backends["b"].spec.weight == 2.0


# --- who may


@pytest.mark.parametrize("key", [None, "client", "wrong"])
async def test_only_the_admin_key_adds_and_removes(
    key: str | None, start_router: StartRouter, http: aiohttp.ClientSession
) -> None:
    router = await start_router(NOBODY, api_key="client", admin_key="admin")
    headers = {"authorization": f"Bearer {key}"} if key else {}
    status = 403 if key == "client" else 401
    api = Api(http, router)
    assert (await api.add({"url": "http://127.0.0.1:7"}, **headers))[0] == status
    assert (await api.remove("s0", **headers))[0] == status
    assert names(router) == ["s0"]
    assert (await api.remove("s0", authorization="Bearer admin"))[0] == 200


@pytest.mark.parametrize("what", ["tags", "models", "headers"])
async def test_what_no_answer_could_repeat_is_refused(
    api: Api, router: Router, http: aiohttp.ClientSession, what: str
) -> None:
    half = '["\\ud800"]' if what == "tags" else '{"x": "\\ud800"}'
    body = f'{{"url": "http://127.0.0.1:7", "{what}": {half}}}'
    json_type = {"content-type": "application/json"}
    url = f"{router.url}/router/backends"
    async with http.post(url, data=body.encode(), headers=json_type) as answer:
        assert answer.status == 400
    assert names(router) == ["a", "b"]
    await api.get("/router/snapshot")
    await api.get("/router/config")


async def test_a_change_whose_client_has_left_is_told_of(router: Router) -> None:
    async with Client(router.url) as client:
        body = b'{"weight": 5}'
        head = b"PATCH /router/backends/a HTTP/1.1\r\nhost: r\r\ncontent-type: application/json\r\n"
        async with router.live.lock:
            client.send(head + b"content-length: %d\r\n\r\n" % len(body) + body)
            await until(
                lambda: router.live.lock._waiters is not None and bool(router.live.lock._waiters)
            )
            client.writer.transport.abort()
            await until(lambda: not router.front.connections)
    await until(lambda: router.pool.backends["a"].spec.weight == 5)
    assert [backend for backend, _ in admin_events(router)] == ["a"]
