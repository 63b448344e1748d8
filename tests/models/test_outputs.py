"""One upsampling per logits, whoever asks."""

import pytest
import torch

from segctl.errors import InputError
from segctl.models import Outputs, Prediction, upsample


def prediction(aux=True):
    return Prediction(torch.randn(1, 3, 4, 5), torch.randn(1, 3, 2, 3) if aux else None, torch.randn(1, 8, 4, 5))


def test_upsample_by_hand():
    # align_corners False: output pixel centres 0.25 and 0.75 of a pixel from the two values 0 and 4, edges clamped
    logits = torch.tensor([[[[0.0, 4.0]]]])
    assert upsample(logits, (1, 4)).flatten().tolist() == [0.0, 1.0, 3.0, 4.0]


def test_upsample_to_the_same_size_changes_nothing():
    logits = torch.randn(1, 2, 3, 4)
    assert upsample(logits, (3, 4)) is logits


@pytest.mark.parametrize("name", ["main", "aux"])
def test_logits_are_upsampled_once_and_kept(name):
    outputs = Outputs(prediction(), (16, 20))
    first = outputs.upsampled(name)
    assert first.shape == (1, 3, 16, 20)
    assert outputs.upsampled(name) is first
    assert torch.equal(first, upsample(outputs.at_head_stride(name), (16, 20)))


def test_head_stride_logits_and_features_come_untouched():
    given = prediction()
    outputs = Outputs(given, (16, 20))
    assert outputs.at_head_stride("main") is given.logits
    assert outputs.at_head_stride("aux") is given.aux_logits
    assert outputs.features is given.features


def test_gradient_flows_through_the_shared_upsampling():
    logits = torch.randn(1, 3, 4, 5, requires_grad=True)
    outputs = Outputs(Prediction(logits, None, logits), (8, 10))
    (outputs.upsampled("main").sum() + outputs.upsampled("main").square().sum()).backward()
    assert logits.grad.abs().sum() > 0


@pytest.mark.parametrize("ask", [Outputs.at_head_stride, Outputs.upsampled])
def test_missing_auxiliary_logits_name_model_aux(ask):
    with pytest.raises(InputError) as raised:
        ask(Outputs(prediction(aux=False), (8, 8)), "aux")
    assert str(raised.value) == (
        "a term asks for 'aux' logits, but this network has no auxiliary classifier (model.aux is false); "
        "use logits 'main', or train the network with `--set model.aux=true`"
    )
