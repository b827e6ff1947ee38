"""The position scanner: every key and value of a TOML text is found where it stands."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from mvllm_router.config.locate import KeyPath, Spot, locate
from mvllm_router.config.toml import loads

SHAPES = {
    "plain keys": "a = 1\nb = 'x'\n",
    "no final newline": "a = 1",
    "blank lines and comments": "\n# c = 1\n\n  a = 1 # b = 2\n\tb = 3\n",
    "table": "[t]\na = 1\n[u]\na = 2\n",
    "header with blanks": "[ t . u ]\na = 1\n",
    "header with comment": "[t] # [u]\na = 1\n",
    "quoted header": "['a.b'.\"c d\"]\na = 1\n",
    "dotted keys": "a.b.c = 1\na.b.d = 2\n",
    "dotted with blanks": "a . b = 1\n",
    "quoted keys": '"a b" = 1\n\'c.d\' = 2\n"" = 3\n',
    "escaped key": '"a\\"b\\u0041" = 1\n',
    "sub-table before its parent": "[a.b]\nx = 1\n[a]\ny = 2\n",
    "array of scalars": "a = [1, 2.5, true, 'x']\n",
    "array over lines": "a = [\n  1, # one, [two\n  2,\n]\n",
    "empty containers": "a = []\nb = {}\nc = [[], {}]\n",
    "nested arrays": "a = [[1, 2], [[3]], []]\n",
    "inline table": "a = { b = 1, c = 'x' }\n",
    "inline table with dotted keys": "a = { b.c = 1, b.d = 2, 'e f' = 3 }\n",
    "inline tables in an array": "a = [ { b = 1 }, { b = 2, c = [ { d = 3 } ] } ]\n",
    "inline tables over lines": "[s]\na = [\n  { u = 'x', m = 1 },\n\n  # no\n  { u = 'y' },\n]\n",
    "array of tables": "[[a]]\nb = 1\n[[a]]\nb = 2\n",
    "array of tables with sub-tables": "[[a]]\n[a.b]\nc = 1\n[[a]]\n[a.b]\nc = 2\n",
    "arrays of tables in one another": "[[a]]\n[[a.b]]\nc=1\n[[a.b]]\nc=2\n[[a]]\n[[a.b]]\nc=3\n",
    "multi-line string": 'a = """\nb = 1\n[c]\n"""\nd = 2\n',
    "multi-line literal": "a = '''\nb = 1 \\'''\nd = 2\n",
    "quotes at the end of a multi-line string": 'a = ["""x""""", 1]\nb = """"""\n',
    "quotes at the end of a multi-line literal": "a = ['''x''''', 1]\nb = 2\n",
    "escaped quotes": 'a = "x\\"y # = [" \nb = """\\""" \\"""" \nc = 1\n',
    "hash and brackets in strings": "a = ['#', ']', '}', \",\"]\nb = { c = '}' }\n",
    "numbers": "a = [0x1F, 1_000, -1e5, inf, +nan]\n",
    "dates": "a = 07:32:00\nb = [1979-05-27, 07:32:00]\nc = {d = 1979-05-27 07:32:00Z }\n",
    "key like a number": "1.2 = 3\n",
    "no blanks": "a=[{b=1,c=[2,3]},{d='x'}]#e\nf=1",
    "not ASCII": "a = 'ä中文😀'\nb = ['中', { c = 1 }]\n",
}


def walk(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    if path:
        yield path, value
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from walk(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from walk(inner, (*path, index))


def assert_found(text: str) -> None:
    """Each path of the document has a spot, and what stands there means what the parser read."""
    spots = locate(text)
    document = dict(walk(loads(text)))
    assert spots.keys() == document.keys()
    for path, value in document.items():
        assert_key_stands_there(text, path, spots[path])
        if not isinstance(value, (dict, list)):
            source = text[spots[path].value.start : spots[path].value.end]
            assert repr(loads(f"v = {source}")["v"]) == repr(value), path


def assert_key_stands_there(text: str, path: KeyPath, spot: Spot) -> None:
    name = path[-1]
    if isinstance(name, str):
        assert list(loads(f"{text[spot.key.start : spot.key.end]} = 1")) == [name]
    for span in spot:
        before = text[: span.start]
        assert span.line == before.count("\n") + 1
        assert span.column == span.start - (before.rfind("\n") + 1) + 1
        assert span.width == max(1, len(text[span.start : span.end].split("\n")[0]))


@pytest.mark.parametrize("text", SHAPES.values(), ids=SHAPES.keys())
def test_every_key_and_value_is_found(text: str) -> None:
    assert_found(text)


def test_key_of_an_inline_table_in_a_list_over_lines() -> None:
    text = (
        "[servers]\n"
        "servers = [\n"
        '    { url = "http://a:1", weight = 2 },  # first\n'
        '    { url = "http://b:1",\tmax_concurency = 3 },\n'
        "]\n"
    )
    spot = locate(text)[("servers", "servers", 1, "max_concurency")]
    assert (spot.key.line, spot.key.column, spot.key.width) == (4, 27, 14)
    assert (spot.value.line, spot.value.column, spot.value.width) == (4, 44, 1)


def test_carriage_returns_move_no_line_and_no_column() -> None:
    text = "[t]\na = 1\n\nb = [\n 'x',\n]\n"
    unix, dos = locate(text), locate(text.replace("\n", "\r\n"))
    for path, spot in unix.items():
        assert dos[path].key[:2] == spot.key[:2]
        assert dos[path].value[:2] == spot.value[:2]


def test_line_breaks_in_inline_tables_are_read_though_not_all_parsers_allow_them() -> None:
    spots = locate("a = {\n  b = 1, # c = 3\n  c = 2,\n}\nd = 1\n")
    assert set(spots) == {("a",), ("a", "b"), ("a", "c"), ("d",)}
    assert spots[("a", "c")].key.line == 3


def test_a_header_of_its_own_beats_being_named_in_another_header() -> None:
    assert locate("[a.b]\n[a]\n")[("a",)].key.line == 2


def test_a_value_over_lines_is_marked_on_its_first_line() -> None:
    span = locate("a = [1,\n2]\n")[("a",)].value
    assert (span.line, span.column, span.width) == (1, 5, 3)


def test_what_is_no_toml_is_refused_and_not_guessed_at() -> None:
    with pytest.raises(ValueError, match="offset 4"):
        locate('a = "no end')


def random_value(rng: random.Random, depth: int) -> str:
    if depth == 0 or rng.random() < 0.4:
        return rng.choice(["1", "true", '"#]},"', "'{'", '"""\n[x]\n"""', "''''a'''", "1.5"])
    gap = rng.choice(["", " ", "\n", " # ],\n"])
    inner = [random_value(rng, depth - 1) for _ in range(rng.randrange(4))]
    if rng.random() < 0.5:
        return "[" + "".join(f"{gap}{value}{gap}," for value in inner) + gap + "]"
    pairs = [f"k{i}.'x y' = {value}" for i, value in enumerate(inner)]
    return "{ " + ", ".join(pairs) + " }"


@pytest.mark.parametrize("seed", range(100))
def test_random_documents(seed: int) -> None:
    rng = random.Random(seed)
    lines = []
    for number in range(6):
        lines.append(rng.choice([f"[t{number}]", "[[many]]", f"[many2.u{number}]", "# none"]))
        lines.append(f"key{number} = {random_value(rng, 3)}")
    assert_found("\n".join(lines))
