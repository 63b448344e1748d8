"""JML-KD: soft labels from the teacher at label size."""

import math

import pytest
import torch
from distillers_golden import golden_inputs, golden_pair, outputs, pair_of
from torch import Tensor

from segctl.distillers import build_distiller, jml
from segctl.distillers.jml import SoftJDT, SoftKL, soft_label
from segctl.errors import PresetError
from segctl.losses import CrossEntropyLoss, JDTLoss, KLLoss
from segctl.losses.sums import choose
from segctl.losses.teacher_calibration import calibrate
from segctl.models.outputs import upsample
from segctl.schema.load import load_preset, with_method
from segctl.schema.run import DistillRun
from segctl.schema.terms.distill_terms import CalibrationSpec, SoftJDTSpec, SoftKLSpec
from segctl.schema.terms.formula import total_loss
from segctl.schema.terms.methods import METHODS, DistillerSpec, method_of, published_bundle


def test_golden_kl_over_valid_pixels() -> None:
    student, teacher, label = golden_inputs()
    assert SoftKL()(outputs(student), outputs(teacher), label).item() == pytest.approx(2.24799810, abs=1e-6)


@pytest.mark.parametrize(("smooth", "value"), [(1.0, 0.76177425), (1e-3, 0.79035727)])
def test_golden_jaccard_over_all_classes(smooth: float, value: float) -> None:
    student, teacher, label = golden_inputs()
    loss = SoftJDT(JDTLoss(smooth=smooth))(outputs(student), outputs(teacher), label)
    assert loss.item() == pytest.approx(value, abs=1e-6)


def test_golden_total_of_the_recipe_on_the_main_head() -> None:
    student, teacher, label = golden_inputs()
    recipe = METHODS["jml"]
    assert recipe is not None
    distiller = build_distiller(recipe, golden_pair())
    values = distiller(outputs(student, student), outputs(teacher, teacher), label)
    distilled = sum(distiller.weights[name] * values[name].item() for name in ("soft_kl_main", "soft_jdt_main"))
    cross_entropy = CrossEntropyLoss()(student, label).item()
    jaccard = JDTLoss(smooth=1.0, ignore_index=255)(student, label).item()
    task = 0.125 * cross_entropy + 0.75 * jaccard
    assert distiller.label_weight * task + distilled == pytest.approx(0.92813079, abs=1e-6)


def test_the_auxiliary_term_compares_auxiliary_logits() -> None:
    student, teacher, label = golden_inputs()
    zeros = torch.zeros_like(student)
    loss = SoftKL(logits="aux")(outputs(zeros, student), outputs(zeros, teacher), label)
    assert loss.item() == pytest.approx(2.24799810, abs=1e-6)


def test_logits_are_compared_at_label_size_whatever_their_head_strides() -> None:
    student, teacher, _ = golden_inputs()
    label = torch.zeros(2, 24, 32, dtype=torch.long)
    coarse = teacher[..., ::2, ::2]
    big_student, big_teacher = (upsample(logits, (24, 32)) for logits in (student, coarse))
    for term in (SoftKL(), SoftJDT(JDTLoss())):
        small = term(outputs(student, size=(24, 32)), outputs(coarse, size=(24, 32)), label)
        large = term(outputs(big_student, size=(24, 32)), outputs(big_teacher, size=(24, 32)), label)
        assert small.item() == large.item()


def test_temperature_softens_both_sides() -> None:
    student, teacher, _ = golden_inputs()
    everything = torch.zeros(2, 6, 8, dtype=torch.long)
    loss = SoftKL(temperature=4.0)(outputs(student), outputs(teacher), everything)
    assert loss.item() == pytest.approx(3.98854981, abs=1e-6)


def test_soft_labels_are_float32_probabilities_without_gradient() -> None:
    q = soft_label(torch.randn(2, 3, 4, 4, dtype=torch.bfloat16, requires_grad=True), 2.0)
    assert q.dtype == torch.float32
    assert not q.requires_grad
    torch.testing.assert_close(q.sum(1), torch.ones(2, 4, 4))


