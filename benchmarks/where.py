"""Shows where the CPU time of small requests goes in the router, by sampling.

    python benchmarks/profile.py [--seconds 6] [--stream]

The router runs as always, but a timer that counts its CPU time looks every millisecond at which
function is running. "self" is the function's own time, C code that it calls included; "with all"
is with the functions that it calls. Microseconds are per request, or per event of streams.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).parents[1]))

_TICK = 0.001  # seconds of CPU time
_SHOWN = 45


def serve(report: Path, arguments: list[str]) -> None:
    """Run the router in this process, and write what was seen to `report` at its end."""
    own: Counter[str] = Counter()
    whole: Counter[str] = Counter()

    def look(number: int, frame: FrameType | None) -> None:
        names = []
        while frame is not None:
            code = frame.f_code
            names.append(f"{Path(code.co_filename).name}:{code.co_name}")
            frame = frame.f_back
        own[names[0]] += 1
        whole.update(set(names))

    from mvllm_router.cli import main

    signal.signal(signal.SIGPROF, look)
    signal.siginterrupt(signal.SIGPROF, False)
    sys.argv = ["router", "run", *arguments]
    signal.setitimer(signal.ITIMER_PROF, _TICK, _TICK)
    try:
        main()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        report.write_text(json.dumps([own, whole]))


def profile(seconds: float, *, stream: bool) -> None:
    import loads
    from kernel import cpu_seconds
    from proxies import backends, free_port, started, wait_until_ready

    with tempfile.TemporaryDirectory() as folder, backends(1) as (backend,):
        report, port = Path(folder) / "report", free_port()
        url = f"http://127.0.0.1:{port}"
        words = [backend, "-p", str(port), "--log-level", "error"]
        command = [sys.executable, __file__, "--serve", str(report), *words]
        with started(command, stderr=subprocess.DEVNULL) as process:
            wait_until_ready(url)
            before = cpu_seconds(process.pid)
            if stream:
                done = loads.stream(url, "", 40, seconds, events=64, pause=0.005)
            else:
                done = loads.hammer(url, "", loads.chat(), 64, seconds)
            used = cpu_seconds(process.pid) - before
        own, whole = json.loads(report.read_text())
    count = done.events or done.answers
    show(own, whole, used / count * 1e6, "event" if stream else "request")


def show(own: dict[str, int], whole: dict[str, int], microseconds: float, unit: str) -> None:
    total = sum(own.values())
    print(f"{microseconds:.1f} us per {unit}, {total} samples")
    print(f"{'self':>8}{'with all':>10}   microseconds per {unit}")
    for name, count in sorted(whole.items(), key=lambda item: -own.get(item[0], 0))[:_SHOWN]:
        share = microseconds / total
        print(f"{own.get(name, 0) * share:8.1f}{count * share:10.1f}   {name}")


def main() -> None:
    if sys.argv[1:2] == ["--serve"]:
        return serve(Path(sys.argv[2]), sys.argv[3:])
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seconds", type=float, default=6.0)
    options.add_argument("--stream", action="store_true")
    chosen = options.parse_args()
    return profile(chosen.seconds, stream=chosen.stream)


if __name__ == "__main__":
    main()
