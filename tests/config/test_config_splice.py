"""A change of a server gets into the file's text, and all the rest of that stays as it was."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from mvllm_router.config import (
    CannotEdit,
    ServerSpec,
    entry_of,
    parse,
    server_from,
    with_server,
    with_values,
    without_server,
)

NEW: dict[str, object] = {"url": "http://new:1", "weight": 2.0}
RENDERED = '{ url = "http://new:1", weight = 2.0 }'

LIST = """\
# my servers
[servers]
servers = [  # the good ones
    { url = "http://a:1", name = "a" },  # first
    # { url = "http://old:1" },
    { url = "http://b:1", name = "b", weight = 3.0 },  # last
    # more to come
]

[config]  # settings
port = 1
"""
TABLES = """\
[config]
port = 1

[[servers]]
url = "http://a:1"  # first
name = "a"

# the second
[[servers]]
url = "http://b:1"
name = "b"
weight = 3.0
[servers.headers]
X-Team = "red"

[auth]
keys = []
"""


def servers(text: str) -> dict[str, ServerSpec]:
    return {spec.name: spec for spec in parse(text, environ={}).servers}


# --- adding


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            LIST,
            LIST.replace("  # last\n", f"  # last\n    {RENDERED},\n"),
        ),
        (
            TABLES,
            TABLES.replace(
                'X-Team = "red"\n',
                'X-Team = "red"\n\n[[servers]]\nurl = "http://new:1"\nweight = 2.0\n',
            ),
        ),
        (
            '[servers]\nservers = [\n    "http://a:1"\n]\n',
            f'[servers]\nservers = [\n    "http://a:1",\n    {RENDERED},\n]\n',
        ),
        (
            '[servers]\nservers = [\n  "http://a:1"  # x\n]\n',
            f'[servers]\nservers = [\n  "http://a:1",  # x\n  {RENDERED},\n]\n',
        ),
        (
            '[servers]\nservers = ["http://a:1", "http://b:1"]\n',
            f'[servers]\nservers = ["http://a:1", "http://b:1", {RENDERED}]\n',
        ),
        (
            '[servers]\nservers = ["http://a:1",]',
            f'[servers]\nservers = ["http://a:1", {RENDERED},]',
        ),
        (
            'servers = [\n    "http://a:1",\n    "http://b:1"]\n',
            f'servers = [\n    "http://a:1",\n    "http://b:1", {RENDERED}]\n',
        ),
        (
            'servers = [\n    "http://a:1"\n  , "http://b:1"\n]\n',
            f'servers = [\n    "http://a:1"\n  , "http://b:1", {RENDERED}\n]\n',
        ),
        ('servers.servers = ["http://a:1"]\n', f'servers.servers = ["http://a:1", {RENDERED}]\n'),
        ("[servers]\nservers = []\n", f"[servers]\nservers = [\n    {RENDERED},\n]\n"),
        (
            "[servers]\nservers = [  # none\n]\n",
            f"[servers]\nservers = [\n    {RENDERED},  # none\n]\n",
        ),
        (
            "[servers]  # none\n[config]\nport = 1\n",
            f"[servers]  # none\nservers = [\n    {RENDERED},\n]\n[config]\nport = 1\n",
        ),
        ("[servers]", f"[servers]\nservers = [\n    {RENDERED},\n]\n"),
        (
            "[config]\nport = 1",
            f"[config]\nport = 1\n\n[servers]\nservers = [\n    {RENDERED},\n]\n",
        ),
        ("", f"\n[servers]\nservers = [\n    {RENDERED},\n]\n"),
        (
            '[[servers.servers]]\nurl = "http://a:1"',
            '[[servers.servers]]\nurl = "http://a:1"\n\n'
            '[[servers.servers]]\nurl = "http://new:1"\nweight = 2.0\n',
        ),
    ],
)
def test_a_server_is_added_behind_the_others(before: str, after: str) -> None:
    added = with_server(before, NEW)
    assert added == after
    assert list(servers(added)) == [*servers(before), "new:1"]


# --- removing


@pytest.mark.parametrize(
    ("before", "name", "after"),
    [
        (LIST, "a", LIST.replace('    { url = "http://a:1", name = "a" },  # first\n', "")),
        (
            LIST,
            "b",
            LIST.replace('    { url = "http://b:1", name = "b", weight = 3.0 },  # last\n', ""),
        ),
        (
            TABLES,
            "a",
            TABLES.replace('[[servers]]\nurl = "http://a:1"  # first\nname = "a"\n\n', "", 1),
        ),
        (
            TABLES,
            "b",
            TABLES[: TABLES.index('[[servers]]\nurl = "http://b')] + "[auth]\nkeys = []\n",
        ),
        ('servers = ["http://a:1", "http://b:1"]\n', "a:1", 'servers = ["http://b:1"]\n'),
        ('servers = ["http://a:1", "http://b:1"]\n', "b:1", 'servers = ["http://a:1"]\n'),
        ('servers = ["http://a:1"]\n', "a:1", "servers = []\n"),
        (
            'servers = [\n    "http://a:1",\n    "http://b:1"\n]\n',
            "b:1",
            'servers = [\n    "http://a:1",\n]\n',
        ),
        (
            'servers = [\n    "http://a:1"\n  , "http://b:1"\n]\n',
            "a:1",
            'servers = [\n    "http://b:1"\n]\n',
        ),
        ('[[servers]]\nurl = "http://a:1"', "a:1", ""),
    ],
)
def test_a_server_is_removed_with_what_stands_beside_it(before: str, name: str, after: str) -> None:
    assert without_server(before, name) == after


# --- changing


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (LIST, LIST.replace('name = "a" }', 'name = "a", weight = 0.5 }')),
        (TABLES, TABLES.replace("# first\n", "# first\nweight = 0.5\n")),
        (
            'servers = [{ url = "http://x:1", name = "a", weight = 1 }]',
            'servers = [{ url = "http://x:1", name = "a", weight = 0.5 }]',
        ),
        (
            'servers = [{ headers.X = "y", name = "a", url = "http://x:1"}]  # end',
            'servers = [{ headers.X = "y", name = "a", url = "http://x:1", weight = 0.5}]  # end',
        ),
        (
            '[[servers]]\n  url = "http://x:1"\n  name = "a"',
            '[[servers]]\n  url = "http://x:1"\n  weight = 0.5\n  name = "a"',
        ),
    ],
)
def test_a_value_is_put_into_the_entry(before: str, after: str) -> None:
    changed = with_values(before, "a", {"weight": 0.5})
    assert changed == after
    assert servers(changed)["a"].weight == 0.5


def test_an_entry_that_is_only_a_url_becomes_a_table() -> None:
    changed = with_values('servers = ["http://a:1"]  # x\n', "a:1", {"max_concurrent_requests": 4})
    assert changed == 'servers = [{ url = "http://a:1", max_concurrent_requests = 4 }]  # x\n'


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("{ weight = 3, url = U, name = N }", "{ url = U, name = N }"),
        ("{ url = U, weight = 3, name = N }", "{ url = U, name = N }"),
        ("{ url = U, name = N, weight = 3 }", "{ url = U, name = N }"),
        ("{ url = U, name = N }", "{ url = U, name = N }"),
    ],
)
def test_a_value_is_taken_out_of_an_entry(before: str, after: str) -> None:
    def text(entry: str) -> str:
        entry = entry.replace("U", '"http://x:1"').replace("N", '"a"')
        return f"servers = [{entry}]\n"

    assert with_values(text(before), "a", {"weight": None}) == text(after)


def test_a_value_is_taken_out_of_a_table_with_its_line() -> None:
    assert with_values(TABLES, "b", {"weight": None}) == TABLES.replace("weight = 3.0\n", "")


def test_several_values_are_changed_at_once() -> None:
    changed = with_values(LIST, "b", {"weight": None, "max_concurrent_requests": 4})
    assert servers(changed)["b"].max_concurrent_requests == 4
    assert servers(changed)["b"].weight == 1.0


# --- what has to stay


@pytest.mark.parametrize("text", [LIST, TABLES], ids=["list", "tables"])
def test_carriage_returns_and_a_byte_order_mark_stay(text: str) -> None:
    windows = "\ufeff" + text.replace("\n", "\r\n")
    for edit in (
        lambda text: with_server(text, NEW),
        lambda text: without_server(text, "a"),
        lambda text: with_values(text, "a", {"weight": 0.5}),
    ):
        assert edit(windows) == "\ufeff" + edit(text).replace("\n", "\r\n")


@pytest.mark.parametrize("text", [LIST, TABLES], ids=["list", "tables"])
def test_what_is_added_and_removed_again_leaves_no_trace_but_blank_lines(text: str) -> None:
    back = without_server(with_server(text, NEW), "new:1")
    assert [line for line in back.splitlines() if line] == [
        line for line in text.splitlines() if line
    ]


# --- what is not done


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('servers = [ "http://a:1" ]\r\n# x\n', "line ends of two kinds"),
        ("servers = {}\n", "a shape that is not changed by itself"),
        ("servers = { servers = [] }\nx = 1\n", ""),
    ],
)
def test_a_file_of_another_shape_is_refused_with_what_to_write_by_hand(
    text: str, part: str
) -> None:
    if not part:
        assert servers_of_inline(with_server(text, NEW)) == 1
        return
    with pytest.raises(CannotEdit, match=part) as caught:
        with_server(text, {**NEW, "api_key": "hush", "headers": {"X": "hush"}})
    assert 'add { url = "http://new:1", weight = 2.0, api_key = "***"' in str(caught.value)
    assert "hush" not in str(caught.value)


def servers_of_inline(text: str) -> int:
    from mvllm_router.config.toml import loads

    return len(loads(text)["servers"]["servers"])


def test_a_server_that_the_file_does_not_have_is_refused() -> None:
    for text in (LIST, TABLES, ""):
        with pytest.raises(CannotEdit, match="no server `c`"):
            without_server(text, "c")
        with pytest.raises(CannotEdit, match="no server `c`"):
            with_values(text, "c", {"weight": 1.0})


def test_tables_that_lie_apart_are_refused() -> None:
    text = '[[servers]]\nurl = "http://a:1"\n[config]\nport = 1\n[servers.headers]\nX = "y"\n'
    with pytest.raises(CannotEdit, match="remove the entry of `a:1` by hand"):
        without_server(text, "a:1")


# --- entries


@pytest.mark.parametrize(
    "entry",
    [
        {"url": "http://a:1"},
        {"url": "http://a:1", "name": "x", "engine": "vllm", "weight": 0.25},
        {"url": "http://a:1", "max_concurrent_requests": 7, "models": ["m", 'q"\\'], "tags": ["ü"]},
        {"url": "https://a:1", "models": {"gpt-4o": "own", "a b": "c\td"}, "tls_verify": False},
        {"url": "http://a:1", "api_key": "k", "headers": {"X-Team": "red\x80"}},
    ],
)
def test_an_entry_is_read_as_the_server_that_it_was_written_from(entry: dict[str, object]) -> None:
    spec = server_from(entry, environ={})
    assert entry_of(spec) == entry
    (read,) = parse(with_server("", entry_of(spec)), environ={}).servers
    assert read == spec
    table = with_server('[[servers]]\nurl = "http://z:1"\n', entry_of(spec))
    assert parse(table, environ={}).servers[1] == spec


TEXTS = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters="\r"), min_size=1, max_size=20
)


@given(TEXTS, TEXTS)
def test_any_text_gets_into_the_file_and_out_again(tag: str, model: str) -> None:
    entry = {"url": "http://x:1", "tags": [tag], "models": {model: tag}}
    text = with_server(LIST, entry)
    read = servers(text)["x:1"]
    assert (read.tags, read.aliases) == ((tag,), {model: tag})
    assert without_server(text, "x:1") == LIST
