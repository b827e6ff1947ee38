"""Which GPUs there are, out of the drivers' answers, and which of them may be used.

Where the shapes come from: NVML and MIG from NVIDIA's nvidia-ml-py and the MIG user guide, the CSV
from `nvidia-smi --help-query-gpu`, rules of the variables from the CUDA programming guide (a UUID
may be cut short, what is behind an entry that names nothing is not seen) and AMD's page on GPU
isolation; `rocm-smi --json` as in marimo-team/marimo#9237 and mudler/LocalAI#7761, `amd-smi` as in
AMD's command-line tool (`gpu_data` since ROCm 7).
"""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from launch_kit import GIB, gpu, gpus

from mvllm_router.launch.gpus import (
    Gpu,
    gpu_called,
    parse_amd_smi,
    parse_nvidia_smi,
    parse_rocm_smi,
    read_nvml,
    visible,
)

H100 = "GPU-4d4b2ba5-8b0a-0d0e-c1cf-1f3a3e2a9a10"
NVIDIA_SMI = f"""index, uuid, name, memory.total [MiB], memory.used [MiB], mig.mode.current
0, {H100}, NVIDIA H100 80GB HBM3, 81559 MiB, 4 MiB, Disabled
1, GPU-aa, NVIDIA GB10, [N/A], [N/A], [N/A]
2, GPU-bb, NVIDIA A100-SXM4-40GB, 40960 MiB, 0 MiB, Enabled
"""
AMD_STATIC = """[{"gpu": 0, "asic": {"market_name": "AMD Instinct MI300X OAM",
  "asic_serial": "0xECC1F54A3F3E2E51"}}]"""
AMD_MEMORY = """[{"gpu": 0, "mem_usage": {"total_vram": {"value": 196592, "unit": "MB"},
  "used_vram": {"value": 285, "unit": "MB"}}}]"""
ROCM_SMI = """{"card1": {"Unique ID": "0x18f68e602b8a790f", "Card Series": "AMD Radeon RX 7900 XTX",
  "VRAM Total Memory (B)": "25753026560", "VRAM Total Used Memory (B)": "1052672"},
  "card0": {"Unique ID": "N/A", "Card series": "gfx90a", "VRAM Total Memory (B)": "1024",
  "VRAM Total Used Memory (B)": "24"}, "system": {"Driver version": "6.8.5"}}"""


A100 = "GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77"
PART_0 = "MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f"
PART_2 = "MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb"


class Nvml:
    """Answers as the module `pynvml` does; some of its versions give bytes."""

    NVML_DEVICE_MIG_ENABLE = 1

    class NVMLError(Exception):
        pass

    def __init__(self, *devices: tuple[str | bytes, str | bytes]) -> None:
        self.devices = list(devices)
        self.parts: dict[int, tuple[str | None, ...]] = {}  # UUIDs of those of a split GPU

    def nvmlDeviceGetMigMode(self, number: int) -> list[int]:
        if self.devices[number][1] == "NVIDIA GB10":
            raise self.NVMLError("Not Supported")
        return [int(number in self.parts)] * 2

    def nvmlDeviceGetMaxMigDeviceCount(self, number: int) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, number: int, part: int) -> int:
        uuids = self.parts[number]
        uuid = uuids[part] if part < len(uuids) else None
        if uuid is None:
            raise self.NVMLError("Not Found")
        self.devices.append((uuid, f"{self.devices[number][1]!s} MIG 1g.5gb"))
        return len(self.devices) - 1

    def nvmlDeviceGetCount(self) -> int:
        return len(self.devices)

    def nvmlDeviceGetHandleByIndex(self, number: int) -> int:
        return number

    def nvmlDeviceGetUUID(self, number: int) -> str | bytes:
        return self.devices[number][0]

    def nvmlDeviceGetName(self, number: int) -> str | bytes:
        return self.devices[number][1]

    def nvmlDeviceGetMemoryInfo(self, number: int) -> SimpleNamespace:
        if self.devices[number][1] == "NVIDIA GB10":
            raise self.NVMLError("Not Supported")
        if "MIG" in str(self.devices[number][1]):
            return SimpleNamespace(total=5 * GIB, used=0, free=5 * GIB)
        return SimpleNamespace(total=80 * GIB, used=number * GIB, free=(80 - number) * GIB)


def test_nvml_is_read_as_text_or_as_bytes() -> None:
    found = read_nvml(Nvml((H100, "NVIDIA H100"), (b"GPU-bb", b"NVIDIA A100")))
    assert found == (
        Gpu(0, H100, "NVIDIA H100", 80 * GIB, 0),
        Gpu(1, "GPU-bb", "NVIDIA A100", 80 * GIB, GIB),
    )


def test_a_gpu_that_shares_the_processors_memory_can_be_used() -> None:
    (found,) = read_nvml(Nvml(("GPU-cc", "NVIDIA GB10")))
    assert found == Gpu(0, "GPU-cc", "NVIDIA GB10", 0, 0)
    assert not found.is_in_use


def test_nvidia_smi_is_read_also_where_a_gpu_has_no_memory_of_its_own() -> None:
    first, second, *_ = parse_nvidia_smi(NVIDIA_SMI)
    assert (first.uuid, first.total, first.used) == (H100, 81559 * 2**20, 4 * 2**20)
    assert (second.number, second.total) == (1, 0)
    assert not second.is_in_use


