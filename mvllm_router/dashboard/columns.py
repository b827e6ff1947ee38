"""The columns of the table of servers, and which of them a terminal of some width shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mvllm_router.dashboard import figures
from mvllm_router.dashboard.document import NOTHING, Document, number, text, texts
from mvllm_router.dashboard.lines import Line, Part, cut, fit, plain, width_of
from mvllm_router.dashboard.states import rank, state_cell

# Columns of white space between two columns.
GAP = 2
_BAR = 8
# Names are cut beyond these widths; what is left of the terminal's width goes to them first.
_SHORTEST_NAME, _LONGEST_NAME = 8, 32
# Load from which a bar is no longer green, and from which it is red.
_BUSY, _FULL = 0.7, 0.9
# A sample is old when it lags by this many seconds: three intervals of the longest usual one.
_OLD = 15.0


@dataclass(frozen=True, slots=True)
class Row:
    """A server and the rates that were worked out for it; `tokens` and `requests` per second."""

    server: Document
    tokens: float | None = None
    requests: float | None = None

    @property
    def name(self) -> str:
        return text(self.server, "name")


Value = Callable[[Row], "float | None"]


@dataclass(frozen=True, slots=True)
class Column:
    """What stands under a heading, how wide it is, and how rows are sorted by it."""

    key: str
    heading: str
    width: int
    cell: Callable[[Row], Line]
    sort: Callable[[Row], tuple[bool, object]]
    help: str
    is_number: bool = field(default=True)


def _number(
    key: str,
    heading: str,
    width: int,
    value: Value,
    write: Callable[[float | None], str],
    help: str,
) -> Column:
    """Make a column of numbers; those that are not known come last, however it is sorted."""

    def cell(row: Row) -> Line:
        shown = write(value(row))
        return plain(shown, "dim" if shown == NOTHING else "plain")

    def sort(row: Row) -> tuple[bool, object]:
        found = value(row)
        return (found is None, 0.0 if found is None else found)

    return Column(key, heading, width, cell, sort, help)


def _text(key: str, heading: str, width: int, value: Callable[[Row], str], help: str) -> Column:
    def cell(row: Row) -> Line:
        return plain(value(row) or NOTHING)

    def sort(row: Row) -> tuple[bool, object]:
        return (not value(row), value(row).lower())

    return Column(key, heading, width, cell, sort, help, is_number=False)


def _at(*path: str) -> Value:
    return lambda row: number(row.server, *path)


def _counted(heading: str, path: str, help: str) -> Column:
    """Make a column of failures: none is quiet, some are not."""
    column = _number(path, heading, 5, _at(path), figures.compact, help)

    def cell(row: Row) -> Line:
        some = number(row.server, path)
        return plain(figures.compact(some), "warn" if some else "dim")

    return Column(path, heading, max(5, len(heading)), cell, column.sort, help)


def load_of(row: Row) -> float | None:
    """Return running and waiting requests as a part of the capacity; it may be above 1."""
    capacity = number(row.server, "max_capacity")
    load = number(row.server, "current_load")
    return None if not capacity or load is None else load / capacity


def tone_of_load(load: float) -> str:
    if load < _BUSY:
        return "good"
    return "warn" if load < _FULL else "bad"


def _load(row: Row) -> Line:
    load = load_of(row)
    if load is None:
        return plain(NOTHING, "dim")
    filled, rest = figures.bar(load, _BAR)
    percent = f"{min(999, round(load * 100)):4}%"
    return ((filled, tone_of_load(load)), (rest, "dim"), (percent, "plain"))


def _running(row: Row) -> Line:
    running, capacity = number(row.server, "running"), number(row.server, "max_capacity")
    return plain(f"{figures.whole(running)}/{figures.compact(capacity)}")


def _sample(row: Row) -> Line:
    seconds = number(row.server, "sample_age_seconds")
    old = seconds is None or seconds > _OLD
    return plain(figures.age(seconds), "dim" if old else "plain")


def _sort_by(value: Value) -> Callable[[Row], tuple[bool, object]]:
    return _number("", "", 0, value, figures.whole, "").sort


def _state(row: Row) -> Line:
    return state_cell(row.server)


def _state_order(row: Row) -> tuple[bool, object]:
    return (False, rank(text(row.server, "state")))


def _models(row: Row) -> str:
    models = texts(row.server, "models")
    return f"{models[0]} +{len(models) - 1}" if len(models) > 1 else "".join(models)


_MS = figures.milliseconds
COLUMNS: dict[str, Column] = {
    column.key: column
    for column in (
        _text("name", "server", 11, lambda row: row.name, "its name"),
        Column("state", "state", 11, _state, _state_order, "is it used, and if not, why", False),
        _text("engine", "engine", 9, lambda row: text(row.server, "engine"), "what runs there"),
        _text("model", "model", 14, _models, "the models that it has"),
        Column("run", "run/cap", 7, _running, _sort_by(_at("running")), "running, of its capacity"),
        _number("wait", "wait", 4, _at("waiting"), figures.whole, "requests that wait there"),
        Column("load", "load", _BAR + 5, _load, _sort_by(load_of), "load, of its capacity", False),
        _number("score", "score", 5, _at("score"), figures.decimal, "the lowest is chosen"),
        _number(
            "kv",
            "kv",
            4,
            _at("detailed_metrics", "gpu_cache_usage_perc"),
            figures.share,
            "KV cache in use",
        ),
        _number("p50", "p50 ms", 6, _at("ttft_seconds", "p50"), _MS, "time to first token, half"),
        _number("p99", "p99 ms", 6, _at("ttft_seconds", "p99"), _MS, "time to first token, 99 %"),
        _number("tokens", "tok/s", 6, lambda row: row.tokens, figures.rate, "tokens per second"),
        _counted("err", "errors", "attempts that failed"),
        _counted("retry", "retries", "requests that moved on to another server"),
        Column(
            "age", "seen", 5, _sample, _sort_by(_at("sample_age_seconds")), "age of its metrics"
        ),
        _number("reqs", "req/s", 6, lambda row: row.requests, figures.rate, "requests per second"),
        _number("total", "requests", 8, _at("requests"), figures.compact, "requests so far"),
        _number("in", "tok in", 6, _at("prompt_tokens"), figures.compact, "prompt tokens so far"),
        _number("out", "tok out", 7, _at("tokens_out"), figures.compact, "tokens so far"),
        _number(
            "gap50", "gap p50", 7, _at("inter_token_seconds", "p50"), _MS, "ms between tokens, half"
        ),
        _number(
            "gap99", "gap p99", 7, _at("inter_token_seconds", "p99"), _MS, "ms between tokens, 99 %"
        ),
        _number("all50", "all p50", 7, _at("duration_seconds", "p50"), _MS, "whole answer, half"),
        _number("all99", "all p99", 7, _at("duration_seconds", "p99"), _MS, "whole answer, 99 %"),
        _number("weight", "weight", 6, _at("weight"), figures.decimal, "its share of requests"),
        _text(
            "version", "version", 9, lambda row: text(row.server, "engine_version"), "the engine's"
        ),
        _text("tags", "tags", 12, lambda row: " ".join(texts(row.server, "tags")), "from the file"),
        _text("url", "url", 26, lambda row: text(row.server, "url"), "where it is"),
    )
}

# What each set shows, from left to right.
SETS: dict[str, tuple[str, ...]] = {
    "overview": (
        "name", "state", "engine", "model", "run", "wait", "load", "score", "kv", "p50", "p99",
        "tokens", "errors", "retries", "age", "reqs", "gap50", "all50", "weight",
    ),
    "latency": ("name", "state", "p50", "p99", "gap50", "gap99", "all50", "all99", "load", "model"),
    "traffic": (
        "name", "state", "reqs", "tokens", "total", "errors", "retries", "in", "out", "load",
        "model",
    ),
    "servers": ("name", "state", "engine", "version", "weight", "age", "url", "tags", "model"),
}  # fmt: skip
# What a narrow terminal does without, the least needed first.
_LEFT_OUT: dict[str, tuple[str, ...]] = {
    "overview": (
        "all50", "gap50", "weight", "reqs", "age", "score", "retries", "model", "engine", "errors",
        "p99", "kv", "wait", "tokens", "p50", "load",
    ),
    "latency": ("model", "load", "all50", "gap99", "all99", "gap50", "p50"),
    "traffic": ("model", "load", "in", "retries", "out", "total", "errors"),
    "servers": ("tags", "age", "model", "version", "engine", "weight", "url"),
}  # fmt: skip
# These take the width that is left, up to the widest thing that is in them.
_GROWING = ("name", "model", "url", "tags")


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns that are shown, each with its width."""

    columns: tuple[tuple[Column, int], ...]

    def heading(self, sorted_by: str, *, descending: bool) -> Line:
        """Return the heads of the columns; an arrow says by which the rows are sorted."""
        cells = []
        for column, width in self.columns:
            arrow = arrow_of(descending) if column.key == sorted_by else ""
            tone = "strong" if arrow else "heading"
            # Over numbers it stands before the word, which may need the gap for that.
            words = f"{arrow}{column.heading}" if column.is_number else f"{column.heading}{arrow}"
            cells.append(fit(plain(words, tone), width + column.is_number, right=column.is_number))
        return _join(cells, [GAP - column.is_number for column, _ in self.columns])

    def shows(self, key: str) -> bool:
        """Return whether a column has room here."""
        return any(column.key == key for column, _ in self.columns)

    def row(self, row: Row) -> Line:
        cells = [_fit_cell(column, row, width) for column, width in self.columns]
        return _join(cells, [GAP] * len(cells))

    def column_at(self, x: int) -> Column | None:
        """Return the column at a place of the line, for clicks; the gap belongs to its left."""
        left = 1
        for column, width in self.columns:
            left += width + GAP
            if x < left:
                return column
        return None


