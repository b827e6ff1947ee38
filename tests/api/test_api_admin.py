"""Changing a running router over HTTP: draining a server, reloading the file, and who may do it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support import StartRouter, StartSim, chat, prefer, until
from wire import Client

from mvllm_router.config import ServerSpec, load
from mvllm_router.server import Router
from mvllm_router.sim.engine import SimEngine

CHAT = "/v1/chat/completions"
DRAIN, ENABLE = {"state": "drain"}, {"state": "enabled"}
PATCH_HEAD = b"PATCH /router/backends/s0 HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
Answer = tuple[int, dict[str, Any]]


async def ask(
    http: aiohttp.ClientSession, method: str, router: Router, path: str, **more: Any
) -> Answer:
    async with http.request(method, router.url + path, **more) as response:
        return response.status, await response.json()


async def patch(
    http: aiohttp.ClientSession, router: Router, name: str, body: object, **headers: str
) -> Answer:
    path = f"/router/backends/{name}"
    return await ask(http, "PATCH", router, path, json=body, headers=headers)


async def reload(http: aiohttp.ClientSession, router: Router, **headers: str) -> Answer:
    return await ask(http, "POST", router, "/router/reload", json={}, headers=headers)


async def served_by(http: aiohttp.ClientSession, router: Router) -> str:
    """Send a request; return the name of the server that answered, or the status of an error."""
    async with http.post(router.url + CHAT, json=chat(max_tokens=2)) as response:
        await response.read()
        return response.headers.get("x-router-backend", str(response.status))


def message(answer: Answer) -> str:
    return str(answer[1]["error"]["message"])


def events(router: Router, kind: str) -> list[str]:
    return [event.message for event in router.pool.events.last(99) if event.kind == kind]


@asynccontextmanager
async def running_stream(router: Router, engine: SimEngine) -> AsyncIterator[Client]:
    """A stream that is under way on `engine`, which holds it."""
    engine.hold()
    before = engine.running
    async with Client(router.url) as client:
        client.post(json.dumps(chat(stream=True, max_tokens=5)).encode())
        await engine.wait_for(lambda sim: sim.running == before + 1)
        yield client


# --- draining


async def test_a_drained_server_finishes_its_stream_and_gets_nothing_new(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engines = [await start_sim(), await start_sim()]
    router = await start_router(*engines)
    prefer(router, "s0")
    async with running_stream(router, engines[0]) as client:
        status, entry = await patch(http, router, "s0", DRAIN)
        assert (status, entry["draining"], entry["state"]) == (200, True, "drain")
        assert (entry["in_flight"], entry["status"]) == (1, True)
        assert entry["reason"] == "draining, 1 in flight"
        assert [await served_by(http, router) for _ in range(3)] == ["s1"] * 3
        engines[0].release()
        assert b"[DONE]" in await client.last_of_stream()
    await until(lambda: router.pool.backends["s0"].in_flight == 0)
    _, entry = await ask(http, "GET", router, "/router/backends/s0")
    assert (entry["state"], entry["reason"]) == ("drain", "drained")
    assert engines[0].served == 1


async def test_an_enabled_server_gets_requests_again(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    router = await start_router(await start_sim(), await start_sim())
    prefer(router, "s0")
    await patch(http, router, "s0", DRAIN)
    assert await served_by(http, router) == "s1"
    status, entry = await patch(http, router, "s0", ENABLE)
    assert (status, entry["draining"], entry["state"]) == (200, False, "up")
    assert await served_by(http, router) == "s0"


async def test_with_all_servers_drained_the_router_is_not_ready_and_requests_end_with_503(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    router = await start_router(await start_sim(), await start_sim())
    for name in ("s0", "s1"):
        assert (await ask(http, "GET", router, "/ready"))[0] == 200
        await patch(http, router, name, DRAIN)
    assert (await ask(http, "GET", router, "/ready"))[0] == 503
    async with http.post(router.url + CHAT, json=chat()) as response:
        assert response.status == 503
        assert "retry-after" in response.headers
        assert (await response.json())["error"]["code"] == "no_server_available"
    await patch(http, router, "s1", ENABLE)
    assert (await ask(http, "GET", router, "/ready"))[0] == 200
    assert await served_by(http, router) == "s1"


async def test_a_request_that_waits_goes_to_another_server_when_its_own_is_drained(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engines = [await start_sim("llama-cpp-python") for _ in range(2)]
    router = await start_router(*engines)
    prefer(router, "s0")
    async with running_stream(router, engines[0]), running_stream(router, engines[1]):
        waiting = asyncio.create_task(served_by(http, router))
        await until(lambda: router.dispatch.waiting == 1)
        await patch(http, router, "s0", DRAIN)
        engines[0].release()
        await until(lambda: router.pool.backends["s0"].in_flight == 0)
        assert router.dispatch.waiting == 1
        engines[1].release()
        assert await waiting == "s1"


async def test_a_request_that_waits_for_the_only_server_waits_until_it_is_enabled(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engine = await start_sim("llama-cpp-python")
    router = await start_router(engine)
    async with running_stream(router, engine) as client:
        waiting = asyncio.create_task(served_by(http, router))
        await until(lambda: router.dispatch.waiting == 1)
        await patch(http, router, "s0", DRAIN)
        engine.release()
        assert b"[DONE]" in await client.last_of_stream()
    await until(lambda: router.pool.backends["s0"].in_flight == 0)
    assert router.dispatch.waiting == 1
    await patch(http, router, "s0", ENABLE)
    assert await waiting == "s0"


async def test_a_request_that_waits_for_a_drained_server_ends_with_503_when_its_time_is_over(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engine = await start_sim("llama-cpp-python")
    router = await start_router(engine, queue_timeout=0.3)
    async with running_stream(router, engine):
        waiting = asyncio.create_task(served_by(http, router))
        await until(lambda: router.dispatch.waiting == 1)
        await patch(http, router, "s0", DRAIN)
        assert await waiting == "503"


async def test_a_drained_server_that_is_down_is_shown_as_down(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engine = await start_sim()
    router = await start_router(engine)
    await patch(http, router, "s0", DRAIN)
    await engine.stop()
    await until(lambda: not router.pool.backends["s0"].is_up)
    _, entry = await ask(http, "GET", router, "/router/backends/s0")
    assert (entry["state"], entry["draining"]) == ("down", True)
    assert "refused" in entry["reason"]


async def test_the_entry_of_a_server_is_that_of_the_snapshot(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    router = await start_router(await start_sim(), await start_sim(), scrape_interval=60)
    await until(lambda: all(backend.scrape for backend in router.pool.backends.values()))
    await patch(http, router, "s1", DRAIN)
    status, entry = await ask(http, "GET", router, "/router/backends/s1")
    assert status == 200
    _, snapshot = await ask(http, "GET", router, "/router/snapshot")
    assert [server["draining"] for server in snapshot["servers"]] == [False, True]
    assert entry.keys() == snapshot["servers"][1].keys()
    now = dict.fromkeys(("last_updated", "state_seconds", "sample_age_seconds"))
    assert {**entry, **now} == {**snapshot["servers"][1], **now}
    async with http.head(f"{router.url}/router/backends/s1") as response:
        assert response.status == 200


async def test_a_change_is_an_event_and_asking_twice_is_none(
    start_router: StartRouter, http: aiohttp.ClientSession
) -> None:
    router = await start_router(ServerSpec(url="http://127.0.0.1:9", name="s0"))
    for body in (DRAIN, DRAIN, ENABLE, ENABLE):
        assert (await patch(http, router, "s0", body))[0] == 200
    assert len(events(router, "drain")) == len(events(router, "enable")) == 1


# --- what is asked for


async def test_an_unknown_server_is_a_404_that_names_those_there_are(
    start_router: StartRouter, http: aiohttp.ClientSession
) -> None:
    specs = [ServerSpec(url=f"http://127.0.0.1:{n}", name=f"gpu-{n}") for n in range(1, 30)]
    router = await start_router(*specs)
    for method in ("GET", "PATCH"):
        path = "/router/backends/gpuu-7"
        answer = await ask(http, method, router, path, json=DRAIN)
        assert answer[0] == 404
        assert message(answer).startswith("There is no server `gpuu-7`. Did you mean `gpu-7`? ")
        assert "There are: gpu-1, gpu-2," in message(answer)
        assert message(answer).endswith(", ...")


async def test_names_are_percent_decoded(
    start_router: StartRouter, http: aiohttp.ClientSession
) -> None:
    router = await start_router(ServerSpec(url="http://127.0.0.1:9", name="127.0.0.1:9"))
    async with Client(router.url) as client:
        client.send(b"GET /router/backends/127%2E0.0.1%3A9 HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b" 200 " in (await client.head()).splitlines()[0]


@pytest.mark.parametrize("name", [b"a%0d%0aevil:1", b"%1b[2J", b"a/../b", b"%ff", b"%e2%80%ae"])
async def test_odd_signs_in_a_name_come_back_as_escapes_or_not_at_all(
    name: bytes,
    start_router: StartRouter,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG", "mvllm_router")
    router = await start_router(log_level="debug")
    async with Client(router.url) as client:
        client.send(b"GET /router/backends/%b HTTP/1.1\r\nhost: x\r\n\r\n" % name)
        head, body = await client.answer()
    assert b" 404 " in head.splitlines()[0]
    assert b"evil" not in head
    text = json.loads(body)["error"]["message"]
    assert text.isprintable()
    lines = [record.getMessage() for record in caplog.records if "mvllm" in record.name]
    assert [line for line in lines if not line.isprintable()] == []


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b"", 'Expected: {"state": "drain" | "enabled"}'),
        (b"{}", 'Expected: {"state": "drain" | "enabled"}'),
        (b"{", "has to be a JSON object"),
        (b"\xff", "has to be a JSON object"),
        (b'["state"]', "has to be a JSON object"),
        (b"[" * 60_000, "has to be a JSON object"),
        (b'{"state": "off"}', '`state` has to be "drain" or "enabled"'),
        (b'{"state": ["drain"]}', '`state` has to be "drain" or "enabled"'),
        (b'{"stat": "drain"}', "Unknown key `stat`. Did you mean `state`? Expected: `state`"),
        (b'{"state": "drain", "x\\n": 1}', "Unknown key `x\\n`. Expected: `state`"),
    ],
)
async def test_a_body_that_is_not_understood_changes_nothing_and_says_what_is_expected(
    body: bytes, part: str, start_router: StartRouter, http: aiohttp.ClientSession
) -> None:
    router = await start_router(ServerSpec(url="http://127.0.0.1:9", name="s0"))
    headers = {"content-type": "application/json"}
    answer = await ask(http, "PATCH", router, "/router/backends/s0", data=body, headers=headers)
    assert answer[0] == 400
    assert part in message(answer)
    assert not router.pool.backends["s0"].draining


LARGE = b'{"state": "drain"' + b" " * 2**16 + b"}"


@pytest.mark.parametrize(
    ("header", "sent"),
    [
        (b"content-length: 65537", b""),  # it need not be sent to be refused
        (b"transfer-encoding: chunked", b"%x\r\n%b\r\n0\r\n\r\n" % (len(LARGE), LARGE)),
    ],
    ids=["length", "chunked"],
)
async def test_a_body_that_is_too_large_is_a_413(
    header: bytes, sent: bytes, start_router: StartRouter
) -> None:
    router = await start_router(ServerSpec(url="http://127.0.0.1:9", name="s0"))
    async with Client(router.url) as client:
        client.send(PATCH_HEAD + header + b"\r\n\r\n" + sent)
        assert b" 413 " in (await client.head()).splitlines()[0]
    assert not router.pool.backends["s0"].draining


async def test_the_largest_body_is_taken(start_router: StartRouter) -> None:
    router = await start_router(ServerSpec(url="http://127.0.0.1:9", name="s0"))
    body = b'{"state": "drain"}'.ljust(2**16)
    async with Client(router.url) as client:
        client.send(PATCH_HEAD + b"content-length: 65536\r\n\r\n" + body)
        assert b" 200 " in (await client.head()).splitlines()[0]


async def test_a_body_that_is_no_http_is_a_400(start_router: StartRouter) -> None:
    router = await start_router(ServerSpec(url="http://127.0.0.1:9", name="s0"))
    async with Client(router.url) as client:
        client.send(PATCH_HEAD + b"transfer-encoding: chunked\r\n\r\nxyz\r\n")
        assert b" 400 " in (await client.head()).splitlines()[0]


async def test_a_body_that_does_not_come_is_a_408(start_router: StartRouter) -> None:
    spec = ServerSpec(url="http://127.0.0.1:9", name="s0")
    router = await start_router(spec, request_timeout=0.1)
    async with Client(router.url) as client:
        client.send(PATCH_HEAD + b'content-length: 18\r\n\r\n{"state": ')
        assert b" 408 " in (await client.head()).splitlines()[0]


# --- who may do it


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""],
)
async def test_what_a_form_on_another_site_can_send_changes_nothing(
    content_type: str, start_router: StartRouter, http: aiohttp.ClientSession
) -> None:
    router = await start_router(ServerSpec(url="http://127.0.0.1:9", name="s0"))
    headers = {"content-type": content_type} if content_type else {}
    skip = [] if content_type else ["content-type"]
    for method, path in (("PATCH", "/router/backends/s0"), ("POST", "/router/reload")):
        async with http.request(
            method,
            router.url + path,
            data=b'{"state": "drain"}',
            headers=headers,
            skip_auto_headers=skip,
        ) as response:
            assert response.status == 400
            text = (await response.json())["error"]["message"]
        assert "content-type: application/json" in text
    assert not router.pool.backends["s0"].draining
    assert events(router, "reload") == []


async def test_a_browser_that_asks_whether_it_may_is_told_nothing_that_allows_it(
    start_router: StartRouter, http: aiohttp.ClientSession
) -> None:
    router = await start_router()
    headers = {"origin": "http://evil.example", "access-control-request-method": "PATCH"}
    async with http.options(f"{router.url}/router/backends/s0", headers=headers) as response:
        assert response.status == 405
        assert not [name for name in response.headers if name.lower().startswith("access-control")]


async def test_a_request_from_a_web_page_needs_the_admin_key(
    start_router: StartRouter, http: aiohttp.ClientSession
) -> None:
    """A name that leads to 127.0.0.1 makes any page one of the router's own site."""
    router = await start_router(ServerSpec(url="http://127.0.0.1:9", name="s0"))
    answer = await patch(http, router, "s0", DRAIN, origin=router.url)
    assert answer[0] == 403
    assert not router.pool.backends["s0"].draining


