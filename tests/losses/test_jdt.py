"""JDTLoss against a slow reference, against cases checked by hand, and against what it must not do."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from losses_reference import golden_inputs, slow_jdt
from torch import Tensor

from segctl.errors import ArgumentError
from segctl.losses.jdt import JDTLoss

MEANS = [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.2, 0.3, 0.5)]
INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]


def means(weights: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip(("miou_d", "miou_i", "miou_c"), weights, strict=True))


def probabilities(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64).mul(2).softmax(1)


def two_pixels() -> tuple[Tensor, Tensor]:
    """Pixel 0 is of class 0 with p = (0.75, 0.25), pixel 1 of class 1 with p = (0.4, 0.6)."""
    p = torch.tensor([[[0.75, 0.4], [0.25, 0.6]]], dtype=torch.float64)
    return p.log(), torch.tensor([[0, 1]])


# By hand.  Class 0: tp 0.75, fp 0.40, fn 0.25.  Class 1: tp 0.60, fp 0.25, fn 0.40.


@pytest.mark.parametrize(
    ("options", "index_0", "index_1"),
    [
        ({}, 0.75 / 1.4, 0.6 / 1.25),
        ({"alpha": 0.5, "beta": 0.5}, 0.75 / 1.075, 0.6 / 0.925),
        ({"alpha": 0.3, "beta": 0.7}, 0.75 / (0.75 + 0.12 + 0.175), 0.6 / (0.6 + 0.075 + 0.28)),
        ({"smooth": 1.0}, 1.75 / 2.4, 1.6 / 2.25),
        ({"norm": 2}, 0.75 / (0.5625 + 0.16 + 1 - 0.75), 0.6 / (0.0625 + 0.36 + 1 - 0.6)),
    ],
)
def test_two_pixels_and_two_classes_come_out_as_by_hand(options: dict[str, Any], index_0: float, index_1: float) -> None:
    loss = JDTLoss(**{"smooth": 0.0, **options})(*two_pixels())
    assert loss.item() == pytest.approx(1 - (index_0 + index_1) / 2, abs=1e-12)


def test_gamma_raises_each_class_before_the_mean() -> None:
    loss = JDTLoss(smooth=0.0, gamma=2.0)(*two_pixels())
    assert loss.item() == pytest.approx(((1 - 0.75 / 1.4) ** 2 + (1 - 0.6 / 1.25) ** 2) / 2, abs=1e-12)


def test_log_loss_is_the_mean_of_the_logarithms() -> None:
    loss = JDTLoss(smooth=1.0, log_loss=True)(*two_pixels())
    assert loss.item() == pytest.approx(-(np.log(1.75 / 2.4) + np.log(1.6 / 2.25)) / 2, abs=1e-12)


def test_class_weights_multiply_and_the_sum_is_divided_by_the_number_of_active_classes() -> None:
    loss = JDTLoss(smooth=0.0, class_weights=[1.0, 4.0])(*two_pixels())
    assert loss.item() == pytest.approx(((1 - 0.75 / 1.4) + 4 * (1 - 0.6 / 1.25)) / 2, abs=1e-12)


def test_image_means_go_over_classes_first_and_class_means_over_images_first() -> None:
    """Image 0 holds both classes, image 1 only class 1: I weighs the three pairs ¼, ¼, ½ and C weighs them ½, ¼, ¼."""
    logits, label = two_pixels()
    second = torch.tensor([[[0.2, 0.2], [0.8, 0.8]]], dtype=torch.float64).log()
    both, labels = torch.cat([logits, second]), torch.cat([label, torch.tensor([[1, 1]])])
    pairs = 1 - 0.75 / 1.4, 1 - 0.6 / 1.25, 1 - 1.6 / 2.0
    of_images = JDTLoss(0.0, 1.0, 0.0, smooth=0.0)(both, labels)
    of_classes = JDTLoss(0.0, 0.0, 1.0, smooth=0.0)(both, labels)
    assert of_images.item() == pytest.approx((pairs[0] + pairs[1]) / 4 + pairs[2] / 2, abs=1e-12)
    assert of_classes.item() == pytest.approx(pairs[0] / 2 + (pairs[1] + pairs[2]) / 4, abs=1e-12)


def test_norm_2_keeps_an_error_below_zero_for_a_whole_gamma() -> None:
    """p = (.3, .7) and y = (.6, .4). Class 0: tp .18, fp .09 - .18; class 1: tp .28, fp .49 - .28.

    1 - T = fp / (tp + fp) with alpha 1 and beta 0: -.09 / .09 = -1 and .21 / .49 = 3/7.
    """
    p, y = (torch.tensor(values, dtype=torch.float64).view(1, 2, 1) for values in ([0.3, 0.7], [0.6, 0.4]))
    values = [JDTLoss(alpha=1, beta=0, gamma=gamma, smooth=0.0, norm=2)(p.log(), y).item() for gamma in (1, 2, 3)]
    assert values == pytest.approx([(-1 + 3 / 7) / 2, (1 + (3 / 7) ** 2) / 2, (-1 + (3 / 7) ** 3) / 2], abs=1e-12)
    assert JDTLoss(alpha=1, beta=0, gamma=2, norm=2)(p.log(), y).item() == pytest.approx(0.5805, abs=5e-5)


def test_norm_2_with_unequal_weights_agrees_with_the_slow_reference() -> None:
    for seed in range(20):
        logits, label, keep_mask, options = random_case(seed)
        options |= {"norm": 2, "alpha": 0.9, "beta": 0.1 * (seed % 3), "gamma": float(1 + seed % 3), "smooth": 0.1}
        options |= {"class_weights": None, "log_loss": False}
        expected = slow_jdt(logits.numpy(), label.numpy(), None if keep_mask is None else keep_mask.numpy(), **options)
        assert JDTLoss(**options)(logits, label, keep_mask).item() == pytest.approx(expected, rel=1e-9, abs=1e-12), seed


@pytest.mark.parametrize("mode", ["probability", "both", "present"])
def test_classes_by_prediction_and_products_agree_with_the_slow_reference(mode: str) -> None:
    for seed in range(40):
        logits, label, keep_mask, options = random_case(seed)
        options |= {"active_hard": mode, "active_soft": mode, "class_weights": None, "threshold": (0.3, 0.6, 0.9)[seed % 3]}
        if options["norm"] == 1:
            options["overlap"] = ("minimum", "product")[seed // 2 % 2]
        expected = slow_jdt(logits.numpy(), label.numpy(), None if keep_mask is None else keep_mask.numpy(), **options)
        assert JDTLoss(**options)(logits, label, keep_mask).item() == pytest.approx(expected, rel=1e-9, abs=1e-12), seed


def test_classes_by_prediction_by_hand() -> None:
    """Class 0 reaches p = .75 and p + y = 1.75, class 1 reaches .6 and 1.6."""
    first, second = 1 - 0.75 / 1.4, 1 - 0.6 / 1.25
    for mode, threshold, expected in (
        ("probability", 0.7, first),
        ("probability", 0.5, (first + second) / 2),
        ("both", 1.7 - 1e-9, first),
        ("both", 1.5, (first + second) / 2),
        ("probability", 0.8, 0),
    ):
        loss = JDTLoss(smooth=0.0, threshold=threshold, active_hard=mode)  # type: ignore[arg-type]
        assert loss(*two_pixels()).item() == pytest.approx(expected, abs=1e-12)


def test_products_by_hand() -> None:
    """p = (.3, .7), y = (.6, .4): sum p·y .18 and .28, sum |p - y| .3 and .3."""
    p, y = (torch.tensor(values, dtype=torch.float64).view(1, 2, 1) for values in ([0.3, 0.7], [0.6, 0.4]))
    loss = JDTLoss(smooth=0.0, overlap="product")
    assert loss(p.log(), y).item() == pytest.approx(1 - (0.18 / 0.48 + 0.28 / 0.58) / 2, abs=1e-12)
    assert loss(y.log(), y).item() == pytest.approx(0, abs=1e-12)  # a match costs nothing, as with the minimum
    logits, label = two_pixels()
    assert loss(logits, label).item() == JDTLoss(smooth=0.0)(logits, label).item()


# Golden values of the published recipe.


def test_golden_hard_labels() -> None:
    student, _, label = golden_inputs()
    assert JDTLoss(smooth=1.0, ignore_index=5)(student, label).item() == pytest.approx(0.85824047, abs=1e-6)


@pytest.mark.parametrize(("smooth", "value"), [(1.0, 0.76177425), (1e-3, 0.79035727)])
def test_golden_soft_labels_over_all_classes(smooth: float, value: float) -> None:
    student, teacher, label = golden_inputs()
    loss = JDTLoss(smooth=smooth, active_soft="all")(student, teacher.softmax(1), label != 5)
    assert loss.item() == pytest.approx(value, abs=1e-6)


# Random options against the slow reference.


def random_case(seed: int) -> tuple[Tensor, Tensor, Tensor | None, dict[str, Any]]:
    draw = random.Random(seed)
    torch.manual_seed(seed)
    batch, num_classes = draw.choice([1, 2, 3]), draw.choice([2, 3, 7])
    space = draw.choice([(), (6,), (3, 4), (2, 3, 2)])
    logits = torch.randn(batch, num_classes, *space, dtype=torch.float64) * draw.choice([0.1, 1, 5])
    options: dict[str, Any] = {
        **means(draw.choice(MEANS)),
        "alpha": draw.choice([0.0, 0.3, 0.5, 1.0]),
        "gamma": draw.choice([1.0, 1.5, 3.0]),
        "smooth": draw.choice([1e-3, 1.0, 10.0]),
        "norm": draw.choice([1, 2]),
        "log_loss": draw.random() < 0.3,
        "threshold": draw.choice([0.01, 0.3]),
        "class_weights": draw.choice([None, [draw.random() for _ in range(num_classes)]]),
        "active_hard": draw.choice(["present", "all"]),
        "active_soft": draw.choice(["present", "all"]),
    }
    options["beta"] = draw.choice([0.0, 0.5, 0.7, 1.0]) if options["norm"] == 1 else options["alpha"]
    keep_mask = torch.rand(batch, *space) < 0.7 if draw.random() < 0.5 else None
    if draw.random() < 0.5:
        return logits, probabilities(batch, num_classes, *space), keep_mask, options
    options["ignore_index"] = draw.choice([None, 255, num_classes - 1])
    label = torch.randint(0, num_classes, (batch, *space))
    if options["ignore_index"] is not None:
        label[torch.rand(batch, *space) < 0.3] = options["ignore_index"]
    return logits, label, keep_mask, options


def test_every_option_agrees_with_the_slow_reference() -> None:
    for seed in range(80):
        logits, label, keep_mask, options = random_case(seed)
        loss = JDTLoss(**options).double()
        if loss.class_weights is not None:
            loss.class_weights.copy_(torch.tensor(options["class_weights"], dtype=torch.float64))
        expected = slow_jdt(logits.numpy(), label.numpy(), None if keep_mask is None else keep_mask.numpy(), **options)
        assert loss(logits, label, keep_mask).item() == pytest.approx(expected, rel=1e-9, abs=1e-12), seed


def test_float32_agrees_with_float64() -> None:
    for seed in range(0, 80, 4):
        logits, label, keep_mask, options = random_case(seed)
        loss = JDTLoss(**options)
        exact = loss(logits, label, keep_mask)
        assert loss(logits.float(), label, keep_mask).item() == pytest.approx(exact.item(), rel=2e-5, abs=1e-6), seed


# What stays the same, and what is zero.


@pytest.mark.parametrize("weights", MEANS)
@pytest.mark.parametrize("soft", [False, True])
def test_the_order_of_pixels_and_of_classes_does_not_matter(weights: tuple[float, float, float], soft: bool) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 30, dtype=torch.float64)
    label = probabilities(2, 4, 30) if soft else torch.randint(0, 4, (2, 30))
    pixels, classes = torch.randperm(30), torch.randperm(4)
    loss = JDTLoss(**means(weights))
    renamed = label[:, classes] if soft else classes.argsort()[label]
    assert loss(logits[..., pixels], label[..., pixels]).item() == pytest.approx(loss(logits, label).item(), abs=1e-12)
    assert loss(logits[:, classes], renamed).item() == pytest.approx(loss(logits, label).item(), abs=1e-12)


@pytest.mark.parametrize("norm", [1, 2])
def test_jaccard_is_symmetric_between_two_probability_maps(norm: int) -> None:
    torch.manual_seed(0)
    p, q = probabilities(2, 4, 30), probabilities(2, 4, 30)
    loss = JDTLoss(norm=norm)
    assert loss(p.log(), q).item() == pytest.approx(loss(q.log(), p).item(), abs=1e-12)


@pytest.mark.parametrize("norm", [1, 2])
@pytest.mark.parametrize("weights", MEANS)
@pytest.mark.parametrize("log_loss", [False, True])
def test_a_perfect_match_costs_nothing_even_when_labels_are_soft(
    norm: int, weights: tuple[float, float, float], log_loss: bool
) -> None:
    torch.manual_seed(0)
    q = probabilities(2, 4, 30)
    loss = JDTLoss(norm=norm, log_loss=log_loss, gamma=1.5, **means(weights))
    assert loss(q.log(), q).item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("weights", MEANS)
@pytest.mark.parametrize("norm", [1, 2])
@pytest.mark.parametrize("active", ["present", "all"])
def test_hard_labels_equal_their_one_hot_form(weights: tuple[float, float, float], norm: int, active: Any) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 30, dtype=torch.float64, requires_grad=True)
    label = torch.randint(0, 4, (2, 30))
    one_hot = torch.nn.functional.one_hot(label, 5).permute(0, 2, 1).double()
    keep_mask = torch.rand(2, 30) < 0.8
    loss = JDTLoss(norm=norm, active_hard=active, active_soft=active, **means(weights))
    hard, soft = loss(logits, label, keep_mask), loss(logits, one_hot, keep_mask)
    torch.testing.assert_close(hard, soft, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        *[torch.autograd.grad(value, logits)[0] for value in (hard, soft)],
        rtol=0,
        atol=1e-12,
    )


@pytest.mark.parametrize("soft", [False, True])
def test_dataset_and_image_means_agree_on_a_batch_of_one(soft: bool) -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 4, 30, dtype=torch.float64)
    label = probabilities(1, 4, 30) if soft else torch.randint(0, 3, (1, 30))
    values = [JDTLoss(**means(weights))(logits, label).item() for weights in MEANS]
    assert values == pytest.approx([values[0]] * 4, abs=1e-12)


# Gradients.


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"alpha": 0.5, "beta": 0.5, "norm": 2},
        {"alpha": 0.3, "beta": 0.7, "gamma": 2.0, "miou_i": 0.5, "miou_c": 0.25},
        {"log_loss": True, "smooth": 1.0, "class_weights": [0.5, 1.0, 2.0]},
        {"active_hard": "all", "active_soft": "present", "threshold": 0.4, "miou_d": 0.0, "miou_c": 1.0},
    ],
)
def test_the_gradient_is_that_of_the_value(soft: bool, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4, 2, dtype=torch.float64, requires_grad=True)
    label = probabilities(2, 3, 4, 2) if soft else torch.randint(0, 3, (2, 4, 2), dtype=torch.uint8)
    keep_mask = torch.rand(2, 4, 2) < 0.8
    loss = JDTLoss(**options)
    assert torch.autograd.gradcheck(lambda x: loss(x, label, keep_mask), (logits,))


@pytest.mark.parametrize("gamma", [1.0, 1.5])
def test_a_perfect_match_in_float32_has_a_finite_gradient(gamma: float) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 3000, requires_grad=True)
    (gradient,) = torch.autograd.grad(JDTLoss(gamma=gamma)(logits, logits.detach().softmax(1)), logits)
    assert gradient.isfinite().all()


# Precision.


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("soft", [False, True])
def test_half_precision_logits_are_summed_in_float32(dtype: torch.dtype, soft: bool) -> None:
    """A sum over these 90,000 pixels overflows float16."""
    torch.manual_seed(0)
    logits = torch.randn(1, 2, 300, 300).to(dtype).requires_grad_()
    label = torch.rand(1, 2, 300, 300).softmax(1).to(dtype) if soft else torch.randint(0, 2, (1, 300, 300))
    loss = JDTLoss()(logits, label)
    (gradient,) = torch.autograd.grad(loss * 1000, logits)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(JDTLoss()(logits.double(), label).item(), abs=1e-5)
    assert gradient.dtype == dtype
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0


def test_a_large_image_of_one_class_is_summed_exactly() -> None:
    """Adding 0.9 half a million times into one float32, one by one, is off by half a per cent."""
    logits = torch.tensor([0.9, 0.1]).log().view(1, 2, 1, 1).expand(1, 2, 512, 1024)
    label = torch.zeros(1, 512, 1024, dtype=torch.uint8)
    assert JDTLoss()(logits, label).item() == pytest.approx(0.1, abs=3e-6)


def test_autocast_changes_nothing() -> None:
    torch.manual_seed(0)
    logits, label = torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 8, 8))
    plain = JDTLoss()(logits, label)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert JDTLoss()(logits, label).item() == plain.item()


@pytest.mark.slow
@pytest.mark.parametrize("soft", [False, True])
def test_it_compiles_into_one_graph(soft: bool) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4, 4)
    label = logits.flip(0).softmax(1) if soft else torch.randint(0, 3, (2, 4, 4))
    loss = JDTLoss(miou_i=0.5, ignore_index=255, class_weights=[1.0, 2.0, 3.0])
    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(logits, label), loss(logits, label))


# Labels, ignored pixels, absent classes.


@pytest.mark.parametrize("dtype", INTEGERS)
def test_every_integer_type_is_a_hard_label(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    logits, label = torch.randn(2, 3, 5, 5), torch.randint(0, 3, (2, 5, 5))
    assert JDTLoss()(logits, label.to(dtype)).item() == JDTLoss()(logits, label).item()


@pytest.mark.parametrize("dtype", INTEGERS)
def test_minus_one_is_ignored_in_signed_labels_and_nothing_in_unsigned_ones(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    logits, label = torch.randn(1, 3, 4), torch.tensor([[0, 1, 2, 2]])
    if dtype != torch.uint8:
        label[0, 3] = -1
    expected = JDTLoss()(logits, label.clamp(min=0), label >= 0)
    assert JDTLoss(ignore_index=-1)(logits, label.to(dtype)).item() == pytest.approx(expected.item(), abs=1e-7)


@pytest.mark.parametrize("weights", MEANS)
def test_ignore_index_and_keep_mask_work_together(weights: tuple[float, float, float]) -> None:
    torch.manual_seed(0)
    logits, label = torch.randn(2, 3, 30), torch.randint(0, 3, (2, 30))
    keep_mask = torch.rand(2, 30) < 0.7
    ignored = torch.rand(2, 30) < 0.3
    both = JDTLoss(ignore_index=255, **means(weights))(logits, label.masked_fill(ignored, 255), keep_mask)
    assert both.item() == JDTLoss(**means(weights))(logits, label, keep_mask & ~ignored).item()


def test_a_masked_pixel_may_hold_any_id_and_any_probability() -> None:
    torch.manual_seed(0)
    logits, keep_mask = torch.randn(1, 3, 4), torch.tensor([[True, True, False, True]])
    hard = torch.tensor([[0, 1, 77, 2]])
    soft = logits.flip(2).softmax(1)
    strange = soft.masked_fill(~keep_mask.unsqueeze(1), float("nan"))
    assert JDTLoss()(logits, hard, keep_mask).item() == JDTLoss()(logits, hard.clamp(max=2), keep_mask).item()
    assert JDTLoss()(logits, strange, keep_mask).item() == JDTLoss()(logits, soft, keep_mask).item()


@pytest.mark.parametrize("weights", MEANS)
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("active", ["present", "all"])
@pytest.mark.parametrize("options", [{}, {"smooth": 0.0}, {"log_loss": True}, {"norm": 2, "gamma": 1.5, "smooth": 0.0}])
def test_an_all_ignored_batch_gives_zero_and_a_zero_gradient(
    weights: tuple[float, float, float], soft: bool, active: Any, options: dict[str, Any]
) -> None:
    logits = torch.randn(2, 3, 4, requires_grad=True)
    label = torch.rand(2, 3, 4).softmax(1) if soft else torch.full((2, 4), 255)
    loss = JDTLoss(ignore_index=255, active_hard=active, active_soft=active, **means(weights), **options)
    value = loss(logits, label, torch.zeros(2, 4, dtype=torch.bool))
    (gradient,) = torch.autograd.grad(value, logits)
    assert value.item() == 0
    assert (gradient == 0).all()


def test_an_absent_class_is_left_out_under_present_and_costs_its_false_positives_under_all() -> None:
    logits, label = two_pixels()
    three = torch.cat([logits, torch.full((1, 1, 2), -np.log(4.0))], 1)
    p = three.softmax(1)
    present, every = (JDTLoss(smooth=1.0, active_hard=mode)(three, label).item() for mode in ("present", "all"))
    absent = 1 - 1 / (1 + p[0, 2].sum().item())
    assert every == pytest.approx((2 * present + absent) / 3, abs=1e-12)


def test_a_soft_class_is_present_above_the_threshold_only() -> None:
    logits = two_pixels()[0]
    label = torch.tensor([[[0.95, 0.9], [0.05, 0.1]]], dtype=torch.float64)
    alone = 1 - JDTLoss(smooth=0.0, threshold=0.1, active_soft="present")(logits, label).item()
    assert alone == pytest.approx((0.75 + 0.4) / (0.95 + 0.9), abs=1e-12)


def test_an_image_without_a_present_class_counts_nowhere() -> None:
    logits, label = two_pixels()
    both = torch.cat([logits, torch.randn(1, 2, 2)]), torch.cat([label, torch.full((1, 2), 255)])
    for weights in MEANS:
        loss = JDTLoss(ignore_index=255, **means(weights))
        assert loss(*both).item() == pytest.approx(loss(logits, label).item(), abs=1e-12)


def test_class_weights_are_a_buffer_that_moves_with_the_module() -> None:
    loss = JDTLoss(class_weights=[1.0, 2.0])
    assert [name for name, _ in loss.named_buffers()] == ["class_weights"]
    assert loss.to("meta").class_weights.device.type == "meta"


# Refusals.


@pytest.mark.parametrize("wrong", [-1, 2, 255])
def test_an_id_outside_the_classes_is_an_error_and_never_another_class(wrong: int) -> None:
    with pytest.raises(ValueError, match=f"label holds class id {wrong}, wanted 0 to 1 for 2 classes"):
        JDTLoss()(two_pixels()[0], torch.tensor([[0, wrong]]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"miou_d": 0.0}, "JDTLoss got miou_d, miou_i, miou_c [0.0, 0.0, 0.0], wanted none below 0 and one above"),
        ({"miou_i": -1.0}, "JDTLoss got miou_d, miou_i, miou_c [1.0, -1.0, 0.0], wanted none below 0 and one above"),
        ({"beta": -0.5}, "JDTLoss got alpha, beta, smooth [1.0, -0.5, 0.001], wanted none below 0"),
        ({"gamma": 0.5}, "JDTLoss got gamma 0.5, wanted at least 1 (below, a perfect match has an infinite gradient)"),
        (
            {"norm": 2, "alpha": 1.0, "beta": 0.0, "gamma": 1.5},
            "JDTLoss got gamma 1.5 with norm 2 and alpha other than beta, wanted a whole gamma (1 - T may be below 0 there)",
        ),
        ({"overlap": "sum"}, "JDTLoss got overlap 'sum', wanted 'minimum' or 'product'"),
        (
            {"overlap": "product", "norm": 2},
            "JDTLoss got overlap 'product' with norm 2, which has products already; wanted norm 1",
        ),
        ({"norm": 3}, "JDTLoss got norm 3, wanted 1 or 2"),
        (
            {"log_loss": True, "smooth": 0.0},
            "JDTLoss got log_loss with smooth 0.0, wanted smooth above 0 (a missed class has no finite logarithm)",
        ),
        ({"reduce": "sum"}, "JDTLoss got reduce 'sum', wanted 'local' or 'global'"),
        ({"class_weights": [1.0, -1.0]}, "JDTLoss got class_weights with a number below 0"),
        (
            {"active_soft": "ALL"},
            "JDTLoss got active_hard, active_soft ['present', 'ALL'], wanted 'present', 'all', 'probability', 'both'",
        ),
    ],
)
def test_an_argument_without_meaning_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError) as error:
        JDTLoss(**options)
    assert str(error.value) == message


def test_class_weights_of_another_number_of_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="class_weights has 3 numbers, wanted 2, one for each class of the logits"):
        JDTLoss(class_weights=[1.0, 1.0, 1.0])(*two_pixels())