@pytest.mark.parametrize("term", [SoftKL(), SoftJDT(JDTLoss())])
def test_ignored_pixels_change_neither_value_nor_gradient(term: SoftKL | SoftJDT) -> None:
    student, teacher, label = golden_inputs()
    student.requires_grad_()
    other = torch.where((label == 255).unsqueeze(1), 9 * teacher.flip(1), teacher)
    values = [term(outputs(student), outputs(logits), label) for logits in (teacher, other)]
    gradients = [torch.autograd.grad(value, student)[0] for value in values]
    assert values[0].item() == values[1].item()
    assert torch.equal(*gradients)
    assert (gradients[0].masked_fill((label != 255).unsqueeze(1), 0.0) == 0).all()


def test_calibrated_terms_compare_with_calibrated_probabilities() -> None:
    """Keys enough for every pixel make the draw certain; the student then sees these probabilities as its soft label."""
    student, teacher, label = golden_inputs()
    calibration = CalibrationSpec(keys=1000, bandwidth=0.1)
    specs = (SoftKLSpec(calibration=calibration), SoftJDTSpec(calibration=calibration))
    values = build_distiller(DistillerSpec(terms=specs), golden_pair())(outputs(student), outputs(teacher), label)
    q = calibrate(teacher.softmax(1), label, keys=1000, bandwidth=0.1)
    torch.testing.assert_close(values["soft_kl_main"], KLLoss()(student, q, label != 255))
    torch.testing.assert_close(values["soft_jdt_main"], JDTLoss()(student, q, label != 255))
    assert values["soft_kl_main"].item() != pytest.approx(2.24799810, abs=1e-3)


def test_the_published_recipe_does_not_calibrate() -> None:
    recipe = METHODS["jml"]
    assert recipe is not None
    assert [term.calibration for term in recipe.terms if isinstance(term, SoftKLSpec | SoftJDTSpec)] == [None] * 3


def test_the_formula_shows_the_calibration() -> None:
    run = load_preset("camvid-psp18", ["distiller.terms.2.calibration={keys: 64, bandwidth: 0.01}"])
    last = total_loss(run).splitlines()[-1]
    assert last == "  + 0.375·Jaccard_D(main, teacher calibrated(h 0.01, 64 balanced keys, 3×3); s=1)"


def small_pair() -> tuple[Tensor, Tensor, Tensor]:
    """Student and teacher logits at other strides, and a label with ignored pixels."""
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 5, 4, 6, requires_grad=True), 2 * torch.randn(2, 5, 6, 9)
    return student, teacher, torch.randint(0, 5, (2, 24, 36)).masked_fill(torch.rand(2, 24, 36) < 0.1, 255)


@pytest.mark.parametrize(
    "term", [SoftKL(), SoftKL(temperature=3.0), SoftJDT(JDTLoss()), SoftJDT(JDTLoss(norm=2, miou_i=0.5, smooth=1.0))]
)
def test_terms_at_head_stride_give_what_upsampling_first_gives(term: SoftKL | SoftJDT, monkeypatch: pytest.MonkeyPatch) -> None:
    student, teacher, label = small_pair()
    found = []
    for worthwhile in (0, 1 << 20):
        monkeypatch.setattr(choose, "WORTHWHILE", worthwhile)
        ours = outputs(student, size=(24, 36))
        value = term(ours, outputs(teacher, size=(24, 36)), label)
        found.append((value, torch.autograd.grad(value, student)[0], bool(ours._upsampled)))
    assert [upsampled for _, _, upsampled in found] == [False, True]
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-4, atol=1e-7)


def test_the_terms_of_the_recipe_share_one_reading_of_each_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "WORTHWHILE", 0)
    readings, original = [], jml.sums_at_stride
    monkeypatch.setattr(jml, "sums_at_stride", lambda *arguments: readings.append(1) or original(*arguments))
    student, teacher, label = small_pair()
    recipe = METHODS["jml"]
    assert recipe is not None
    ours, theirs = (outputs(logits, logits, size=(24, 36)) for logits in (student, teacher))
    values = build_distiller(recipe, pair_of(ours, theirs))(ours, theirs, label)
    assert (len(values), len(readings)) == (3, 2)
    assert not ours._upsampled
    assert not theirs._upsampled
    torch.testing.assert_close(values["soft_kl_aux"], values["soft_kl_main"])


