"""Every key of the dashboard, in one table: bindings, foot, help and palette are made from it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Key:
    """A key and what it does.

    `keys` are Textual's names, with commas between them; `shown` is how people write the first
    ones. `writes`: it changes the router. `foot`: it stands at the foot of the screen. `page`: it
    works on the page of a server as well, for that server; `always`: above whatever is open.
    """

    keys: str
    shown: str
    action: str
    word: str
    help: str
    group: str
    writes: bool = False
    foot: bool = False
    page: bool = False
    always: bool = False


_MOVE, _LOOK, _CHANGE, _MORE = "Move", "Look", "Change", "More"

KEYS = (
    Key(
        "enter",
        "enter",
        "details",
        "Details",
        "all about a server, and why it gets traffic or not",
        _LOOK,
        foot=True,
    ),
    Key(
        "slash",
        "/",
        "filter",
        "Filter",
        "only: words, `!word`, `model:` `engine:` `state:` `tag:`",
        _LOOK,
        foot=True,
    ),
    Key("f", "f", "faults", "Faults", "only servers that are not up", _LOOK),
    Key("s", "s", "sort(1)", "Sort", "sort by the next column", _LOOK, foot=True),
    Key("S", "S", "reverse", "Reverse", "turn the order around", _LOOK),
    Key(
        "w",
        "w",
        "columns",
        "Columns",
        "other columns: overview, latency, traffic, servers",
        _LOOK,
    ),
    Key(
        "1",
        "1",
        "tab('requests')",
        "Requests",
        "the last requests, every server that was tried, and why",
        _LOOK,
    ),
    Key(
        "2",
        "2",
        "tab('events')",
        "Events",
        "what happened to the servers, and what was changed",
        _LOOK,
    ),
    Key("3", "3", "tab('log')", "Log", "the router's log", _LOOK),
    Key(
        "l",
        "l",
        "log",
        "Log of it",
        "the log of a launched server; once more: the router's",
        _LOOK,
    ),
    Key(
        "4",
        "4",
        "tab('config')",
        "Config",
        "the settings that it runs with, and where each comes from",
        _LOOK,
    ),
    Key("c", "c", "charts", "Charts", "charts on or off", _LOOK),
    Key("left_square_bracket", "[", "span(-1)", "Shorter", "charts of a shorter time", _LOOK),
    Key("right_square_bracket", "]", "span(1)", "Longer", "charts of a longer time", _LOOK),
    Key(
        "p,space",
        "p",
        "pause",
        "Pause",
        "hold the picture still; the router goes on",
        _LOOK,
        foot=True,
    ),
    Key("r", "r", "refresh_now", "Refresh", "ask the router now", _LOOK),
    Key(
        "d",
        "d",
        "drain",
        "Drain",
        "no new requests for a server; those that run finish",
        _CHANGE,
        writes=True,
        foot=True,
        page=True,
    ),
    Key(
        "e",
        "e",
        "enable",
        "Enable",
        "let it have requests again",
        _CHANGE,
        writes=True,
        foot=True,
        page=True,
    ),
    Key(
        "plus,equals_sign",
        "+",
        "weigh(1)",
        "More",
        "raise its weight by a tenth",
        _CHANGE,
        writes=True,
        page=True,
    ),
    Key(
        "minus",
        "-",
        "weigh(-1)",
        "Less",
        "lower its weight by a tenth",
        _CHANGE,
        writes=True,
        page=True,
    ),
    Key(
        "C",
        "C",
        "capacity",
        "Capacity",
        "set its capacity and weight",
        _CHANGE,
        writes=True,
        page=True,
    ),
    Key("a", "a", "add", "Add", "add a server", _CHANGE, writes=True),
    Key(
        "D,delete",
        "D",
        "remove",
        "Remove",
        "remove a server; requests that run on it finish",
        _CHANGE,
        writes=True,
        page=True,
    ),
    Key("R", "R", "reload", "Reload", "let the router read its file again", _CHANGE, writes=True),
    Key("x", "x", "export", "Export", "write the snapshot to a JSON file", _MORE, page=True),
    Key(
        "ctrl+s", "ctrl+s", "still", "Still", "write the screen to an SVG file", _MORE, always=True
    ),
    Key(
        "ctrl+p",
        "ctrl+p",
        "command_palette",
        "Palette",
        "all commands by their names, and the themes",
        _MORE,
    ),
    Key("question_mark,f1", "?", "help", "Help", "this page", _MORE, foot=True),
    Key("escape", "esc", "step_back", "Back", "one step back: dialog, filter, faults, log", _MORE),
    Key("q", "q", "leave", "Quit", "leave", _MORE, foot=True),
)

# Keys of the table and of the lists, which have them from where they are.
MOVES = (
    ("↑ ↓ j k", "one row up or down"),
    ("g G", "first or last row"),
    ("pgup pgdn", "one screen up or down"),
    ("← →", "in the list under the table: the rest of long lines"),
    ("tab", "from the table to the list under it and back"),
    ("mouse", "a row, the head of a column, a tab, a key at the foot"),
)
GROUPS = (_LOOK, _CHANGE, _MORE)
