"""The dashboard's own colours, for dark and for light terminals."""

from __future__ import annotations

from textual.theme import Theme

DARK = Theme(
    name="router-dark",
    primary="#2f6fb7",
    secondary="#56c8d8",
    accent="#b49cf5",
    success="#7fd35b",
    warning="#f2b134",
    error="#f2616b",
    foreground="#e4e7eb",
    background="#12151a",
    surface="#171b21",
    panel="#222933",
    dark=True,
)
LIGHT = Theme(
    name="router-light",
    primary="#2f6fb7",
    secondary="#0a7285",
    accent="#6d3fc0",
    success="#2b7a0b",
    warning="#9a5b00",
    error="#b3202c",
    foreground="#1c2128",
    background="#fbfbfc",
    surface="#f3f4f6",
    panel="#dfe4ea",
    dark=False,
)
