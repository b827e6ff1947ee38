"""Which server gets which GPUs, and what is said where they do not fit."""

from __future__ import annotations

from typing import Any

import pytest
from launch_kit import gpu, gpus, launch, split

from mvllm_router.config import LaunchSpec
from mvllm_router.launch.faults import CannotLaunch
from mvllm_router.launch.placement import place, place_more


def placed(*launches: LaunchSpec, there: Any = ()) -> list[tuple[str, list[int]]]:
    """The names of all servers with the numbers of their GPUs."""
    return [(one.name, [g.number for g in one.gpus]) for one in place(launches, there)]


def refusal(*launches: LaunchSpec, there: Any = ()) -> CannotLaunch:
    with pytest.raises(CannotLaunch) as caught:
        place(launches, there)
    return caught.value


def test_each_gpu_gets_a_server() -> None:
    assert placed(launch(), there=gpus(2)) == [("qwen-0", [0]), ("qwen-1", [1])]


@pytest.mark.parametrize("count", [1, 8, 16])
@pytest.mark.parametrize("tp", [1, 2, 4, 8, 16])
def test_any_machine_is_filled_with_groups_of_neighbours(count: int, tp: int) -> None:
    if tp > count:
        assert f"a server of {tp} GPUs does not fit" in str(
            refusal(launch(tp=tp), there=gpus(count))
        )
        return
    found = placed(launch(tp=tp), there=gpus(count))
    assert found == [(f"qwen-{n}", list(range(n * tp, (n + 1) * tp))) for n in range(count // tp)]


def test_on_sixteen_gpus_those_in_use_break_no_other_group() -> None:
    there = [gpu(n, used=40 if n in (2, 11, 12) else 0.5) for n in range(16)]
    assert placed(launch(tp=4), there=there) == [
        ("qwen-0", [4, 5, 6, 7]),
        ("qwen-1", [0, 1, 3, 8]),
        ("qwen-2", [9, 10, 13, 14]),
    ]
    assert [numbers for _, numbers in placed(launch(tp=2), there=there)] == [
        *([n, n + 1] for n in (0, 4, 6, 8, 14)),
        [3, 10],
    ]


def test_a_server_gets_a_part_of_a_split_gpu_and_never_two() -> None:
    there = (gpu(0), gpu(1), *split(2, 3), gpu(3, used=40))
    found = [(one.name, one.gpus[0].label) for one in place([launch()], there)]
    assert found == [
        ("qwen-0", "0"),
        ("qwen-1", "1"),
        ("qwen-2", "2:0"),
        ("qwen-3", "2:1"),
        ("qwen-4", "2:2"),
    ]
    assert placed(launch(tp=2), there=there) == [("qwen-0", [0, 1])]
    assert "a server of 2 GPUs does not fit" in str(refusal(launch(tp=2), there=split(0, 7)))
    (named,) = place([launch(gpus=("2:1",))], there)
    assert named.gpus[0].uuid == "MIG-0002-1"


def test_groups_of_a_tensor_parallel_server_stay_together() -> None:
    found = placed(launch(tp=4), there=gpus(8))
    assert found == [("qwen-0", [0, 1, 2, 3]), ("qwen-1", [4, 5, 6, 7])]


def test_a_group_does_not_lie_across_others_where_one_gpu_is_taken() -> None:
    there = (gpu(0), gpu(1, used=40), *gpus(6)[2:])
    assert placed(launch(tp=2), there=there) == [("qwen-0", [2, 3]), ("qwen-1", [4, 5])]


def test_what_is_left_over_makes_a_group_where_no_whole_one_is_there() -> None:
    there = (gpu(1), gpu(2), gpu(3))
    assert placed(launch(tp=2), there=there) == [("qwen-0", [2, 3])]
    assert placed(launch(tp=2), there=(gpu(1), gpu(2))) == [("qwen-0", [1, 2])]


def test_a_group_has_gpus_of_one_kind() -> None:
    there = (gpu(0), gpu(1, name="A100"), gpu(2), gpu(3, name="A100"))
    assert placed(launch(tp=2), there=there) == [("qwen-0", [0, 2]), ("qwen-1", [1, 3])]


def test_only_the_gpus_that_were_named_are_used() -> None:
    assert placed(launch(gpus=("3", "GPU-0001")), there=gpus(4)) == [
        ("qwen-0", [3]),
        ("qwen-1", [1]),
    ]


def test_without_a_gpu_there_is_one_server_or_as_many_as_were_asked_for() -> None:
    assert placed(launch()) == [("qwen-0", [])]
    assert placed(launch(replicas=2)) == [("qwen-0", []), ("qwen-1", [])]
    assert placed(launch(gpus=()), there=gpus(2)) == [("qwen-0", [])]


def test_mlx_takes_no_gpu_of_the_list() -> None:
    assert placed(launch(engine="mlx"), there=gpus(2)) == [("qwen-0", [])]


def test_launches_that_say_how_many_come_first_and_one_gets_the_rest() -> None:
    found = placed(
        launch(name="rest"), launch(name="two", replicas=2), there=gpus(5)
    )  # in their order
    assert found == [
        ("rest-0", [2]),
        ("rest-1", [3]),
        ("rest-2", [4]),
        ("two-0", [0]),
        ("two-1", [1]),
    ]


def test_several_launches_that_do_not_say_get_one_server_each() -> None:
    assert placed(launch(name="a"), launch(name="b"), there=gpus(4)) == [("a-0", [0]), ("b-0", [1])]


def test_a_gpu_in_use_is_left_alone_unless_that_is_asked_for() -> None:
    there = (gpu(0, used=40), gpu(1))
    assert placed(launch(), there=there) == [("qwen-0", [1])]
    assert placed(launch(force=True), there=there) == [("qwen-0", [0]), ("qwen-1", [1])]


def test_more_servers_than_gpus_are_refused_with_what_each_gpu_does() -> None:
    error = refusal(launch(replicas=3), there=(gpu(0), gpu(1, used=40)))
    assert str(error) == (
        "qwen: 3 servers do not fit: GPU 0 (H100, 79.5 of 80.0 GiB free); "
        "GPU 1 (H100, 40.0 of 80.0 GiB free) is in use"
    )
    assert "--force" in error.hint


def test_more_gpus_for_a_server_than_there_are_are_refused() -> None:
    assert "a server of 4 GPUs does not fit" in str(refusal(launch(tp=4), there=gpus(2)))
    assert "no GPU is there" in str(refusal(launch(tp=2)))


def test_a_gpu_that_another_launch_has_is_named_as_that() -> None:
    error = refusal(launch(name="a", replicas=1), launch(name="b", replicas=1), there=gpus(1))
    assert str(error).endswith("free) has another server")


def test_force_lets_servers_share_a_gpu() -> None:
    found = placed(launch(replicas=3, force=True), there=gpus(2))
    assert found == [("qwen-0", [0]), ("qwen-1", [1]), ("qwen-2", [0])]


def test_a_gpu_that_is_not_there_is_named_with_those_that_are() -> None:
    error = refusal(launch(gpus=("7",)), there=gpus(1))
    assert str(error) == "qwen: there is no GPU 7 to be used"
    assert error.hint == "found: GPU 0 (H100, 79.5 of 80.0 GiB free)"


def test_servers_that_come_later_get_what_the_others_left() -> None:
    there = gpus(4)
    (added,) = place_more(launch(tp=2), [1], there, there[:2])
    assert (added.name, [one.number for one in added.gpus]) == ("qwen-1", [2, 3])
    with pytest.raises(CannotLaunch, match="has another server"):
        place_more(launch(tp=2), [1, 2], there, there[:2])