def test_nvidia_smi_leaves_out_a_gpu_that_is_split_and_says_what_finds_its_parts(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert [gpu.number for gpu in parse_nvidia_smi(NVIDIA_SMI)] == [0, 1]
    assert "GPU 2 is split by MIG: nvidia-ml-py finds its parts" in caplog.text


def split_nvml() -> Nvml:
    """The second of three GPUs has parts 0 and 2, and is split into these alone."""
    made = Nvml((H100, "NVIDIA H100"), (A100, "NVIDIA A100-SXM4-40GB"), ("GPU-cc", "NVIDIA H100"))
    made.parts = {1: (PART_0, None, PART_2)}
    return made


def test_the_parts_of_a_gpu_that_mig_has_split_count_for_themselves() -> None:
    whole, first, second, last = read_nvml(split_nvml())
    assert (whole.uuid, whole.part, last.number) == (H100, None, 2)
    assert (first.uuid, first.label, first.whole) == (PART_0, "1:0", A100)
    assert (second.uuid, second.label, second.total) == (PART_2, "1:2", 5 * GIB)
    assert second.describe() == "GPU 1:2 (NVIDIA A100-SXM4-40GB MIG 1g.5gb, 5.0 of 5.0 GiB free)"


@pytest.mark.parametrize(
    ("value", "labels"),
    [
        (PART_2, ["1:2"]),
        (f"{PART_2},{PART_0}", ["1:2", "1:0"]),
        (PART_2[:12], []),
        ("1", ["1:0"]),
        (A100, ["1:0"]),
        ("0,1", ["0", "1:0"]),
    ],
)
def test_a_split_gpu_is_its_first_part_and_a_part_is_called_by_all_of_its_uuid(
    value: str, labels: list[str]
) -> None:
    found = visible(read_nvml(split_nvml()), {"CUDA_VISIBLE_DEVICES": value})
    assert [one.label for one in found] == labels


def test_a_part_is_called_by_both_numbers() -> None:
    there = read_nvml(split_nvml())
    found = gpu_called(there, "1:2")
    assert found is not None
    assert found.uuid == PART_2
    assert gpu_called(there, "1:1") is None


@pytest.mark.parametrize("wrapped", [False, True])
def test_amd_smi_is_read_as_a_list_and_as_newer_versions_wrap_it(wrapped: bool) -> None:
    static, memory = json.loads(AMD_STATIC), json.loads(AMD_MEMORY)
    if wrapped:
        static, memory = {"gpu_data": static}, {"gpu_data": memory}
    (found,) = parse_amd_smi(static, memory)
    assert found == Gpu(
        0,
        "GPU-ecc1f54a3f3e2e51",
        "AMD Instinct MI300X OAM",
        196592 * 2**20,
        285 * 2**20,
        "amd",
    )


def test_rocm_smi_is_read_in_the_order_of_the_cards() -> None:
    first, second = parse_rocm_smi(json.loads(ROCM_SMI))
    assert (first.number, first.uuid, first.name, first.used) == (0, "", "gfx90a", 24)
    assert (second.uuid, second.total) == ("GPU-18f68e602b8a790f", 25753026560)


@pytest.mark.parametrize("answer", [None, [], {}, "x", [1], {"gpu_data": 3}, {"card0": 1}])
def test_an_answer_of_another_shape_is_no_gpu(answer: object) -> None:
    assert parse_amd_smi(answer, answer) == ()
    assert parse_rocm_smi(answer) == ()


def test_a_gpu_with_a_tenth_of_its_memory_taken_is_in_use() -> None:
    assert not gpu(0, used=8).is_in_use
    assert gpu(0, used=8.1).is_in_use
    assert gpu(3, used=10).describe() == "GPU 3 (H100, 70.0 of 80.0 GiB free)"


@pytest.mark.parametrize(
    ("value", "left"),
    [
        ("", []),
        ("2,0", [2, 0]),
        ("GPU-0001", [1]),
        ("GPU-0001,3", [1, 3]),
        ("1,-1,2", [1]),
        ("0, 7, 1", [0]),
        ("MIG-12", []),
    ],
)
def test_cuda_visible_devices_is_heeded_as_the_driver_does(value: str, left: list[int]) -> None:
    found = visible(gpus(4), {"CUDA_VISIBLE_DEVICES": value})
    assert [one.number for one in found] == left


def test_without_the_variables_all_may_be_used() -> None:
    assert visible(gpus(4), {}) == gpus(4)
    assert visible((), {"CUDA_VISIBLE_DEVICES": "0"}) == ()


def test_hip_numbers_what_rocr_has_left() -> None:
    amd = [gpu(number, vendor="amd") for number in range(4)]
    environ = {"ROCR_VISIBLE_DEVICES": "GPU-0003,1", "HIP_VISIBLE_DEVICES": "1"}
    assert [one.number for one in visible(amd, environ)] == [1]
    assert [one.number for one in visible(amd, {"CUDA_VISIBLE_DEVICES": "2"})] == [2]
    both = {"HIP_VISIBLE_DEVICES": "0", "CUDA_VISIBLE_DEVICES": "2"}
    assert [one.number for one in visible(amd, both)] == [0]


def test_a_gpu_is_called_by_number_or_by_the_beginning_of_its_uuid() -> None:
    there = gpus(12)
    assert gpu_called(there, "11") == there[11]
    assert gpu_called(there, "GPU-0002") == there[2]
    assert gpu_called(there, "GPU-001") == there[10]
    assert gpu_called(there, "12") is None
    assert gpu_called([Gpu(0, "", "old", 1, 0)], "GPU-1") is None
