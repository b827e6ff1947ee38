"""Runs one of the fuzz targets with atheris, which looks for inputs that reach new code.

    pip install atheris
    python tests/fuzz/atheris_run.py sse --seconds 60

Not a test: it is for finding what the tests do not think of. An input that fails is left in the
folder that is named at the end; it belongs into test_fuzz_finds.py.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import atheris

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1])]

with atheris.instrument_imports(include=["mvllm_router"]):
    from fuzz_targets import TARGETS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--folder", type=Path, help="where inputs are kept; else a new one")
    parser.add_argument("--again", type=Path, help="an input to try once more, and nothing else")
    options = parser.parse_args()
    run, seeds = TARGETS[options.target]
    if options.again:
        return run(options.again.read_bytes())
    folder = options.folder or Path(tempfile.mkdtemp(prefix=f"fuzz-{options.target}-"))
    inputs, failed = folder / "inputs", folder / "failed"
    inputs.mkdir(parents=True, exist_ok=True)
    failed.mkdir(exist_ok=True)
    for number, seed in enumerate(seeds()):
        (inputs / f"seed-{number}").write_bytes(seed)
    print(f"inputs are kept in {folder}", flush=True)
    settings = [f"-max_total_time={options.seconds}", f"-artifact_prefix={failed}/"]
    atheris.Setup([sys.argv[0], *settings, "-max_len=4096", str(inputs)], run)
    return atheris.Fuzz()


if __name__ == "__main__":
    main()