@pytest.mark.parametrize(
    ("settings", "key", "status"),
    [
        ({}, None, 200),
        ({"api_key": "client"}, None, 401),
        ({"api_key": "client"}, "wrong", 401),
        ({"api_key": "client"}, "client", 200),
        ({"admin_key": "admin"}, None, 401),
        ({"admin_key": "admin"}, "admin", 200),
        ({"api_key": "client", "admin_key": "admin"}, "client", 403),
        ({"api_key": "client", "admin_key": "admin"}, "admin", 200),
        ({"host": "0.0.0.0"}, None, 403),
        ({"host": "0.0.0.0", "api_key": "client"}, "client", 403),
        ({"host": "0.0.0.0", "admin_key": "admin"}, "admin", 200),
    ],
)
async def test_only_who_may_change_the_router_does(
    settings: dict[str, str],
    key: str | None,
    status: int,
    start_router: StartRouter,
    http: aiohttp.ClientSession,
) -> None:
    router = await start_router(ServerSpec(url="http://127.0.0.1:9", name="s0"), **settings)
    headers = {"authorization": f"Bearer {key}"} if key else {}
    assert (await patch(http, router, "s0", DRAIN, **headers))[0] == status
    assert router.pool.backends["s0"].draining is (status == 200)
    # There is no file: who may ask is told so.
    assert (await reload(http, router, **headers))[0] == (400 if status == 200 else status)
    if status == 200:
        path = "/router/backends/s0"
        assert (await ask(http, "GET", router, path, headers=headers))[0] == 200


