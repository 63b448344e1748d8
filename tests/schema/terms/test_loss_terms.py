"""A loss term as `presets show` prints it: defaults stay out, everything else is there."""

import pytest

from segctl.schema.load import load_preset
from segctl.schema.terms.formula import total_loss
from segctl.schema.terms.loss_terms import (
    CrossEntropySpec,
    FocalSpec,
    JDTSpec,
    KLSpec,
    LossTermSpec,
    LovaszSpec,
    OhemSpec,
    SoftDiceSpec,
    SoftJaccardSpec,
)


@pytest.mark.parametrize(
    ("term", "shown"),
    [
        (CrossEntropySpec(), "CE(main, y)"),
        (CrossEntropySpec(logits="aux", class_weights=(1, 2)), "CE(aux, y; weighted classes)"),
        (FocalSpec(gamma=1.5), "Focal(main, y; γ=1.5)"),
        (OhemSpec(), "OHEM(main, y; p<0.7, at least 0.0625 of the pixels)"),
        (KLSpec(), "KL(y ‖ main)"),
        (LovaszSpec(), "Lovász(main, y)"),
        (LovaszSpec(per_image=True, active="all"), "Lovász(main, y; per image, all classes)"),
        (SoftJaccardSpec(), "softJaccard(main, y)"),
        (SoftDiceSpec(smooth=0.5), "softDice(main, y; s=0.5)"),
        (JDTSpec(), "Jaccard_D(main, y)"),
        (JDTSpec(alpha=0.5, beta=0.5, miou_d=0, miou_i=0.5, miou_c=0.5), "Dice_0.5I+0.5C(main, y)"),
        (JDTSpec(alpha=0.3, beta=0.7, log_loss=True, gamma=2), "log Tversky(0.3, 0.7)_D^2(main, y)"),
        (
            JDTSpec(smooth=1.0, norm=2, threshold=0.2, reduce="local", active_hard="all", class_weights=(1, 2)),
            "Jaccard_D(main, y; s=1, norm=2, threshold=0.2, each process's own images, all classes, weighted classes)",
        ),
        (JDTSpec(active_soft="present"), "Jaccard_D(main, y)"),
    ],
)
def test_a_term_on_hard_labels(term: LossTermSpec, shown: str) -> None:
    assert term.formula("y", soft=False) == shown


def test_the_active_classes_shown_are_those_of_the_labels_there_are() -> None:
    assert JDTSpec(active_hard="all").formula("y'", soft=True) == "Jaccard_D(main, y')"
    assert JDTSpec(active_soft="present").formula("y'", soft=True) == "Jaccard_D(main, y'; present classes)"


def test_a_distillation_term_shows_its_classes_too() -> None:
    run = load_preset("camvid-psp18", ["distiller.terms.2.active=present", "distiller.terms.2.reduce=local"])
    assert (
        total_loss(run).splitlines()[-1] == "  + 0.375·Jaccard_D(main, teacher; s=1, each process's own images, present classes)"
    )
