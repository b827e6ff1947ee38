"""Changes that are to be in the file as well: written whole, live once, or not made at all."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
from collections.abc import AsyncIterator
from importlib.metadata import EntryPoint
from pathlib import Path

import aiohttp
import pytest
from admin_kit import Api, admin_events, message, with_file
from support import StartRouter, until

from mvllm_router.config import POLICY_PLUGINS, ServerSpec, load
from mvllm_router.control import edit as module
from mvllm_router.policies import book
from mvllm_router.server import Router

FILE = """\
# mine
[servers]
servers = [
    { url = "http://127.0.0.1:1", name = "a" },  # first
    { url = "http://127.0.0.1:2", name = "b", weight = 2.0 },
]
[config]
port = 0
"""
NEW = {"url": "http://127.0.0.1:7", "name": "new", "tags": ["x"]}
needs_modes = pytest.mark.skipif(sys.platform == "win32", reason="files have no such modes there")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "servers.toml"


@pytest.fixture
async def api(path: Path, http: aiohttp.ClientSession) -> AsyncIterator[Api]:
    """A router whose file is watched, as it is."""
    router = with_file(path, FILE)
    await router.start()
    yield Api(http, router)
    await router.stop(1)


def written(path: Path, content: str) -> Path:
    """Let somebody else write the file."""
    path.write_bytes(content.encode())
    return path


def behind_a_link(path: Path) -> Path:
    """Let the file be reached through a link; return where it is then."""
    real = path.rename(path.with_name("real.toml"))
    path.symlink_to(real)
    real.chmod(0o640)
    return real


def content_of(path: Path) -> bytes:
    return path.read_bytes()


def files_beside(path: Path) -> list[str]:
    return sorted(one.name for one in path.parent.iterdir())


def text(api: Api) -> str:
    path = api.router.config.path
    assert path is not None
    return path.read_text(encoding="utf-8")


def offer_policy(monkeypatch: pytest.MonkeyPatch, name: str, policy: type) -> None:
    """Let a policy be installed under this name, as a package would."""

    def entry_points(**select: str) -> list[EntryPoint]:
        entry = EntryPoint(name, f"{policy.__module__}:{policy.__qualname__}", POLICY_PLUGINS)
        return [entry] if select.get("name", name) == name else []

    monkeypatch.setattr("importlib.metadata.entry_points", entry_points)
    monkeypatch.setattr(book, "entry_points", entry_points)


def names(api: Api) -> list[str]:
    return list(api.router.pool.backends)


async def test_an_added_server_is_in_the_file_and_no_live_change(api: Api, path: Path) -> None:
    status, entry = await api.add({**NEW, "write": True})
    assert (status, entry["written"]) == (201, str(path))
    line = '    { url = "http://127.0.0.1:7", name = "new", tags = ["x"] },\n'
    assert text(api) == FILE.replace("weight = 2.0 },\n", "weight = 2.0 },\n" + line)
    assert names(api) == ["a", "b", "new"]
    assert await api.changes() == 0
    (event,) = admin_events(api.router)
    assert event == ("new", f"added, written to {path}, asked for from 127.0.0.1")


async def test_a_changed_value_is_in_the_file_and_no_live_change(api: Api) -> None:
    status, entry = await api.patch("b", {"weight": 0.5, "write": True})
    assert (status, entry["weight"]) == (200, 0.5)
    assert text(api) == FILE.replace("weight = 2.0", "weight = 0.5")
    assert await api.changes() == 0


async def test_what_was_changed_before_is_written_as_well(api: Api) -> None:
    await api.patch("b", {"weight": 0.5})
    await api.patch("b", {"max_concurrent_requests": 4})
    assert text(api) == FILE
    assert (await api.patch("b", {"write": True}))[0] == 200
    after = "weight = 0.5, max_concurrent_requests = 4"
    assert text(api) == FILE.replace("weight = 2.0", after)
    assert await api.changes() == 0


async def test_an_added_server_can_be_written_later(api: Api) -> None:
    await api.add(NEW)
    await api.patch("new", {"weight": 3, "write": True})
    assert 'name = "new", weight = 3.0, tags = ["x"]' in text(api)
    assert await api.changes() == 0


async def test_a_removed_server_is_out_of_the_file(api: Api, path: Path) -> None:
    assert await api.remove("a", {"write": True}) == (200, {"removed": "a", "written": str(path)})
    assert text(api) == FILE.replace(
        '    { url = "http://127.0.0.1:1", name = "a" },  # first\n', ""
    )
    assert names(api) == ["b"]
    assert await api.changes() == 0


async def test_a_server_that_was_removed_before_can_be_taken_out_of_the_file_later(
    api: Api,
) -> None:
    await api.remove("a")
    assert (await api.remove("a", {"write": True}))[0] == 200
    assert "127.0.0.1:1" not in text(api)
    assert await api.changes() == 0


async def test_a_server_that_is_not_in_the_file_is_only_removed(api: Api) -> None:
    await api.add(NEW)
    assert await api.remove("new", {"write": True}) == (200, {"removed": "new"})
    assert text(api) == FILE
    assert await api.changes() == 0


async def test_another_server_takes_the_place_of_a_removed_one(api: Api) -> None:
    await api.remove("a")
    await api.add({"url": "http://127.0.0.1:7", "name": "a", "write": True})
    assert "127.0.0.1:1" not in text(api)
    assert (names(api), await api.changes()) == (["b", "a"], 0)


async def test_other_changes_stay_live_beside_the_file(api: Api) -> None:
    await api.patch("a", {"weight": 5})
    await api.patch("b", {"weight": 0.5, "write": True})
    assert "weight = 5" not in text(api)
    assert api.router.pool.backends["a"].spec.weight == 5.0
    assert await api.changes() == 1


async def test_the_watch_makes_nothing_of_it_a_second_time(api: Api) -> None:
    await until(lambda: api.router.file_watch.ready.is_set())
    backend = api.router.pool.backends["a"]
    for weight in (0.5, 0.6):
        await api.patch("b", {"weight": weight, "write": True})
    etag = api.router.live.etag
    count = api.router.pool.events.newest
    watch = api.router.file_watch
    await until(lambda: watch._seen == module_hash(api))
    assert (api.router.live.etag, api.router.pool.events.newest) == (etag, count)
    assert api.router.pool.backends["a"] is backend


def module_hash(api: Api) -> bytes | None:
    from mvllm_router.control.reload import content_hash

    assert api.router.config.path is not None
    return content_hash(api.router.config.path)


@needs_modes
async def test_the_files_mode_and_a_link_to_it_stay(api: Api, path: Path) -> None:
    real = behind_a_link(path)
    assert (await api.patch("b", {"weight": 0.5, "write": True}))[0] == 200
    assert os.readlink(path) == str(real)
    assert "weight = 0.5" in text(api)
    assert stat.S_IMODE(os.stat(real).st_mode) == 0o640
    assert files_beside(path) == ["real.toml", "servers.toml"]


async def test_what_somebody_has_edited_meanwhile_is_kept_and_taken_in(
    api: Api, path: Path
) -> None:
    edited = FILE.replace("# mine", "# ours").replace("port = 0", "port = 0\nmax_retries = 7")
    written(path, edited)
    await api.patch("b", {"weight": 0.5, "write": True})
    assert "# ours" in text(api)
    assert api.router.config.settings.max_retries == 7


# --- what is not written changes nothing


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (FILE + "max_retires = 1\n", "did you mean `max_retries`?"),
        (FILE + "x = = 1\n", "not valid TOML"),
        (FILE.replace("# mine", "# mine\r"), "line ends of two kinds"),
        (FILE.replace('"b"', '"c"'), "the file has no server `b`"),
        ("", "the file has no server `b`"),
    ],
)
async def test_a_file_that_cannot_be_changed_is_left_alone(
    content: str, part: str, api: Api, path: Path
) -> None:
    written(path, content)
    answer = await api.patch("b", {"weight": 0.5, "state": "drain", "write": True})
    assert answer[0] == 400
    assert "was not written" in message(answer)
    assert part in message(answer)
    assert content_of(path) == content.encode()
    if "b" in api.router.pool.backends:  # else the watch has read the file
        backend = api.router.pool.backends["b"]
        assert (backend.spec.weight, backend.draining) == (2.0, False)
    assert admin_events(api.router) == []


@needs_modes
@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root may write everywhere")
async def test_a_folder_that_cannot_be_written_to_is_told(api: Api, path: Path) -> None:
    os.chmod(path.parent, 0o500)
    try:
        answer = await api.patch("b", {"weight": 0.5, "write": True})
    finally:
        os.chmod(path.parent, 0o700)
    assert answer[0] == 400
    assert "cannot be written: Permission denied" in message(answer)
    assert await api.changes() == 0


async def test_a_failure_leaves_no_file_behind(
    api: Api, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", fail)
    answer = await api.add({**NEW, "write": True})
    assert (answer[0], "No space left on device" in message(answer)) == (400, True)
    assert files_beside(path) == ["servers.toml"]
    assert text(api) == FILE
    assert names(api) == ["a", "b"]


async def test_somebody_who_edits_the_file_in_the_same_moment_is_not_overwritten(
    api: Api, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = FILE.replace("# mine", "# theirs")
    monkeypatch.setattr(module.os, "fsync", lambda handle: written(path, theirs))
    answer = await api.add({**NEW, "write": True})
    assert "somebody else has just changed it" in message(answer)
    assert text(api) == theirs
    assert names(api) == ["a", "b"]


async def test_what_does_not_go_together_with_the_command_line_is_taken_back(
    path: Path, http: aiohttp.ClientSession
) -> None:
    written(path, FILE)

    def reread() -> object:
        return load(path, urls=["http://127.0.0.1:7"], environ={})

    router = Router(load(path, urls=["http://127.0.0.1:7"], environ={}), reread)  # type: ignore[arg-type]
    await router.start()
    api = Api(http, router)
    try:
        await api.remove("127.0.0.1:7")
        answer = await api.add({**NEW, "write": True})  # which the command line has, too
        assert answer[0] == 400
        assert "two servers have the URL" in message(answer)
        assert text(api) == FILE
        assert names(api) == ["a", "b"]
    finally:
        await router.stop(1)


class Broken:
    """A policy of somebody else's that cannot be made."""

    def __init__(self) -> None:
        raise RuntimeError("no such table")


