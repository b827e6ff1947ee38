"""What a router must bear, for as long and with as much as you like. See CONTRIBUTING.md."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
from collections.abc import Awaitable
from pathlib import Path

from chaos_aborts import aborts
from chaos_report import Report
from chaos_run import Options, Run
from chaos_soak import soak
from chaos_streams import allow_descriptors, descriptors_wanted, streams


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python tests/chaos", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    faults = commands.add_parser("faults", help="servers fail in every way while clients ask")
    faults.add_argument("--minutes", type=float, default=1.0)
    faults.add_argument("--engines", type=int, default=5)
    faults.add_argument("--clients", type=int, default=20)
    faults.add_argument("--queue", type=int, metavar="N", help="keep to capacities, let N wait")
    faults.add_argument("--stop-under-load", action="store_true", help="end with a SIGTERM")
    faults.add_argument("--watched", action="store_true", help="with a dashboard that shows it")
    leave = commands.add_parser("aborts", help="clients leave at any moment")
    leave.add_argument("--requests", type=int, default=10_000)
    small = commands.add_parser("soak", help="very many short requests, and flat memory")
    small.add_argument("--requests", type=int, default=1_000_000)
    idle = commands.add_parser("streams", help="very many streams at once")
    idle.add_argument("--count", type=int, default=5000)
    for each in (faults, leave, small, idle):
        each.add_argument("--seed", type=int, default=random.randrange(10**6))
        each.add_argument("--folder", type=Path, help="for the logs; else a temporary one")
        each.add_argument("--json", type=Path, help="write the report to this file as well")
    return parser


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _options(asked: argparse.Namespace) -> Options:
    return Options(
        seed=asked.seed,
        seconds=asked.minutes * 60,
        engines=asked.engines,
        clients=asked.clients,
        max_queue=asked.queue,
        stop_under_load=asked.stop_under_load,
        watched=asked.watched,
    )


def _work(asked: argparse.Namespace, folder: Path) -> Awaitable[Report]:
    if asked.command == "faults":
        return Run(_options(asked), folder, _say).run()
    if asked.command == "aborts":
        return aborts(asked.requests, asked.seed, folder)
    if asked.command == "soak":
        return soak(asked.requests, folder)
    if not allow_descriptors(descriptors_wanted(asked.count)):
        sys.exit(f"{asked.count} streams need {descriptors_wanted(asked.count)} file descriptors")
    return streams(asked.count, folder)


async def _main(asked: argparse.Namespace) -> int:
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    report = await _work(asked, folder)
    print(f"seed {asked.seed}, {report.requests} requests, logs in {folder}")
    print("\n".join(report.lines()))
    if asked.json:
        asked.json.write_text(json.dumps({"seed": asked.seed, **report.document()}, indent=2))
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(_main(_parser().parse_args())))
