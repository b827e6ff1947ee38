"""The tail of a log file that grows and is put aside for a new one."""

from __future__ import annotations

from pathlib import Path

from mvllm_router.dashboard.log import KEPT, Kept, Tail


def test_whole_lines_come_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "log"
    tail = Tail(path)
    assert tail.read() == []
    path.write_text("one\ntw")
    assert tail.read() == ["one"]
    with path.open("a") as file:
        file.write("o\nthree\n")
    assert tail.read() == ["two", "three"]
    assert tail.read() == []


def test_a_new_file_in_its_place_is_read_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("old\n")
    tail = Tail(path)
    assert tail.read() == ["old"]
    path.rename(tmp_path / "log.1")
    path.write_text("new\n")
    assert tail.read() == ["new"]


def test_of_a_long_file_the_end_is_read(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("x" * 200_000 + "\nlast\n")
    assert Tail(path).read()[-1] == "last"


def test_what_is_kept_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("".join(f"{n}\n" for n in range(5000)))
    kept = Kept(Tail(path))
    assert len(kept.lines()) == KEPT
    assert kept.lines()[-1] == "4999"
    assert kept.read() == []
