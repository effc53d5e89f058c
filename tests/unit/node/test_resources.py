"""An instance type becomes threads, devices and a bound on memory."""

from __future__ import annotations

import pytest

from modelcloud.node.resources import Devices, over_memory, variables
from modelcloud.types import GenerationSpec, Resources


def spec(resources: Resources, *, verify: bool = False) -> GenerationSpec:
    return GenerationSpec(
        service="fib", generation=1, version=1, target="model.py", snapshot="", digest="",
        resources=resources, verify=verify,
    )  # fmt: skip


def test_numerical_libraries_get_as_many_threads_as_the_processors_rounded_up() -> None:
    assert variables(spec(Resources(cpu=1.5)), None)["OMP_NUM_THREADS"] == "2"
    assert variables(spec(Resources(cpu=0.25)), None)["OPENBLAS_NUM_THREADS"] == "1"


def test_unlimited_processors_and_serve_mode_leave_the_environment_as_it_is() -> None:
    assert variables(spec(Resources()), None) == {}


def test_a_worker_sees_the_devices_it_was_given_and_no_other() -> None:
    assert variables(spec(Resources(gpu=2)), (1, 3)) == {"CUDA_VISIBLE_DEVICES": "1,3"}
    assert variables(spec(Resources()), ()) == {"CUDA_VISIBLE_DEVICES": ""}


def test_an_artifact_is_not_written_to() -> None:
    assert variables(spec(Resources(), verify=True), None) == {"PYTHONDONTWRITEBYTECODE": "1"}


@pytest.mark.parametrize(("used", "over"), [(100, False), (101, True)])
def test_memory_is_bounded_by_what_the_instance_type_gives(used: int, over: bool) -> None:
    mib = 1024 * 1024
    reason = over_memory(Resources(memory=100 * mib), used * mib)
    assert reason == ("used 101 MiB of the 100 MiB that its instance type gives" if over else "")
    assert over_memory(Resources(), used * mib) == ""


def test_fractions_share_a_device_until_it_is_full() -> None:
    devices = Devices(1)
    assert [devices.give(worker, 0.25) for worker in range(5)] == [(0,), (0,), (0,), (0,), None]


def test_ten_tenths_are_one_device() -> None:
    devices = Devices(1)
    assert all(devices.give(worker, 0.1) == (0,) for worker in range(10))
    assert devices.give(10, 0.1) is None


def test_fractions_leave_whole_devices_free() -> None:
    devices = Devices(2)
    assert devices.give(1, 0.5) == devices.give(2, 0.5) == (0,)
    assert devices.give(3, 1) == (1,)
    assert devices.give(4, 0.5) is None


def test_a_worker_that_is_gone_gives_its_devices_back() -> None:
    devices = Devices(2)
    assert devices.give(1, 2) == (0, 1)
    assert devices.give(2, 1) is None
    devices.release(1)
    assert devices.give(2, 1) == (0,)
    devices.release(7)


def test_no_device_is_no_trouble_for_who_needs_none() -> None:
    devices = Devices(0)
    assert devices.give(1, 0) == ()
    assert devices.give(2, 0.5) is None
