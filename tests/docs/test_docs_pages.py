"""The pages hold together: links lead somewhere, the picture is one, the first screen is one."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from docs_text import PAGES, ROOT, all_text, text_of

_LINK = re.compile(r"\]\(([^)\s]+)\)")
FIRST_SCREEN = 40  # lines


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    for link in _LINK.findall(page.read_text(encoding="utf-8")):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_of_the_documentation_is_linked_from_the_readme() -> None:
    for page in (ROOT / "docs").glob("*.md"):
        assert f"(docs/{page.name})" in text_of("README.md")


def test_scripts_that_are_named_exist() -> None:
    named = set(re.findall(r"scripts/([a-z-]+)", all_text()))
    assert named
    assert {name for name in named if not (ROOT / "scripts" / name).exists()} == set()


def test_the_first_screen_has_a_picture_an_installation_a_command_and_a_request() -> None:
    screen = "\n".join(text_of("README.md").splitlines()[:FIRST_SCREEN])
    for part in ("docs/dashboard.svg", "pip install mvllm-router", "router run --demo", "curl "):
        assert part in screen
    assert 5 <= len(re.findall(r"^- ", screen, re.MULTILINE)) <= 7


def test_the_picture_shows_the_demo_and_loads_nothing_from_elsewhere() -> None:
    source = text_of("docs/dashboard.svg")
    root = ElementTree.fromstring(source)
    shown = "".join(root.itertext()).replace("\N{NO-BREAK SPACE}", " ")
    for text in ("router run --demo", "big-gpu", "old-gpu", "workstation", "● up", "TTFT p50"):
        assert text in shown
    assert "url(http" not in source
    assert "@import" not in source


def test_lines_of_prose_fit_a_screen() -> None:
    for page in PAGES:
        for line in page.read_text(encoding="utf-8").splitlines():
            assert len(line) <= 120 or line.startswith("| "), f"{page.name}: {line}"


@pytest.mark.skipif(sys.platform == "win32", reason="files have no such bit there")
def test_scripts_can_be_run() -> None:
    assert (ROOT / "scripts" / "picture").stat().st_mode & 0o111
