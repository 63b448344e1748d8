"""What a person is told if a GPU's memory does not suffice; torch's questions to the GPU are answered here."""

import sys

import pytest
import torch

from segctl.errors import SegctlError
from segctl.runtime.memory import SCORE_WITH_LESS, TRAIN_WITH_LESS, out_of_memory_in_words, peak_memory_mb

GPU = torch.device("cuda", 0)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU of 8,000 MB: this process used 5,900 of them at most, holds 6,000, and others hold 1,900."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100_000_000, 8_000_000_000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 6_000_000_000)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 5_900_000_000)


@pytest.mark.parametrize(
    ("hint", "ways_out"),
    [
        (TRAIN_WITH_LESS, ("train.accumulate=2", "data.crop", "train.precision=bf16", "train.activation_checkpointing=true")),
        (SCORE_WITH_LESS, ("evaluate.protocol", "--protocol sliding --tile 512x512", "--device cpu")),
    ],
)
def test_too_little_memory_is_one_sentence_with_ways_out(gpu: None, hint: str, ways_out: tuple[str, ...]) -> None:
    with pytest.raises(SegctlError) as caught, out_of_memory_in_words(GPU, hint):
        raise torch.OutOfMemoryError("CUDA out of memory")
    assert caught.value.message == (
        "out of memory on cuda:0: peak use was 5,900 MB of 8,000 MB, of which 1,900 MB "
        "belong to CUDA itself and to other programs"
    )
    assert all(way in caught.value.hint for way in ways_out)


def test_what_changes_a_loss_is_offered_last() -> None:
    ways = ("activation_checkpointing", "precision=bf16", "data.crop", "train.batch_size", "train.accumulate")
    places = [TRAIN_WITH_LESS.index(way) for way in ways]
    assert places == sorted(places)


def test_a_library_s_own_lack_of_memory_is_told_alike(gpu: None) -> None:
    with pytest.raises(SegctlError, match="out of memory on cuda:0"), out_of_memory_in_words(GPU, SCORE_WITH_LESS):
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


def test_a_failed_check_on_the_device_names_what_finds_the_label() -> None:
    with pytest.raises(SegctlError) as caught, out_of_memory_in_words(GPU, TRAIN_WITH_LESS):
        raise RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors might be ...")
    assert caught.value.message == (
        "a check on cuda:0 failed, most likely because of a label with an id that belongs to no class: CUDA error: device-side "
        "assert "
        "triggered"
    )
    assert "segctl data check" in caught.value.hint


def test_any_other_fault_is_let_through() -> None:
    with pytest.raises(RuntimeError, match="shapes do not fit"), out_of_memory_in_words(GPU, TRAIN_WITH_LESS):
        raise RuntimeError("shapes do not fit")


def test_the_peak_of_a_process_is_at_least_what_torch_takes() -> None:
    assert peak_memory_mb(torch.device("cpu")) > 50


def test_a_system_without_the_module_resource_tells_what_psutil_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil  # noqa: F401 - it needs the module itself on this system, but not on Windows

    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows: importing it fails
    assert peak_memory_mb(torch.device("cpu")) > 50


def test_too_little_memory_beside_a_cpu_is_a_sentence_too() -> None:
    for error in (MemoryError(), RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory")):
        with (
            pytest.raises(SegctlError, match=r"out of memory: this process had used [\d,]+ MB"),
            out_of_memory_in_words(torch.device("cpu"), SCORE_WITH_LESS),
        ):
            raise error
