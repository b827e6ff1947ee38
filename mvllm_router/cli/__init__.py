"""The command line. Commands import what they need when they run, so that help is quick."""

from __future__ import annotations


def main() -> None:
    """Run `router`."""
    from mvllm_router.cli.app import app

    app()
