"""All about one server: why it gets requests or not, with the arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

from mvllm_router.dashboard import figures
from mvllm_router.dashboard.columns import Row as TableRow
from mvllm_router.dashboard.columns import load_of, tone_of_load
from mvllm_router.dashboard.document import NOTHING, Document, entries, number, text, texts
from mvllm_router.dashboard.lines import EMPTY, LONGEST_NAME, Line, Part, cell, cut, plain, widest
from mvllm_router.dashboard.states import look, state_cell

_NAME = 12  # columns for what stands at the left
_BAR = 16
# What each state means for requests, in a sentence.
_MEANS = {
    "up": "it takes requests",
    "resting": "it said that it is busy, and is asked again when no other server has room",
    "drain": "an operator drains it: no new requests, those that run finish",
    "half-open": "requests to it failed; the next one is a trial that decides",
    "open": "requests to it failed; it is left out until a trial is due",
    "down": "its health checks fail, or nobody listens there",
    "loading": "it answers, but still loads its model",
    "checking": "it has not been asked yet",
}


def detail_lines(server: Document, explained: Document | None, tokens: float | None) -> list[Line]:
    """Return the page about a server.

    Args:
        explained: what POST /router/explain answered for its first model, None where it did not.
        tokens: per second.
    """
    state = text(server, "state")
    lines: list[Line] = [
        _title(server),
        EMPTY,
        ((f"{_MEANS.get(state, state)}", look(state).tone), *_because(server)),
        EMPTY,
        *_choosing(server, explained),
        EMPTY,
        _named("load", *_load(server)),
        *_learned(server, explained),
        _named("kv cache", *_cache(server)),
        *_memory(server),
        *_latency(server),
        _named("traffic", *_traffic(server, tokens)),
        _named("circuit", *_circuit(server)),
        _named("health", *_health(server)),
        _named("models", (", ".join(texts(server, "models")) or NOTHING, "plain")),
        _named("settings", *_settings(server)),
    ]
    return lines


def _named(name: str, *parts: Part) -> Line:
    return ((f"{name:<{_NAME}}", "dim"), *parts)


def _title(server: Document) -> Line:
    engine = " ".join(filter(None, (text(server, "engine"), text(server, "engine_version"))))
    since = number(server, "state_seconds")
    return (
        (cut(text(server, "name"), LONGEST_NAME), "strong"),
        (f"   {text(server, 'url')}   ", "accent"),
        (f"{engine or NOTHING}   ", "plain"),
        *state_cell(server),
        (f" for {figures.span(since)}" if since is not None else "", "plain"),
    )


def _because(server: Document) -> Line:
    reason = text(server, "reason")
    return ((f": {reason}", "plain"),) if reason and text(server, "state") != "up" else ()


def _choosing(server: Document, explained: Document | None) -> list[Line]:
    """Return the score, and the place among the servers of its model."""
    if explained is None:
        return [_named("score", (_arithmetic(server), "strong"))]
    candidates = entries(explained, "candidates")
    first, others = candidates[:_CANDIDATES], candidates[_CANDIDATES:]
    name = text(server, "name")
    own = [one for one in others if text(one, "name") == name]
    model = text(explained, "model") or "any model"
    head = _named("next for", (model, "strong"), (f"   {text(explained, 'policy')}", "accent"))
    table = _candidates([*first, *own], name, text(explained, "chosen"))
    more = [plain(f"    and {len(others)} more", "dim")] if others else []
    return [head, *table[: len(first)], *more, *table[len(first) :]]


# Candidates that are shown: these first ones, and the server itself.
_CANDIDATES = 8
_LONGEST_ARITHMETIC = 32


def _candidates(shown: Sequence[Document], name: str, chosen: str) -> list[Line]:
    """Return servers with their scores and reasons, each of these in a column."""
    names = widest((text(one, "name") for one in shown), LONGEST_NAME)
    sums = widest((text(one, "arithmetic") for one in shown), _LONGEST_ARITHMETIC)
    return [_candidate(one, name, chosen, names, sums) for one in shown]


def _candidate(candidate: Document, name: str, chosen: str, names: int, sums: int) -> Line:
    own = text(candidate, "name")
    eligible = candidate.get("eligible") is True
    mark = "→" if own == chosen and own else " "
    tone = ("strong" if own == name else "plain") if eligible else "dim"
    return (
        (f"  {mark} ", "good"),
        *cell(own, names, tone),
        ("  ", "plain"),
        *cell(text(candidate, "arithmetic"), sums, tone),
        (f"  {text(candidate, 'reason')}", "plain" if eligible else "warn"),
    )


def _arithmetic(server: Document) -> str:
    """Write the score of `least_load` out, from what the snapshot says."""
    running, waiting = number(server, "running"), number(server, "waiting")
    capacity, score = number(server, "max_capacity"), number(server, "score")
    if None in (running, waiting, capacity, score):
        return figures.decimal(score)
    speed = number(server, "speed") or 1.0
    below = f"{capacity:g}" if speed == 1 else f"({capacity:g}·{speed:g})"
    return f"({running:g} + 0.5·{waiting:g}) / {below} = {score:.2f}"


def _learned(server: Document, explained: Document | None) -> list[Line]:
    """Say what the router has found out about it from the traffic."""
    name = text(server, "name")
    candidates = entries(explained, "candidates") if explained is not None else []
    said = [text(one, "learned") for one in candidates if text(one, "name") == name]
    return [_named("learned", (words, "plain")) for words in said if words]


def _load(server: Document) -> Line:
    load = load_of(TableRow(server))
    running, waiting = number(server, "running"), number(server, "waiting")
    words = (
        f"{figures.whole(running)} running, {figures.whole(waiting)} waiting of "
        f"{figures.compact(number(server, 'max_capacity'))}, "
        f"{figures.whole(number(server, 'in_flight'))} from here"
    )
    if load is None:
        return plain(words)
    filled, rest = figures.bar(load, _BAR)
    return ((filled, tone_of_load(load)), (rest, "dim"), (f" {words}", "plain"))


def _cache(server: Document) -> Line:
    kv = number(server, "detailed_metrics", "gpu_cache_usage_perc")
    return plain(f"{figures.share(kv)} in use" if kv is not None else NOTHING)


def _memory(server: Document) -> list[Line]:
    """Say what a server takes that the router has started; of others it is not known."""
    own, on_gpus = number(server, "memory_bytes"), number(server, "gpu_memory_bytes")
    if own is None and on_gpus is None:
        return []
    words = figures.size(own)
    if on_gpus is not None:
        words += f"   {figures.size(on_gpus)} on its GPUs"
    return [_named("memory", (words, "plain"))]


def _latency(server: Document) -> list[Line]:
    lines = []
    for name, key in (
        ("first token", "ttft_seconds"),
        ("next tokens", "inter_token_seconds"),
        ("answers", "duration_seconds"),
    ):
        half, most = number(server, key, "p50"), number(server, key, "p99")
        if half is not None:
            words = f"p50 {figures.latency(half):<9} p99 {figures.latency(most)}"
            lines.append(_named(name, (words, "plain")))
    return lines or [_named("latency", ("nothing measured lately", "dim"))]


def _traffic(server: Document, tokens: float | None) -> Line:
    errors = number(server, "errors")
    return (
        (f"{_counted(number(server, 'requests'), 'request', 'requests')}   ", "plain"),
        (f"{_counted(errors, 'error', 'errors')}   ", "warn" if errors else "plain"),
        (f"{_counted(number(server, 'retries'), 'retry', 'retries')}   ", "plain"),
        (f"{figures.compact(number(server, 'tokens_out'))} tok out   ", "plain"),
        (f"{figures.rate(tokens)} tok/s", "plain"),
    )


def _counted(count: float | None, one: str, many: str) -> str:
    return f"{figures.compact(count)} {one if count == 1 else many}"


def _circuit(server: Document) -> Line:
    state = text(server, "circuit", "state") or NOTHING
    failures = _counted(number(server, "circuit", "failures"), "failure", "failures")
    words = f"   {failures} lately, opens at "
    words += figures.whole(number(server, "circuit", "opens_at"))
    if trial := number(server, "circuit", "trial_in_seconds"):
        words += f", next trial in {figures.age(trial)}"
    if openings := number(server, "circuit", "openings"):
        words += f", opened {_counted(openings, 'time', 'times')}"
    return ((state, "good" if state == "closed" else "bad"), (words, "plain"))


def _health(server: Document) -> Line:
    words = text(server, "health_status") or NOTHING
    if progress := text(server, "progress"):
        words += f" ({progress})"
    seen = number(server, "sample_age_seconds")
    metrics = f"   metrics read {figures.age(seen)} ago" if seen is not None else ""
    rest = number(server, "resting_seconds")
    resting = f"   rests for {figures.age(rest)} more" if rest else ""
    reason = text(server, "reason")
    return plain(f"{words}{metrics}{resting}{f'   {reason}' if reason else ''}")


def _settings(server: Document) -> Line:
    asked = number(server, "max_concurrent_requests")
    tags = " ".join(texts(server, "tags"))
    words = f"weight {figures.decimal(number(server, 'weight'))}   capacity "
    words += f"{asked:g} as configured" if asked else "as the engine says"
    return plain(words + (f"   tags {tags}" if tags else ""))
