"""Watching the configuration file, in the ways in which people and systems change files."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from mvllm_router.control import reload
from mvllm_router.control.reload import FileWatch, content_hash
from mvllm_router.tasks import cancel, spawn

PATIENCE = 15.0  # seconds; a change is seen in two at most


class Watching:
    """A file watch at work; `change` waits until one has been reported."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reported: asyncio.Queue[str] = asyncio.Queue()
        self.watch = FileWatch(path, self._changed)

    async def _changed(self) -> None:
        self.reported.put_nowait(self.path.read_text())

    async def __aenter__(self) -> Watching:
        self.task = spawn(self.watch.run(), "reload")
        await self.watch.ready.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        await cancel(self.task)
        assert self.task.cancelled()

    def write(self, text: str) -> None:
        self.path.write_text(text)

    def remove(self) -> None:
        self.path.unlink()

    async def change(self) -> str:
        return await asyncio.wait_for(self.reported.get(), PATIENCE)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "servers.toml"
    file.write_text("old")
    return file


async def test_a_write_is_reported(path: Path) -> None:
    async with Watching(path) as watching:
        watching.write("new")
        assert await watching.change() == "new"
        watching.write("newer")
        assert await watching.change() == "newer"


async def test_a_file_put_in_its_place_is_reported(path: Path) -> None:
    """As editors save."""
    async with Watching(path) as watching:
        for text in ("new", "newer"):
            other = path.with_name(".servers.toml.swp")
            other.write_text(text)
            os.replace(other, path)
            assert await watching.change() == text


async def test_a_swapped_link_is_reported(tmp_path: Path) -> None:
    """As Kubernetes changes a mounted ConfigMap: the folder behind a link is another one."""
    for version in ("v1", "v2", "v3"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "servers.toml").write_text(version)
    data, path = tmp_path / "..data", tmp_path / "servers.toml"
    data.symlink_to("v1")
    path.symlink_to("..data/servers.toml")
    async with Watching(path) as watching:
        for version in ("v2", "v3"):
            fresh = tmp_path / "..data_tmp"
            fresh.symlink_to(version)
            os.replace(fresh, data)
            assert await watching.change() == version


async def test_a_file_that_was_deleted_and_made_again_is_reported(path: Path) -> None:
    async with Watching(path) as watching:
        watching.remove()
        watching.write("new")
        assert await watching.change() == "new"


async def test_a_relative_path_is_watched(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    async with Watching(Path(path.name)) as watching:
        watching.write("new")
        assert await watching.change() == "new"


# --- with ticks instead of a file system


@pytest.fixture
def tick(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Let the watch look at its file when told, and at no other time."""
    ticks: asyncio.Queue[None] = asyncio.Queue()

    async def awatch(*_: object, **__: object) -> AsyncIterator[None]:
        while True:
            await ticks.get()
            yield

    def tick() -> None:
        ticks.put_nowait(None)

    monkeypatch.setattr(reload, "awatch", awatch)
    return tick


async def test_unchanged_content_is_not_reported(path: Path, tick: Callable[[], None]) -> None:
    async with Watching(path) as watching:
        watching.write("old")
        tick()
        tick()
        watching.write("new")
        tick()
        assert await watching.change() == "new"
        tick()
        watching.write("last")
        tick()
        assert await watching.change() == "last"
        assert watching.reported.empty()


@pytest.mark.parametrize("half", ["", " \n", None], ids=["empty", "blank", "gone"])
async def test_a_file_that_is_being_written_is_not_reported(
    half: str | None, path: Path, tick: Callable[[], None]
) -> None:
    """Empty for a moment, it would read as a pool without servers."""
    async with Watching(path) as watching:
        watching.remove()
        if half is not None:
            watching.write(half)
        tick()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        watching.write("new")
        tick()
        assert await watching.change() == "new"
        assert watching.reported.empty()


async def test_it_goes_on_where_the_system_has_no_watch_left(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def awatch(*_: object, **__: object) -> AsyncIterator[None]:
        raise OSError("OS file watch limit reached.")

    monkeypatch.setattr(reload, "awatch", awatch)
    monkeypatch.setattr(reload, "_LOOK", 0.01)
    async with Watching(path) as watching:
        watching.write("new")
        assert await watching.change() == "new"
    assert "looking once a second" in caplog.text


def test_only_content_counts(path: Path) -> None:
    assert content_hash(path) == content_hash(path)
    assert content_hash(path) is not None
    assert content_hash(path.with_name("none")) is None
    assert content_hash(path.parent) is None
