"""From the specs of a preset to losses and labels: every field arrives."""

import pytest
import torch

from segctl.errors import InputError, PresetError
from segctl.losses import (
    CrossEntropyLoss,
    FocalLoss,
    HardPixelLoss,
    JDTLoss,
    KLLoss,
    LovaszSoftmaxLoss,
    SoftDiceLoss,
    SoftJaccardLoss,
    build_labels,
    build_loss,
    build_losses,
)
from segctl.losses.soft_labels import boundary_smooth, smooth
from segctl.schema.labels import BoundaryLabels, HardLabels, SmoothedLabels
from segctl.schema.load import load_preset
from segctl.schema.terms.loss_terms import (
    CrossEntropySpec,
    FocalSpec,
    JaccardFamily,
    JDTSpec,
    KLSpec,
    LovaszSpec,
    OhemSpec,
    SoftDiceSpec,
    SoftJaccardSpec,
)


def test_pixel_losses_are_pixel_means_that_ignore_255() -> None:
    cross_entropy, kl = build_loss(CrossEntropySpec()), build_loss(KLSpec())
    assert isinstance(cross_entropy, CrossEntropyLoss)
    assert cross_entropy.ignore_index == 255
    assert isinstance(kl, KLLoss)
    assert cross_entropy.mean_over_pixels
    assert kl.mean_over_pixels


def test_every_field_of_a_metric_loss_reaches_it() -> None:
    spec = JDTSpec(
        miou_d=0.1, miou_i=0.2, miou_c=0.3, alpha=0.4, beta=0.6, gamma=2.0, smooth=0.5, norm=2, log_loss=True, threshold=0.2,
        active_hard="all", active_soft="present", reduce="global", class_weights=(1.0, 2.0),
    )  # fmt: skip
    loss = build_loss(spec)
    assert isinstance(loss, JDTLoss)
    assert not loss.mean_over_pixels
    assert loss.ignore_index == 255
    assert loss.class_weights is not None
    assert loss.class_weights.tolist() == [1.0, 2.0]
    for name in [*JaccardFamily.model_fields, "active_hard", "active_soft"]:
        assert getattr(loss, name) == getattr(spec, name), name


def test_the_defaults_of_preset_and_class_are_the_same_but_for_reduce() -> None:
    """A preset's run has processes that act alike; in somebody's own loop a collective that nobody asked for can hang."""
    built, plain = build_loss(JDTSpec()), JDTLoss(ignore_index=255)
    assert (built.reduce, plain.reduce) == ("global", "local")
    plain.reduce = "global"
    for name in [*JaccardFamily.model_fields, "active_hard", "active_soft"]:
        assert getattr(built, name) == getattr(plain, name), name


def test_every_field_of_the_other_losses_reaches_them() -> None:
    cross_entropy = build_loss(CrossEntropySpec(class_weights=(1.0, 2.0)))
    assert isinstance(cross_entropy, CrossEntropyLoss)
    assert cross_entropy.class_weights is not None
    focal = build_loss(FocalSpec(gamma=1.5, class_weights=(1.0, 2.0)))
    assert isinstance(focal, FocalLoss)
    assert (focal.gamma, focal.ignore_index, focal.class_weights is None) == (1.5, 255, False)
    hard = build_loss(OhemSpec(threshold=0.5, min_share=0.25))
    assert isinstance(hard, HardPixelLoss)
    assert (hard.threshold, hard.min_share, hard.ignore_index) == (0.5, 0.25, 255)
    lovasz = build_loss(LovaszSpec(per_image=True, active="all"))
    assert isinstance(lovasz, LovaszSoftmaxLoss)
    assert (lovasz.per_image, lovasz.active, lovasz.ignore_index) == (True, "all", 255)
    for spec, kind in ((SoftJaccardSpec, SoftJaccardLoss), (SoftDiceSpec, SoftDiceLoss)):
        loss = build_loss(spec(per_image=True, smooth=0.5, active="all"))
        assert isinstance(loss, kind)
        assert (loss.per_image, loss.smooth, loss.active, loss.ignore_index) == (True, 0.5, "all", 255)


def test_terms_are_named_and_keep_their_weights() -> None:
    specs = [CrossEntropySpec(weight=0.25), JDTSpec(weight=0.75), JDTSpec(logits="aux", weight=0.5)]
    terms = build_losses(specs, 3).terms
    assert [(term.name, term.logits, term.weight) for term in terms] == [
        ("cross_entropy_main", "main", 0.25),
        ("jdt_main", "main", 0.75),
        ("jdt_aux", "aux", 0.5),
    ]


