"""Finds the GPUs of this machine: NVIDIA's through NVML, AMD's through its command-line tools.

The answers are read by plain functions; Apple's GPU belongs to the one machine, and is not listed.
"""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

log = logging.getLogger(__name__)

# Seconds that a tool may take; it wakes GPUs that sleep.
_PATIENCE = 30.0
_UNITS = {"B": 1, "KB": 2**10, "MB": 2**20, "MIB": 2**20, "GB": 2**30, "GIB": 2**30}
# Servers want nearly all of a GPU's memory: with so much of it taken, it is in use.
_IN_USE = 0.1

# Which variables choose GPUs for a process, the outermost first.
VARIABLES = {
    "nvidia": ("CUDA_VISIBLE_DEVICES",),
    # HIP and CUDA number those that ROCR has left; HIP's own comes first.
    "amd": ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"),
}


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU, or a part of one. `number` is that of the driver's tools, memory is in bytes.

    Where MIG has split a GPU, each `part` counts for itself, and `whole` is the UUID of the GPU.
    """

    number: int
    uuid: str
    name: str
    total: int
    used: int
    vendor: Literal["nvidia", "amd"] = "nvidia"
    part: int | None = None
    whole: str = ""

    @property
    def label(self) -> str:
        """What the driver's tools call it: `0`, or `0:1` for a part."""
        return f"{self.number}" if self.part is None else f"{self.number}:{self.part}"

    @property
    def is_in_use(self) -> bool:
        return self.used > self.total * _IN_USE

    def describe(self) -> str:
        """Return `GPU 0 (NVIDIA H100, 79.1 of 79.6 GiB free)`, as it was when it was found."""
        free, total = (size / 2**30 for size in (self.total - self.used, self.total))
        return f"GPU {self.label} ({self.name}, {free:.1f} of {total:.1f} GiB free)"


def find() -> tuple[Gpu, ...]:
    """Return the GPUs that the drivers know; none where there is no driver that can be asked."""
    return _nvidia() or _amd()


def _nvidia() -> tuple[Gpu, ...]:
    try:
        import pynvml
    except ImportError:
        return _nvidia_smi()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        log.debug("NVML does not answer: %s", error)
        return ()
    try:
        return read_nvml(pynvml)
    finally:
        pynvml.nvmlShutdown()


def read_nvml(nvml: Any) -> tuple[Gpu, ...]:
    """Read the GPUs out of NVML, the module `pynvml` initialised."""
    found: list[Gpu] = []
    for number in range(nvml.nvmlDeviceGetCount()):
        handle = nvml.nvmlDeviceGetHandleByIndex(number)
        gpu = _nvml_gpu(nvml, handle, number)
        found += _nvml_parts(nvml, handle, gpu) if _is_split(nvml, handle) else [gpu]
    return tuple(found)


def _nvml_gpu(nvml: Any, handle: Any, number: int) -> Gpu:
    uuid, name = nvml.nvmlDeviceGetUUID(handle), nvml.nvmlDeviceGetName(handle)
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        total, used = int(memory.total), int(memory.used)
    except nvml.NVMLError:  # one that shares the memory of the processor has none to tell
        total = used = 0
    return Gpu(number, _text(uuid), _text(name), total, used)


def _is_split(nvml: Any, handle: Any) -> bool:
    try:
        current, _pending = nvml.nvmlDeviceGetMigMode(handle)
    except nvml.NVMLError:  # most kinds cannot be
        return False
    return bool(current == nvml.NVML_DEVICE_MIG_ENABLE)


def _nvml_parts(nvml: Any, handle: Any, gpu: Gpu) -> Iterator[Gpu]:
    """Yield the parts of a GPU that MIG has split; nothing runs on it as a whole."""
    for number in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            part = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)
        except nvml.NVMLError:  # there may be fewer than the most there can be, with gaps
            continue
        found = _nvml_gpu(nvml, part, gpu.number)
        yield replace(found, part=number, whole=gpu.uuid)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value  # older versions give bytes


# --- without the Python library


_SMI_FIELDS = "index,uuid,name,memory.total,memory.used,mig.mode.current"
_SMI = ("nvidia-smi", f"--query-gpu={_SMI_FIELDS}", "--format=csv")


def _nvidia_smi() -> tuple[Gpu, ...]:
    said = _asked(*_SMI)
    return () if said is None else parse_nvidia_smi(said)


def parse_nvidia_smi(text: str) -> tuple[Gpu, ...]:
    """Read the CSV of nvidia-smi, whose sizes are like `81559 MiB`.

    A GPU that MIG has split is left out: nothing runs on it as a whole, and its parts are not here.
    """
    found = []
    for line in text.splitlines()[1:]:
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) != 6 or not cells[0].isdecimal():
            continue
        if cells[5] == "Enabled":
            log.warning("GPU %s is split by MIG: nvidia-ml-py finds its parts", cells[0])
        else:
            found.append(Gpu(int(cells[0]), cells[1], cells[2], _size(cells[3]), _size(cells[4])))
    return tuple(found)


def _amd() -> tuple[Gpu, ...]:
    static, memory = (
        _asked("amd-smi", *words, "--json")
        for words in (("static", "--asic"), ("metric", "--mem-usage"))
    )
    if static is not None and memory is not None:
        return parse_amd_smi(_json(static), _json(memory))
    said = _asked(
        "rocm-smi", "--showproductname", "--showuniqueid", "--showmeminfo", "vram", "--json"
    )
    return () if said is None else parse_rocm_smi(_json(said))