async def test_who_has_no_key_does_not_learn_which_servers_there_are(
    start_router: StartRouter, http: aiohttp.ClientSession
) -> None:
    spec = ServerSpec(url="http://127.0.0.1:9", name="secret-gpu")
    router = await start_router(spec, api_key="client")
    for method in ("GET", "PATCH", "DELETE"):
        answer = await ask(http, method, router, "/router/backends/x", json=DRAIN)
        assert answer[0] == 401
        assert "secret-gpu" not in str(answer)


# --- methods


@pytest.mark.parametrize(
    ("path", "method", "allow"),
    [
        ("/health", "POST", "GET, HEAD"),
        ("/v1/models/tiny", "DELETE", "GET, HEAD"),
        ("/router/snapshot", "PATCH", "GET, HEAD"),
        ("/router/backends/s0", "POST", "GET, HEAD, PATCH, DELETE"),
        ("/router/reload", "GET", "POST"),
        ("/router/reload", "HEAD", "POST"),
    ],
)
async def test_another_method_is_a_405_that_lists_those_that_are_taken(
    path: str, method: str, allow: str, start_router: StartRouter, http: aiohttp.ClientSession
) -> None:
    router = await start_router()
    async with http.request(method, router.url + path) as response:
        assert response.status == 405
        assert response.headers["allow"] == allow
        if method != "HEAD":
            text = (await response.json())["error"]["message"]
            assert text == f"{path} takes {allow}, not {method}."


