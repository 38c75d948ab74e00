"""The door to compiled code: open or closed with a reason."""

import contextlib
import sys
import threading
import types
from typing import ClassVar

import pytest
import torch

from infdiff import ops
from infdiff.errors import UserError
from infdiff.ops.gpu import launch
from infdiff.ops.gpu.nvrtc import CompileError
from infdiff.points import draw_points


def test_the_door_can_be_closed(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(launch, "_what_is_missing", lambda device: None)
    monkeypatch.delenv("INFDIFF_KERNELS", raising=False)
    assert launch.why_closed(0) is None
    for word in ("off", "OFF", "0"):
        monkeypatch.setenv("INFDIFF_KERNELS", word)
        assert launch.why_closed() == "they are switched off by INFDIFF_KERNELS=off"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_without_a_device_the_door_is_closed():
    assert launch.why_closed() == "PyTorch sees no CUDA device"


def test_arguments_are_passed_as_the_kernel_declares_them():
    tensor = torch.zeros(3)
    pointer, null, number, large, real = launch.c_values(
        ("pointer", "pointer", "int", "int64", "double"), (tensor, None, 3, 1 << 40, 0.5)
    )
    assert (pointer, null) == (tensor.data_ptr(), 0)
    assert (number.value, large.value, real.value) == (3, 1 << 40, 0.5)
    with pytest.raises(TypeError, match="int"):
        launch.c_values(("int",), (tensor,))
    with pytest.raises(ValueError, match="argument"):
        launch.c_values(("int",), (1, 2))


def test_closed_and_open_doors_give_the_same(emulated, monkeypatch):
    size = (16, 20)
    ids = draw_points(2, 80, size, torch.Generator().manual_seed(0))
    features, taps = torch.randn(2, 80, 8), torch.randn(8, 1, 7, 7)
    points = ops.Points.of(ids, size, 7)
    with_kernels = ops.sparse_depthwise_conv2d(features, taps, points)
    monkeypatch.setattr(launch, "serves_points", lambda ids: False)
    without = ops.sparse_depthwise_conv2d(features, taps, points)
    torch.testing.assert_close(without, with_kernels, rtol=1e-4, atol=1e-4)


class Device:
    """A stand-in for cuda-core's: notes which thread bound which device."""

    calls: ClassVar[list] = []

    def __init__(self, number):
        self.number = number

    def set_current(self):
        self.calls.append(("bind", threading.get_ident(), self.number))


class OnDevice(torch.Tensor):
    """A tensor that says it is on the second CUDA device."""

    device = torch.device("cuda:1")


@pytest.fixture
def stand_in(monkeypatch):
    """A cuda-core and a device that are not there; the list of calls."""
    calls = []
    monkeypatch.setattr(Device, "calls", calls)
    core = types.ModuleType("cuda.core")
    core.Device, core.LaunchConfig = Device, lambda **sizes: sizes
    core.launch = lambda *arguments: calls.append(("launch", threading.get_ident()))
    monkeypatch.setitem(sys.modules, "cuda.core", core)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: types.SimpleNamespace(cuda_stream=0))
    monkeypatch.setattr(launch, "_kernel", lambda *arguments: None)
    return calls


real_kernel = launch._kernel


def launch_one(grid=(1, 1, 1), shared=0):
    ids = torch.zeros(1, 1, dtype=torch.int64).as_subclass(OnDevice)
    launch.launch("lattice_index.cu", "lattice_index", {}, grid, (ids, ids, 1, 1, 0), shared)


def test_every_thread_binds_the_context_before_its_first_launch(stand_in):
    def twice():
        launch_one()
        launch_one()

    for _ in range(2):
        thread = threading.Thread(target=twice)
        thread.start()
        thread.join()
    assert [call[0] for call in stand_in] == ["bind", "launch", "launch"] * 2
    assert all(call[2] == 1 for call in stand_in if call[0] == "bind")


@pytest.mark.parametrize("grid", [(2**31, 1, 1), (1, 65536, 1), (1, 1, 65536)])
def test_a_launch_that_no_device_takes_is_refused(stand_in, grid):
    with pytest.raises(UserError, match="take fewer images at once"):
        launch_one(grid)
    assert stand_in == []


@pytest.mark.parametrize(("kind", "number"), [("int", 2**31), ("int", -(2**31) - 1), ("int64", 2**63)])
def test_numbers_that_would_wrap_are_refused(kind, number):
    with pytest.raises(UserError, match=f"{number} does not fit the"):
        launch.c_values((kind,), (number,))
    inside = number - 1 if number > 0 else number + 1
    assert launch.c_values((kind,), (inside,))[0].value == inside