def _fit_cell(column: Column, row: Row, width: int) -> Line:
    cell = column.cell(row)
    if not column.is_number and width_of(cell) > width and len(cell) == 1:
        cell = plain(cut(cell[0][0], width), cell[0][1])
    return fit(cell, width, right=column.is_number)


def _join(cells: Sequence[Line], gaps: Sequence[int]) -> Line:
    """Put cells side by side, each after its gap; before the first one there is one column."""
    line: list[Part] = [(" ", "plain")]
    for number_, (cell, gap) in enumerate(zip(cells, gaps, strict=True)):
        line.extend(cell if number_ == 0 else ((" " * gap, "plain"), *cell))
    return tuple(line)


def layout(rows: Sequence[Row], width: int, chosen: str = "overview") -> Layout:
    """Choose the columns of a set that fit into `width`, and give what is left to names."""
    widths = {key: COLUMNS[key].width for key in SETS[chosen]}
    widths["name"] = min(max(_SHORTEST_NAME, _natural("name", rows)), 14)
    for key in _LEFT_OUT[chosen]:
        if _total(widths) <= width:
            break
        widths.pop(key, None)
    for key in _GROWING:
        if key in widths:
            most = _LONGEST_NAME if key == "name" else 60
            wanted = min(most, max(COLUMNS[key].width, _natural(key, rows)))
            spare = max(0, width - _total(widths))
            widths[key] += min(spare, max(0, wanted - widths[key]))
    return Layout(tuple((COLUMNS[key], size) for key, size in widths.items()))


def _total(widths: dict[str, int]) -> int:
    return sum(widths.values()) + GAP * (len(widths) - 1) + 2  # a margin at each side


def _natural(key: str, rows: Sequence[Row]) -> int:
    cell = COLUMNS[key].cell
    return max((width_of(cell(row)) for row in rows), default=0)


def arrow_of(descending: bool) -> str:
    """Return the sign of an order."""
    return "▾" if descending else "▴"


def ordered(rows: Sequence[Row], key: str, *, descending: bool) -> list[Row]:
    """Sort rows by a column, "" for the file's order. What is not known comes last either way."""
    if key not in COLUMNS:
        return list(reversed(rows)) if descending else list(rows)
    sort = COLUMNS[key].sort
    known = [row for row in rows if not sort(row)[0]]
    unknown = [row for row in rows if sort(row)[0]]
    return sorted(known, key=lambda row: sort(row)[1], reverse=descending) + unknown  # type: ignore[arg-type,return-value]