@pytest.mark.parametrize("path", ["/router", "/router/", "/router/backends/"])
async def test_a_path_without_a_name_is_no_route(
    path: str, start_router: StartRouter, http: aiohttp.ClientSession
) -> None:
    router = await start_router()
    assert (await ask(http, "PATCH", router, path, json=DRAIN))[0] == 404


# --- reloading


class File:
    """A servers.toml and the router that runs with it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.write("gpu-1")

    def write(self, *names: str, more: str = "", **keys: str) -> None:
        extra = "".join(f", {key} = {value}" for key, value in keys.items())
        servers = ", ".join(
            f'{{ url = "http://127.0.0.1:{n}", name = "{name}"{extra} }}'
            for n, name in enumerate(names, 1)
        )
        self.path.write_text(f"[servers]\nservers = [{servers}]\n[config]\nport = 0\n{more}")


@pytest.fixture
def file(tmp_path: Path) -> File:
    return File(tmp_path / "servers.toml")


@pytest.fixture
async def router(file: File, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Router]:
    """A router whose file is read only when it is told to."""

    async def unwatched(self: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("mvllm_router.control.reload.FileWatch.run", unwatched)
    router = Router(load(file.path), lambda: load(file.path))
    await router.start()
    yield router
    await router.stop(1)


async def test_a_reload_answers_with_what_has_changed_and_it_is_live(
    file: File, router: Router, http: aiohttp.ClientSession
) -> None:
    file.write("gpu-1", "gpu-2", more='max_retries = 7\nlog_format = "json"\n', weight="2.0")
    status, document = await reload(http, router)
    assert (status, document) == (
        200,
        {
            "changed": {
                "added": ["gpu-2"],
                "removed": [],
                "updated": {"gpu-1": ["weight"]},
                "keys": [],
                "settings": ["max_retries"],
                "launches": {},
                "needs_restart": ["log_format"],
            }
        },
    )
    assert list(router.pool.backends) == ["gpu-1", "gpu-2"]
    assert router.relay.limits.max_retries == 7
    assert len(events(router, "reload")) == 1


async def test_a_reload_that_changes_nothing_says_so(
    router: Router, http: aiohttp.ClientSession
) -> None:
    status, document = await reload(http, router)
    assert status == 200
    assert not any(document["changed"].values())
    assert events(router, "reload") == ["configuration read again, nothing has changed"]


async def test_a_file_that_is_refused_is_a_400_with_its_problems_and_changes_nothing(
    file: File, router: Router, http: aiohttp.ClientSession
) -> None:
    before = router.config
    file.write("gpu-1", "gpu-2", more="max_retires = 1\n")
    status, document = await reload(http, router)
    assert status == 400
    assert "did you mean `max_retries`" in document["error"]["message"]
    (problem,) = document["problems"]
    assert (problem["label"], problem["line"], problem["column"]) == ("error", 5, 1)
    assert "max_retires" in problem["message"]
    assert router.config is before
    assert list(router.pool.backends) == ["gpu-1"]
    assert "is refused" in events(router, "reload")[0]


async def test_a_file_that_is_gone_is_a_400(
    file: File, router: Router, http: aiohttp.ClientSession
) -> None:
    file.path.unlink()
    answer = await reload(http, router)
    assert answer[0] == 400
    assert "servers.toml" in message(answer)
    assert list(router.pool.backends) == ["gpu-1"]


async def test_a_reload_takes_no_keys(router: Router, http: aiohttp.ClientSession) -> None:
    answer = await ask(http, "POST", router, "/router/reload", json={"file": "/etc/passwd"})
    assert answer[0] == 400
    assert "Unknown key `file`" in message(answer)


async def test_without_a_file_there_is_nothing_to_reload(
    start_router: StartRouter, http: aiohttp.ClientSession
) -> None:
    answer = await reload(http, await start_router())
    assert answer[0] == 400
    assert "without a file" in message(answer)


async def test_draining_outlasts_a_reload(
    file: File, router: Router, http: aiohttp.ClientSession
) -> None:
    await patch(http, router, "gpu-1", DRAIN)
    file.write("gpu-1", "gpu-2", weight="3.0")
    await reload(http, router)
    _, entry = await ask(http, "GET", router, "/router/backends/gpu-1")
    assert (entry["weight"], entry["draining"]) == (3.0, True)
    _, entry = await ask(http, "GET", router, "/router/backends/gpu-2")
    assert entry["draining"] is False


async def test_a_client_that_leaves_does_not_end_its_reload_half_way(
    file: File, router: Router
) -> None:
    file.write("gpu-1", "gpu-2")
    async with router.live.lock:  # another one is under way
        async with Client(router.url) as client:
            client.post(b"{}", b"/router/reload")
            await until(lambda: any(connection.busy for connection in connections(router)))
            await until(lambda: bool(router.live.lock._waiters))
        await until(lambda: not connections(router))
    await until(lambda: list(router.pool.backends) == ["gpu-1", "gpu-2"])


def connections(router: Router) -> list[Any]:
    return list(router.front.connections)


async def test_a_stop_waits_for_a_reload_that_has_begun(
    file: File, router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or else the reload would start watches that nobody stops."""
    done: list[str] = []
    go_on = asyncio.Event()
    stop = router.watches.stop

    async def slow_follow(*_: object) -> None:
        await go_on.wait()
        done.append("follow")

    async def noted_stop() -> None:
        done.append("stop")
        await stop()

    monkeypatch.setattr(router.watches, "follow", slow_follow)
    monkeypatch.setattr(router.watches, "stop", noted_stop)
    file.write("gpu-1", "gpu-2")
    reloading = asyncio.create_task(router.live.reload())
    await until(lambda: "gpu-2" in router.pool.backends)
    stopping = asyncio.create_task(router.stop(1))
    await until(lambda: all(task.done() for task in router._tasks))
    await asyncio.sleep(0.01)  # long enough for a stop that does not wait
    go_on.set()
    await stopping
    assert (await reloading).refused == ""
    assert done[:2] == ["follow", "stop"]


async def test_a_router_that_stops_reloads_no_more(file: File, router: Router) -> None:
    file.write("gpu-1", "gpu-2")
    router.live.stopping = True
    assert "stopping" in (await router.live.reload()).refused
    assert list(router.pool.backends) == ["gpu-1"]
