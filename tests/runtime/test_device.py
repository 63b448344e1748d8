"""Which GPU and which precision a process takes; torch's questions to GPUs are answered here."""

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from segctl.errors import InputError
from segctl.runtime import device as rooms
from segctl.runtime.device import choose_compute, require_own_gpus
from segctl.runtime.device import tf32 as tf32_of
from segctl.runtime.world import World

BUILT_FOR = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]


class Machine:
    """What torch tells of the GPUs that a process sees."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.capability, self.built_for = 1, (9, 0), BUILT_FOR
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: self.count)
        monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: self.capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Pretend GPU")
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: self.built_for)
        for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE", "CUDA_VISIBLE_DEVICES"):
            monkeypatch.delenv(name, raising=False)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """A machine whose settings of TF32 are torch's own at first, and come back."""
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = False, True
    yield Machine(monkeypatch)
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = False, True


def test_a_process_that_sees_one_gpu_takes_it_whatever_its_number(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """As under `srun --gpus-per-task=1`."""
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert choose_compute(None).device == choose_compute("cuda").device == torch.device("cuda", 0)
    machine.count = 4
    assert choose_compute(None).device == torch.device("cuda", 2)


def test_one_numbered_gpu_for_several_processes_is_refused(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.count = 4
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(InputError) as caught:
        choose_compute("cuda:1")
    assert str(caught.value) == "--device 'cuda:1' is one GPU, wanted one for each process; use --device cuda"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    assert choose_compute("cuda:1").device == torch.device("cuda", 1)


class Two(World):
    """This process and another one with a known card."""

    def gather(self, value):  # type: ignore[no-untyped-def]
        return [value, self.other]


def test_two_processes_on_one_card_are_refused_by_its_identity(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="GPU-1"))
    monkeypatch.setattr(rooms.socket, "gethostname", lambda: "node")
    world = Two(0, 2, 2)
    for other in (("node", "GPU-2"), ("far", "GPU-1"), None):
        object.__setattr__(world, "other", other)
        require_own_gpus(torch.device("cuda", 0), world)
    object.__setattr__(world, "other", ("node", "GPU-1"))
    with pytest.raises(InputError) as caught:
        require_own_gpus(torch.device("cuda", 0), world)
    assert str(caught.value) == ("2 processes on 'node' need one GPU each, and they have 1; use --processes 1, or --device cpu")
    require_own_gpus(torch.device("cpu"), world)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-a")  # another part of the same card
    require_own_gpus(torch.device("cuda", 0), world)


@pytest.mark.parametrize(
    ("capability", "built_for", "works"),
    [
        ((9, 0), BUILT_FOR, True),
        ((8, 9), BUILT_FOR, True),  # code for 8.6 runs on 8.9
        ((7, 0), BUILT_FOR, False),  # V100
        ((6, 1), BUILT_FOR, False),  # GTX 10xx
        ((12, 1), BUILT_FOR, True),
        ((11, 0), BUILT_FOR, False),  # another major: needs code of its own
        ((11, 0), [*BUILT_FOR, "compute_90"], True),  # or code that is compiled on the spot
        ((7, 0), [*BUILT_FOR, "compute_90"], False),
        ((9, 0), ["sm_90a"], True),
        ((9, 1), ["sm_90a"], False),  # bound to 9.0
        ((7, 0), ["gfx90a"], True),  # another maker's: not judged
        ((7, 0), [], True),
    ],
)
def test_cards_without_kernels_are_told_by_the_build(
    machine: Machine, capability: tuple[int, int], built_for: list[str], works: bool
) -> None:
    machine.capability, machine.built_for = capability, built_for
    chosen = choose_compute(None)
    if works:
        assert (chosen.device.type, chosen.device_reason) == ("cuda", "found")
        assert choose_compute("cuda").device == chosen.device
        return
    assert chosen.device == torch.device("cpu")
    lacking = "this build of torch has no kernels for the Pretend GPU (sm_{}{}; it has {})".format(
        *capability, ", ".join(built_for)
    )
    assert chosen.device_reason == lacking
    with pytest.raises(InputError) as caught:
        choose_compute("cuda")
    assert caught.value.message == f"--device 'cuda': {lacking}"
    assert "cu126" in caught.value.hint


def test_a_card_that_is_slow_in_bf16_hears_of_fp16(machine: Machine) -> None:
    machine.capability = (7, 5)  # T4, RTX 20xx
    assert str(choose_compute(None)) == (
        "device cuda:0 (found)   precision fp32 (the device has no fast bf16; --set train.precision=fp16 is several times as "
        "fast here; full float32, without TF32)"
    )
    machine.capability, machine.built_for = (6, 1), []
    assert "fp16" not in str(choose_compute(None))
    assert "fp16" not in str(choose_compute("cpu"))


@pytest.mark.parametrize(("precision", "tf32"), [("fp32", False), ("bf16", True), ("fp16", True)])
def test_convolutions_and_products_round_alike_and_the_line_says_how(machine: Machine, precision: str, tf32: bool) -> None:
    compute = choose_compute("cuda", precision)
    line = str(compute)
    assert tf32_of(compute) == {"convolutions": tf32, "products": tf32}  # as environment.json records it
    machine.capability = (7, 5)  # knows no TF32, whatever is allowed
    assert tf32_of(compute) == {"convolutions": False, "products": False}
    assert torch.backends.cuda.matmul.allow_tf32 is torch.backends.cudnn.allow_tf32 is tf32
    assert ("TF32 for what stays in float32" in line) is tf32
    assert ("full float32, without TF32" in line) is not tf32


def test_a_cpu_s_products_are_left_alone(machine: Machine) -> None:
    compute = choose_compute("cpu", "fp32")
    assert torch.backends.cudnn.allow_tf32 is True
    assert str(compute) == "device cpu (as given)   precision fp32 (as given)"
    assert tf32_of(compute) == {"convolutions": False, "products": False}