@pytest.mark.parametrize("spec", [CrossEntropySpec, FocalSpec, JDTSpec])
def test_class_weights_of_another_number_of_classes_are_an_error_that_says_which(spec: type) -> None:
    with pytest.raises(InputError) as error:
        build_losses([KLSpec(), spec(class_weights=(1.0, 2.0))], 11)
    assert error.value.message == "loss.1.class_weights: got 2 numbers, wanted 11, one for each class"
    assert error.value.hint == "`segctl data info NAME` lists the classes in their order"


def test_lovasz_on_soft_labels_is_a_fault_of_the_preset() -> None:
    with pytest.raises(PresetError) as error:
        load_preset("voc-dl101", ["loss.2={kind: lovasz}"])
    assert [str(fault) for fault in error.value.faults] == [
        "loss.2.kind: got 'lovasz' with soft labels, wanted 'jdt' or labels.kind 'hard'"
    ]


def test_labels_are_hard_smoothed_or_smoothed_at_boundaries() -> None:
    label = torch.tensor([[[0, 0, 1], [0, 0, 1], [2, 2, 255]]], dtype=torch.uint8)
    hard = build_labels(HardLabels(), 3)(label)
    assert hard.dtype == torch.int64
    assert hard.tolist() == label.tolist()
    torch.testing.assert_close(build_labels(SmoothedLabels(epsilon=0.3), 3)(label), smooth(label, 3, 0.3))
    everywhere = build_labels(BoundaryLabels(epsilon=0.3, kernel_size=3), 3)(label)
    torch.testing.assert_close(everywhere, boundary_smooth(label, 3, 0.3, 3))


@pytest.mark.parametrize("soften", [HardLabels(), SmoothedLabels(epsilon=0.1), BoundaryLabels()])
def test_every_label_form_goes_with_the_losses(soften: HardLabels | SmoothedLabels | BoundaryLabels) -> None:
    torch.manual_seed(0)
    logits, label = torch.randn(2, 3, 6, 6), torch.randint(0, 3, (2, 6, 6)).to(torch.uint8)
    label[:, :2] = 255
    target = build_labels(soften, 3)(label)
    for spec in (CrossEntropySpec(), JDTSpec()):
        assert build_loss(spec)(logits, target, label != 255).isfinite()


def test_what_the_metric_loss_refuses_a_preset_refuses_first() -> None:
    overrides = ["loss.2.miou_d=0", "loss.2.log_loss=true", "loss.2.smooth=0", "distiller.terms.2.miou_d=0"]
    with pytest.raises(PresetError) as error:
        load_preset("camvid-psp18", overrides)
    assert [str(fault) for fault in error.value.faults] == [
        "loss.2.miou_d: got 0 for miou_d, miou_i and miou_c, wanted at least one above 0",
        "loss.2.smooth: got 0 with log_loss true, wanted above 0",
        "distiller.terms.2.miou_d: got 0 for miou_d, miou_i and miou_c, wanted at least one above 0",
    ]


def test_a_focal_exponent_below_one_is_refused() -> None:
    with pytest.raises(PresetError) as error:
        load_preset("camvid-psp18", ["loss.2.gamma=0.5"])
    assert [fault.path for fault in error.value.faults] == ["loss.2.gamma"]


def test_every_kind_of_term_stands_beside_every_other_in_one_loss() -> None:
    torch.manual_seed(0)
    logits, label = torch.randn(2, 3, 6, 6, requires_grad=True), torch.randint(0, 3, (2, 6, 6))
    label[:, :2] = 255
    kinds = [CrossEntropySpec, FocalSpec, OhemSpec, JDTSpec, LovaszSpec, SoftJaccardSpec, SoftDiceSpec]
    specs = [kind(logits=output) for kind in kinds for output in ("main", "aux")]
    values = build_losses(specs, 3)(lambda output: logits if output == "main" else logits.flip(1), label, label != 255)
    assert list(values) == [f"{kind.model_fields['kind'].default}_{output}" for kind in kinds for output in ("main", "aux")]
    for value in values.values():
        (gradient,) = torch.autograd.grad(value, logits, retain_graph=True)
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0
