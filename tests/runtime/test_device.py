"""What a person is told when a GPU's memory does not suffice; torch's questions to the GPU are answered here."""

from types import SimpleNamespace

import pytest
import torch

from segctl.errors import SegctlError
from segctl.runtime.device import failure_in_words, scoring

GPU = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU of 8,000 MB, of which 7,900 were in use."""
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=8_000_000_000))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 7_900_000_000)


@pytest.mark.parametrize(
    ("context", "ways_out"),
    [
        (failure_in_words, ("train.accumulate=2", "data.crop", "train.precision=bf16", "train.activation_checkpointing=true")),
        (scoring, ("evaluate.protocol", "--protocol sliding --tile 512x512", "--device cpu")),
    ],
)
def test_too_little_memory_is_one_sentence_with_ways_out(context, ways_out):
    with pytest.raises(SegctlError) as caught, context(GPU):
        raise torch.OutOfMemoryError("CUDA out of memory")
    assert caught.value.message == "out of memory on cuda:0: 7,900 MB were in use at most, of 8,000 MB"
    assert caught.value.hint is not None
    assert all(way in caught.value.hint for way in ways_out)


@pytest.mark.parametrize("context", [failure_in_words, scoring])
def test_any_other_fault_is_let_through(context):
    with pytest.raises(RuntimeError, match="shapes do not fit"), context(GPU):
        raise RuntimeError("shapes do not fit")
