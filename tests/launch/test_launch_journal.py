"""What servers print: kept in part, written in full to a bounded file, without its secrets."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mvllm_router.launch import journal as module
from mvllm_router.launch.journal import KEPT, Journal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "qwen-0.log"


def test_lines_come_in_pieces_and_bars_of_progress_are_lines(path: Path) -> None:
    journal = Journal(path)
    assert journal.feed(b"Loading ") == []
    assert journal.feed("10 %\rLoading 90 %\r\nDöne\n\n".encode()) == [
        "Loading 10 %",
        "Loading 90 %",
        "Döne",
    ]
    journal.feed(b"no end")
    assert journal.last == "Döne"
    journal.close()
    assert path.read_text("utf-8") == "Loading 10 %\nLoading 90 %\nDöne\nno end\n"


def test_a_line_of_the_routers_own_ends_one_that_was_cut_off(path: Path) -> None:
    journal = Journal(path)
    journal.feed(b"Segmentation fau")
    journal.say("started as process 12")
    assert journal.after(0) == ["Segmentation fau", "--- started as process 12"]
    journal.close()


def test_the_key_is_hidden_on_the_disk_as_well(path: Path) -> None:
    journal = Journal(path, secret="hush")
    assert journal.feed(b"args: {'api_key': ['hush']}\n") == ["args: {'api_key': ['***']}"]
    journal.close()
    assert "hush" not in path.read_text("utf-8")


def test_lines_behind_a_number_are_given_as_far_as_they_are_kept(path: Path) -> None:
    journal = Journal(path)
    journal.feed("".join(f"{number}\n" for number in range(KEPT + 10)).encode())
    assert journal.count == KEPT + 10
    assert journal.after(KEPT + 8) == [f"{KEPT + 8}", f"{KEPT + 9}"]
    assert journal.after(journal.count) == journal.after(journal.count + 5) == []
    assert len(journal.after(0)) == len(journal.after(-7)) == KEPT
    journal.close()


def test_a_line_without_end_does_not_grow(path: Path) -> None:
    journal = Journal(path)
    for _ in range(100):
        journal.feed(b"x" * 1000)
    assert journal.count >= 30
    assert all(len(line) <= 2000 for line in journal.after(0))
    journal.close()


def test_the_file_is_turned_over_when_it_is_full(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FILE_BYTES", 100)
    journal = Journal(path)
    for number in range(30):
        journal.feed(f"line {number:02d} of them\n".encode())
    journal.close()
    older = path.with_name("qwen-0.log.1")
    assert sorted(path.parent.iterdir()) == [path, older]
    assert older.stat().st_size + path.stat().st_size < 300
    assert "line 29" in older.read_text("utf-8") + path.read_text("utf-8")


@pytest.mark.skipif(sys.platform != "linux", reason="there is no disk that is always full")
def test_a_full_disk_is_told_once_and_keeps_no_server_from_printing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    journal = Journal(Path("/dev/full"))
    for number in range(100):
        journal.feed(f"{number}\n".encode())
    assert journal.last == "99"
    journal.close()
    assert caplog.messages == ["the log /dev/full cannot be written: No space left on device"]


def test_a_second_run_goes_on_behind_the_first(path: Path) -> None:
    for text in (b"one\n", b"two\n"):
        journal = Journal(path)
        journal.feed(text)
        journal.close()
    assert path.read_text("utf-8") == "one\ntwo\n"