@pytest.mark.parametrize("kind", ["soft_kl", "soft_jdt"])
def test_all_pixels_count_where_the_term_says_so_and_labels_then_change_nothing(kind: str) -> None:
    student, teacher, label = golden_inputs()
    assert (label == 255).any()
    labelled, everything = torch.zeros_like(label), torch.full_like(label, 255)
    term: dict[str, SoftKL | SoftJDT] = {
        pixels: SoftKL(pixels=pixels) if kind == "soft_kl" else SoftJDT(JDTLoss(smooth=1.0), pixels=pixels)  # type: ignore[arg-type, misc]
        for pixels in ("labelled", "all")
    }
    values = [term["all"](outputs(student), outputs(teacher), each).item() for each in (label, labelled, everything)]
    assert values == [pytest.approx(term["labelled"](outputs(student), outputs(teacher), labelled).item(), abs=1e-6)] * 3
    assert term["labelled"](outputs(student), outputs(teacher), label).item() != pytest.approx(values[0], abs=1e-3)
    assert term["labelled"](outputs(student), outputs(teacher), everything).item() == 0 or kind == "soft_jdt"


def test_two_terms_over_other_pixels_share_no_sums() -> None:
    """One pixel of two is ignored: the mean over both is half the sum, by hand."""
    student, teacher = torch.zeros(1, 2, 1, 2), torch.tensor([[[[0.0, 4.0]], [[0.0, 0.0]]]])
    label = torch.tensor([[[0, 255]]])
    shared = outputs(student, size=(1, 2))
    q = 1 / (1 + math.exp(-4))
    by_hand = (q * math.log(2 * q) + (1 - q) * math.log(2 * (1 - q))) / 2
    theirs = outputs(teacher, size=(1, 2))
    assert SoftKL()(shared, theirs, label).item() == pytest.approx(0, abs=1e-6)
    assert SoftKL(pixels="all")(shared, theirs, label).item() == pytest.approx(by_hand, abs=1e-6)


def test_parts_of_a_batch_add_up_by_images_where_all_pixels_count() -> None:
    assert SoftKL().mean_over_pixels
    assert not SoftKL(pixels="all").mean_over_pixels


def test_jml_compares_all_pixels_where_a_part_of_the_pictures_has_no_label() -> None:
    whole, partly = (published_bundle("jml", "camvid", True, labelled) for labelled in (True, False))
    assert whole == METHODS["jml"]
    assert partly is not None
    assert [term.pixels for term in partly.terms] == ["all"] * 3  # type: ignore[union-attr]
    assert method_of(partly) == method_of(whole) == "jml"
    run = load_preset("camvid-psp18", ["data.labelled=0.5"])
    assert isinstance(run, DistillRun)
    distilled = with_method(run, "jml")
    assert isinstance(distilled, DistillRun)
    assert distilled.distiller == partly
    assert "all pixels" in total_loss(distilled)


@pytest.mark.parametrize("labelled", [True, False])
def test_without_an_auxiliary_head_only_the_term_on_its_logits_is_left_out(labelled: bool) -> None:
    full, without = (published_bundle("jml", "camvid", aux, labelled) for aux in (True, False))
    assert full is not None
    assert without is not None
    assert without.terms == tuple(each for each in full.terms if each.logits != "aux")
    assert len(without.terms) == len(full.terms) - 1
    assert without.label_weight == full.label_weight
    assert method_of(without) == "jml"


def test_a_calibration_needs_a_label_at_every_pixel() -> None:
    with pytest.raises(PresetError, match=r"calibration: got a calibration with pixels 'all', wanted pixels 'labelled'"):
        load_preset("camvid-psp18", ["distiller.terms.0.pixels=all", "distiller.terms.0.calibration={keys: 8, bandwidth: 0.01}"])
