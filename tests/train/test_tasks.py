"""A micro-batch knows its share of the batch, and the teacher stays a teacher."""

import pytest
import torch
from toy import CLASSES, TwoLayers

from segctl.distillers import build_distiller
from segctl.distillers.align import Pair, Shape
from segctl.losses.sums import choose
from segctl.models.outputs import Outputs
from segctl.schema.labels import BoundaryLabels, HardLabels
from segctl.schema.terms.distill_terms import PixelKLSpec, SoftJDTSpec, SoftKLSpec
from segctl.schema.terms.loss_terms import CrossEntropySpec, JDTSpec, KLSpec
from segctl.schema.terms.methods import DistillerSpec
from segctl.train import tasks
from segctl.train.tasks import DistillationTask, Share, SupervisedTask
from segctl.train.tasks import _outputs as outputs_of


def batch(images: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    pictures = torch.randint(0, 256, (images, 16, 20, 3), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, CLASSES, (images, 16, 20), generator=generator, dtype=torch.uint8)
    labels[0, :12] = 255  # so that parts of the batch differ in valid pixels
    return pictures, labels


def test_pixel_means_of_unequal_parts_add_up_to_the_mean_over_the_batch() -> None:
    images, labels = batch()
    task = SupervisedTask(TwoLayers(), HardLabels(), [CrossEntropySpec(), CrossEntropySpec(logits="aux", weight=0.4)]).double()
    whole = task(images, labels).loss
    whole.backward()
    wanted = [parameter.grad.clone() for parameter in task.parameters()]
    task.zero_grad()
    valid = (labels != 255).sum((1, 2)).double()
    for part in (slice(0, 1), slice(1, 4)):
        share = Share(float(valid[part].sum() / valid.sum()), (part.stop - part.start) / 4)
        task(images[part], labels[part], share).loss.backward()
    for parameter, gradient in zip(task.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-9, atol=1e-12)


def test_the_loss_is_the_weighted_sum_of_the_named_terms() -> None:
    images, labels = batch()
    specs = [CrossEntropySpec(weight=0.25), JDTSpec(weight=0.75, smooth=1.0), JDTSpec(weight=0.5, miou_d=0, miou_i=1)]
    step = SupervisedTask(TwoLayers(), HardLabels(), specs)(images, labels)
    assert list(step.terms) == ["cross_entropy_main", "jdt_main", "jdt_main_2"]
    torch.testing.assert_close(step.loss, sum(step.terms.values()))


def test_soft_labels_leave_ignored_pixels_out() -> None:
    images, labels = batch()
    task = SupervisedTask(TwoLayers(), BoundaryLabels(), [KLSpec(), JDTSpec(smooth=1.0)])
    before = task(images, labels).loss
    changed = images.clone()
    wholly_ignored = torch.full_like(labels[:1], 255)
    loss = task(torch.cat([changed, changed[:1]]), torch.cat([labels, wholly_ignored])).loss
    torch.testing.assert_close(loss, before)


def distillation_task() -> DistillationTask:
    terms = (PixelKLSpec(), SoftKLSpec(logits="aux", weight=0.5), SoftJDTSpec(weight=2.0, smooth=1.0))
    torch.manual_seed(0)
    student, teacher = TwoLayers(), TwoLayers(stride=2)
    distiller = build_distiller(DistillerSpec(label_weight=0.5, terms=terms), pair_of(student, teacher))
    return DistillationTask(student, HardLabels(), [CrossEntropySpec()], teacher, distiller)


def pair_of(student: TwoLayers, teacher: TwoLayers) -> Pair:
    with torch.no_grad():
        return Pair(*(Shape.of(network(torch.zeros(1, 3, 16, 20))) for network in (student, teacher)))


def test_training_mode_does_not_wake_the_teacher() -> None:
    task = distillation_task()
    task.train()
    assert not task.teacher.training
    assert task.model.training


def test_the_teacher_is_neither_saved_nor_trained_with_the_student() -> None:
    task = distillation_task()
    owned = {id(parameter) for parameter in task.parameters()}
    assert not any(id(parameter) in owned for parameter in task.teacher.parameters())
    images, labels = batch()
    task(images, labels).loss.backward()
    assert all(parameter.grad is None for parameter in task.teacher.parameters())
    assert all(parameter.grad is not None for parameter in task.model.parameters())


def test_label_weight_scales_the_task_loss_and_nothing_else() -> None:
    images, labels = batch()
    task = distillation_task()
    half = task(images, labels).terms
    task.distiller.label_weight = 1.0
    full = task(images, labels).terms
    torch.testing.assert_close(full["cross_entropy_main"], 2 * half["cross_entropy_main"])
    torch.testing.assert_close(full["soft_jdt_main"], half["soft_jdt_main"])


def test_a_student_learns_from_a_teacher_of_another_stride() -> None:
    images, labels = batch()
    assert torch.isfinite(distillation_task()(images, labels).loss)


def test_a_step_upsamples_nothing_where_all_terms_read_head_stride(monkeypatch: pytest.MonkeyPatch) -> None:
    """And gives the loss and the gradients that it gives with everything upsampled."""
    images, labels = batch()
    found = []
    for worthwhile in (0, 1 << 30):
        monkeypatch.setattr(choose, "WORTHWHILE", worthwhile)
        made: list[Outputs] = []
        monkeypatch.setattr(tasks, "_outputs", lambda *arguments, made=made: made.append(outputs_of(*arguments)) or made[-1])
        torch.manual_seed(0)
        losses = [CrossEntropySpec(weight=0.25), JDTSpec(weight=0.75), CrossEntropySpec(logits="aux", weight=0.4)]
        task = SupervisedTask(TwoLayers(stride=2), HardLabels(), losses)
        loss = task(images, labels).loss
        loss.backward()
        found.append((loss.detach(), [parameter.grad for parameter in task.parameters()]))
        assert bool(made[0]._upsampled) == (worthwhile > 0)
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)
