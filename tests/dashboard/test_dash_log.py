"""The tail of a log file that grows and is put aside for a new one, and the log of a server."""

from __future__ import annotations

from pathlib import Path

from mvllm_router.dashboard.log import KEPT, Kept, ServerLog, Tail


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
    assert kept.gone == 5000 - KEPT


def told(log: ServerLog, *lines: str, newest: int) -> list[str]:
    """Let the router answer; return what is kept."""
    log.take({"lines": list(lines), "newest": newest})
    return log.lines()


def test_of_a_servers_log_only_what_is_new_is_asked_for() -> None:
    log = ServerLog("a/b")
    assert log.path == "/router/logs/a%2Fb?after=0"
    assert told(log, "one", "two", newest=7) == ["one", "two"]
    assert log.path.endswith("?after=7")
    assert told(log, "three", newest=8) == ["one", "two", "three"]
    assert told(log, newest=8) == ["one", "two", "three"]


def test_a_router_that_was_started_anew_counts_lines_from_the_start() -> None:
    log = ServerLog("a")
    told(log, "old", newest=70)
    assert told(log, newest=3) == []
    assert log.gone == 1
    assert log.path.endswith("?after=0"), "it has lines that were not told yet"
    assert told(log, "new", newest=3) == ["new"]


def test_of_a_servers_log_no_more_is_kept_than_of_the_routers() -> None:
    log = ServerLog("a")
    for number in range(KEPT // 1000 + 2):
        told(log, *(f"{number}-{line}" for line in range(1000)), newest=1000 * (number + 1))
    assert len(log.lines()) == KEPT


def test_a_log_that_is_told_again_is_no_more_refused() -> None:
    log = ServerLog("a")
    log.refuse("no such server")
    told(log, "one", newest=1)
    assert (log.why_not, log.is_here) == ("", True)
