"""Reads what people read: the README, docs/ and their tables and code blocks."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def text_of(name: str) -> str:
    """The text of a page, named by its path from the repository's root."""
    return (ROOT / name).read_text(encoding="utf-8")


def all_text() -> str:
    return "\n".join(page.read_text(encoding="utf-8") for page in PAGES)


def section(text: str, heading: str) -> str:
    """What stands under a heading of level 2, up to the next one."""
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    assert found, f"no section {heading!r}"
    return found[1]


def rows(text: str) -> list[str]:
    """The rows of all tables of a text, without their heads and the rules under these."""
    lines = text.splitlines()
    return [
        line
        for number, line in enumerate(lines)
        if line.startswith("| ") and not "".join(lines[number + 1 : number + 2]).startswith("|---")
    ]


def first_cells(text: str) -> list[str]:
    """The first cell of each row, without code marks."""
    return [row.split(" | ")[0].removeprefix("| ").strip("` ") for row in rows(text)]


def blocks(text: str, language: str) -> list[str]:
    """The fenced code blocks in a language."""
    return [match[2] for match in _BLOCK.finditer(text) if match[1] == language]


def commands(text: str) -> list[str]:
    """The single commands of all `bash` blocks: continued lines joined, `&&` and `|` split."""
    found = []
    for block in blocks(text, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            plain = re.sub(r"\s+#.*", "", line)
            found += [part.strip() for part in re.split(r"&&|\|", plain) if part.strip()]
    return found