def parse_amd_smi(static: object, memory: object) -> tuple[Gpu, ...]:
    """Read `amd-smi static --asic` and `amd-smi metric --mem-usage`, both with `--json`."""
    sizes = {entry.get("gpu"): _of(entry, "mem_usage") for entry in _entries(memory)}
    found = []
    for entry in _entries(static):
        number, asic = entry.get("gpu"), _of(entry, "asic")
        size = sizes.get(number, {})
        if isinstance(number, int):
            uuid = _amd_uuid(asic.get("asic_serial"))
            total, used = _amount(size.get("total_vram")), _amount(size.get("used_vram"))
            name = str(asic.get("market_name") or "AMD GPU")
            found.append(Gpu(number, uuid, name, total, used, "amd"))
    return tuple(found)


def parse_rocm_smi(document: object) -> tuple[Gpu, ...]:
    """Read `rocm-smi --showproductname --showuniqueid --showmeminfo vram --json`."""
    found = []
    cards = document if isinstance(document, Mapping) else {}
    for card, entry in cards.items():
        number = str(card).removeprefix("card")
        if not number.isdecimal() or not isinstance(entry, Mapping):
            continue  # "system" is there as well
        facts = {str(key).lower(): value for key, value in entry.items()}
        name = str(facts.get("card series") or facts.get("card model") or "AMD GPU")
        total = _amount(facts.get("vram total memory (b)"))
        used = _amount(facts.get("vram total used memory (b)"))
        uuid = _amd_uuid(facts.get("unique id"))
        found.append(Gpu(int(number), uuid, name, total, used, "amd"))
    return tuple(sorted(found, key=lambda gpu: gpu.number))


def _amd_uuid(serial: object) -> str:
    """Return what ROCR_VISIBLE_DEVICES calls a GPU: GPU- and 16 digits; "" where it has no such."""
    digits = str(serial or "").lower().removeprefix("0x")
    is_number = digits and all(digit in "0123456789abcdef" for digit in digits)
    return f"GPU-{digits.zfill(16)}" if is_number else ""


def _entries(document: object) -> Sequence[Mapping[str, Any]]:
    if isinstance(document, Mapping):  # newer versions wrap the list
        document = document.get("gpu_data", [])
    entries = document if isinstance(document, list) else []
    return [entry for entry in entries if isinstance(entry, Mapping)]


def _of(entry: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    inner = entry.get(key)
    return inner if isinstance(inner, Mapping) else {}


def _amount(value: object) -> int:
    """Return bytes from `{"value": 64, "unit": "MB"}`, "64 MB" or a number of bytes."""
    if isinstance(value, Mapping):
        return _size(f"{value.get('value')} {value.get('unit')}")
    return _size(str(value))


def _size(text: str) -> int:
    number, _, unit = text.strip().partition(" ")
    try:
        return int(float(number) * _UNITS.get(unit.strip().upper(), 1))
    except ValueError:  # a GPU that has no memory of its own says "[N/A]"
        return 0


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        log.warning("a tool of the GPU's driver answered with something that is no JSON")
        return None


def _asked(program: str, *words: str) -> str | None:
    """Return what a tool prints; None where there is none, or it fails."""
    if shutil.which(program) is None:
        return None
    try:
        done = subprocess.run(
            [program, *words], capture_output=True, text=True, timeout=_PATIENCE, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("%s fails: %s", program, error)
        return None
    return done.stdout


# --- which of them may be used


def visible(gpus: Sequence[Gpu], environ: Mapping[str, str]) -> tuple[Gpu, ...]:
    """Return those that the variables of the environment leave, in their order."""
    left = tuple(gpus)
    if not left:
        return left
    outer, *inner = VARIABLES[left[0].vendor]
    if outer in environ:
        left = _chosen(left, environ[outer], by_place=False)
    for variable in inner:
        if variable in environ:
            return _chosen(left, environ[variable], by_place=True)
    return left


def _chosen(gpus: Sequence[Gpu], text: str, *, by_place: bool) -> tuple[Gpu, ...]:
    """Follow the drivers: an entry that names no GPU, such as -1, ends the list."""
    found: list[Gpu] = []
    for entry in filter(None, map(str.strip, text.split(","))):
        gpu = gpu_called(gpus, entry, by_place=by_place)
        if gpu is None:
            break
        found.append(gpu)
    return tuple(found)


def gpu_called(gpus: Sequence[Gpu], text: str, *, by_place: bool = False) -> Gpu | None:
    """Return the GPU of a number, or of a UUID or its beginning; None where there is none.

    Of one that MIG has split, this is its first part, as CUDA has it; `0:1` is another one.

    Args:
        by_place: a number counts along `gpus`, and is not the driver's.
    """
    for place, gpu in enumerate(gpus):
        if text.isdecimal():
            if int(text) == (place if by_place else gpu.number):
                return gpu
        elif text == gpu.label or _is_uuid_of(text, gpu):
            return gpu
    return None


def _is_uuid_of(text: str, gpu: Gpu) -> bool:
    """Tell whether a text is a UUID of a GPU; of a whole one the beginning is enough."""
    if text.startswith("MIG-"):
        return text == gpu.uuid
    return text.startswith("GPU-") and (gpu.whole or gpu.uuid).startswith(text)