def test_a_kernel_asks_once_for_much_shared_memory(stand_in, monkeypatch):
    driver = pytest.importorskip("cuda.bindings.driver")
    asked, sizes = [], []
    answers = [driver.CUresult.CUDA_SUCCESS, driver.CUresult.CUDA_ERROR_INVALID_VALUE]
    kernel = types.SimpleNamespace(handle=5)
    monkeypatch.setattr(sys.modules["cuda.core"], "LaunchConfig", lambda **given: sizes.append(given["shmem_size"]))
    monkeypatch.setattr(launch, "_kernel", real_kernel)
    real_kernel.cache_clear()
    monkeypatch.setattr(launch, "architecture", lambda device: "sm_90")
    monkeypatch.setattr(launch, "_object_code", lambda *given: types.SimpleNamespace(get_kernel=lambda entry: kernel))
    monkeypatch.setattr(driver, "cuKernelSetAttribute", lambda *given: (asked.append(given), answers[:1])[1])
    launch_one()
    launch_one(shared=100_000)
    launch_one(shared=100_000)
    attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    assert asked == [(attribute, 100_000, 5, 1)]
    assert sizes == [0, 100_000, 100_000]
    answers.pop(0)
    with pytest.raises(RuntimeError, match="200000 bytes of shared memory: CUDA_ERROR_INVALID_VALUE"):
        launch_one(shared=200_000)
    real_kernel.cache_clear()


def test_the_first_kernel_is_run_and_compared(emulated, monkeypatch):
    here = torch.device("cpu")
    assert launch.why_not_run(here) is None
    assert emulated.launched == {"lattice_index"}

    def refused(*arguments):
        raise RuntimeError("CUDA_ERROR_NO_BINARY_FOR_GPU: no kernel image\nis available")

    monkeypatch.setattr(launch, "launch", refused)
    assert launch.why_not_run(here) == (
        "a first kernel could not be run (CUDA_ERROR_NO_BINARY_FOR_GPU: no kernel image)"
    )
    monkeypatch.setattr(launch, "launch", lambda *arguments: arguments[4][1].fill_(7))
    assert launch.why_not_run(here) == "a first kernel's result was wrong: [7, 7, 7, 7, 7, 7]"


def test_a_full_device_does_not_close_the_door(monkeypatch):
    def full(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(launch, "launch", full)
    with pytest.raises(torch.OutOfMemoryError):
        launch.why_not_run(torch.device("cpu"))


def test_a_compiler_that_is_missing_is_said(monkeypatch):
    def missing():
        raise CompileError("the package cuda-core is not installed: pip install 'infdiff[cuda]'")

    monkeypatch.setattr(launch, "compiler_versions", missing)
    assert launch.why_not_run(torch.device("cpu")) == (
        "the package cuda-core is not installed: pip install 'infdiff[cuda]'"
    )


@pytest.mark.parametrize(
    ("driver", "built", "compiler", "said"),
    [
        (12040, "13.0", 13, "for CUDA up to 12.4, PyTorch for 13.0; update the driver"),
        (12040, "12.8", 13, "for CUDA up to 12.4, the compiler for 13; pip install 'infdiff[cuda12]'"),
        (11080, "11.8", 12, "for CUDA up to 11.8, the compiler for 12; update the driver"),
        (13000, "13.0", 13, ""),
        (13000, "12.8", 12, ""),
        (None, "13.0", 13, ""),
        (12040, None, 13, ""),
    ],
)
def test_an_old_driver_is_named_with_its_remedy(driver, built, compiler, said, monkeypatch):
    monkeypatch.setattr(launch, "driver_version", lambda: driver)
    monkeypatch.setattr(launch, "compiler_major", lambda: compiler)
    monkeypatch.setattr(torch.version, "cuda", built)
    words = launch._because_of_the_driver()
    assert said in words
    assert bool(said) == bool(words)


def test_each_device_is_asked_for_itself(monkeypatch):
    asked = []
    monkeypatch.delenv("INFDIFF_KERNELS", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5) if device == 0 else (9, 0))
    monkeypatch.setattr(launch, "why_not_run", asked.append)
    launch._what_is_missing.cache_clear()
    try:
        assert launch.why_closed() == "the device is of compute capability 7.5, older than 8.0"
        assert launch.why_closed(1) is None
        assert launch.serves_points(torch.zeros(1).as_subclass(OnDevice))
    finally:
        launch._what_is_missing.cache_clear()
    assert asked == [torch.device("cuda:1")]