async def test_a_policy_that_cannot_be_made_is_told_and_the_file_put_back(
    api: Api, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await until(lambda: api.router.file_watch.ready.is_set())
    offer_policy(monkeypatch, "broken", Broken)
    theirs = FILE + 'policy = "broken"\n'
    written(path, theirs)
    await until(lambda: "no such table" in api.router.pool.events.last(1)[0].message)
    for answer in (
        await api.patch("b", {"weight": 0.5, "write": True}),
        await api.add({**NEW, "write": True}),
        await api.remove("a", {"write": True}),
        await api.reload(),
    ):
        assert answer[0] == 400
        assert "the policy `broken` cannot be made: RuntimeError('no such table')" in message(
            answer
        )
    assert text(api) == theirs
    assert names(api) == ["a", "b"]
    assert api.router.pool.backends["b"].spec.weight == 2.0
    assert (await api.changes(), admin_events(api.router)) == (0, [])
    written(path, FILE)
    assert (await api.patch("b", {"weight": 0.5, "write": True}))[0] == 200
    assert text(api) == FILE.replace("weight = 2.0", "weight = 0.5")


async def test_a_change_that_fails_inside_the_router_is_not_in_the_file_either(
    api: Api, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(config: object, diff: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(api.router.live, "_use", fail)
    for answer in (
        await api.patch("b", {"weight": 0.5, "write": True}),
        await api.remove("a", {"write": True}),
    ):
        assert answer[0] == 500
    assert text(api) == FILE
    assert files_beside(path) == ["servers.toml"]
    assert await api.changes() == 0


async def test_a_file_that_cannot_be_put_back_is_told(
    api: Api, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, handles = module.os.fsync, []

    def fail_later(handle: int) -> None:
        handles.append(handle)
        if len(handles) > 1:
            raise OSError(28, "No space left on device")
        real(handle)

    async def refuse(config: object, diff: object) -> None:
        raise ValueError("not this one")

    monkeypatch.setattr(module.os, "fsync", fail_later)
    monkeypatch.setattr(api.router.live, "_use", refuse)
    answer = await api.patch("b", {"weight": 0.5, "write": True})
    assert answer[0] == 400
    assert "has the change, which is not in use" in message(answer)
    assert "No space left on device" in message(answer)
    assert text(api) == FILE.replace("weight = 2.0", "weight = 0.5")


async def test_a_server_of_the_command_line_is_not_written(
    path: Path, http: aiohttp.ClientSession
) -> None:
    written(path, FILE)
    config = load(path, urls=["http://127.0.0.1:7"], environ={})
    router = Router(config, lambda: config)
    await router.start()
    api = Api(http, router)
    for answer in (
        await api.patch("127.0.0.1:7", {"weight": 2, "write": True}),
        await api.remove("127.0.0.1:7", {"write": True}),
    ):
        assert answer[0] == 400
        assert "from the command line" in message(answer)
    assert names(api) == ["a", "b", "127.0.0.1:7"]
    await router.stop(1)


async def test_draining_is_not_written(api: Api) -> None:
    answer = await api.patch("b", {"state": "drain", "write": True})
    assert answer[0] == 400
    assert "`state` is not kept in a file" in message(answer)
    assert not api.router.pool.backends["b"].draining


async def test_without_a_file_nothing_is_written(
    start_router: StartRouter, http: aiohttp.ClientSession
) -> None:
    router = await start_router(ServerSpec(url="http://127.0.0.1:9", name="s0"))
    answer = await Api(http, router).add({**NEW, "write": True})
    assert answer[0] == 400
    assert "runs without a file" in message(answer)
    assert names(Api(http, router)) == ["s0"]


async def test_a_change_that_does_not_match_writes_nothing(api: Api) -> None:
    assert (await api.patch("b", {"weight": 3, "write": True}, if_match='"x"'))[0] == 412
    assert (await api.remove("b", {"write": True}, if_match='"x"'))[0] == 412
    assert text(api) == FILE


async def test_of_many_who_write_at_once_each_finds_its_change_in_the_file(api: Api) -> None:
    bodies = [
        {"url": f"http://127.0.0.1:{n}", "name": f"n{n}", "write": True} for n in range(10, 20)
    ]
    answers = await asyncio.gather(*(api.add(body) for body in bodies))
    assert [status for status, _ in answers] == [201] * 10
    assert all(str(body["url"]) in text(api) for body in bodies)
    assert sorted(names(api)) == sorted(["a", "b", *(str(body["name"]) for body in bodies)])
    assert await api.changes() == 0


async def test_a_key_is_written_and_not_told(api: Api) -> None:
    status, entry = await api.add({**NEW, "api_key": "k-hush", "write": True})
    assert status == 201
    assert 'api_key = "k-hush"' in text(api)
    shown = [entry, await api.get("/router/config"), await api.get("/router/events?stream=0")]
    assert "k-hush" not in json.dumps(shown)
