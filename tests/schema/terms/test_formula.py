"""The total loss of every method, as `presets show` prints it, and of terms stacked by hand."""

import pytest

from segctl.schema.load import load_preset, with_method
from segctl.schema.run import DistillRun
from segctl.schema.terms.formula import total_loss
from segctl.schema.terms.methods import METHODS, Method

TASK = "L = 1·CE(main, y) + 0.4·CE(aux, y)"
KD = "  + 1·KD(main at head stride, all pixels)"
GAN = "  + 0.001·[-mean D(main at head stride)], while D learns by 0.1·hinge"
FORMULAS: dict[Method, list[str]] = {
    "none": [TASK],
    "kd": [TASK, KD],
    "skd": [TASK, KD, "  + 10·pairwise similarity(features, max-pool 2)", GAN],
    "ifvd": [TASK, KD, "  + 20·intra-class variation(features, y)", GAN],
    "cwd": [
        TASK, KD, "  + 50·CWD(T 4, features, twice the mean over channels)", "  + 3·CWD(T 4, main at head stride)", GAN,
    ],
    "cirkd": [
        TASK, KD, "  + 1·cross-image similarity(τ 0.1, features, groups of 2)",
        "  + 0.1·pixel memory(τ 0.1, features, faithful queues)", "  + 0.1·region memory(τ 0.1, features, faithful queues)",
    ],
    "maskd": [TASK, "  + 1·MasKD(8 masks, main at head stride)", "  + 0.4·MasKD(8 masks, aux at head stride)"],
    "dist": [
        TASK, "  + 1·DIST(β 1, γ 1, main at head stride, groups of 2)",
        "  + 0.4·DIST(β 1, γ 1, aux at head stride, groups of 2)",
    ],
    "at": [TASK, KD, "  + 10000·attention(features)"],
    "fitnet": [TASK, KD, "  + 10·FitNet(features)"],
    "dsd": [
        TASK, "  + 1000·residual attention(aux, features, main)", "  + 10·class similarity(T 4, main at head stride)",
    ],
    "jml": [
        "L = 0.5·[1·CE(main, y) + 0.4·CE(aux, y)]", "  + 0.0625·KL(teacher ‖ main)", "  + 0.0625·KL(teacher ‖ aux)",
        "  + 0.375·Jaccard_D(main, teacher; s=1)",
    ],
    "dkd": [TASK, "  + 1·DKD(α 1, β 0.5, main at head stride, y)"],
    "lskd": [TASK, "  + 9·KD of standardised logits(T 2, main at head stride, all pixels)"],
    "mgd": [TASK, "  + 168·masked generation(features, 75% hidden)", "  + 3·CWD(T 4, main at head stride)"],
    "afdcd": [
        TASK, KD, "  + 33.6·masked generation(features, 75% hidden)",
        "  + 0.005·omni-contrast(τ 0.07, features, 16 groups, 4×4 patches)",
    ],
    "cirkdv2": [
        TASK, KD, "  + 1·cross-image similarity(τ 0.1, features, groups of 2)",
        "  + 0.1·pixel memory(τ 0.1, features, faithful queues)", "  + 0.1·region memory(τ 0.1, features, faithful queues)",
        "  + 1·FitNet(features)", "  + 1·cross-image similarity of channels(τ 0.1, features, groups of 2)",
        "  + 0.1·memory of channels(τ 0.1, features)", "  + 100·distance of channels(features)",
    ],
}  # fmt: skip


@pytest.mark.parametrize("method", FORMULAS)
def test_a_method_prints_its_published_weights(method: Method) -> None:
    run = load_preset("cityscapes-psp18-cirkd")
    assert isinstance(run, DistillRun)
    assert total_loss(with_method(run, method)).splitlines() == FORMULAS[method]


def test_every_method_is_written_here() -> None:
    assert set(FORMULAS) == set(METHODS)


def test_terms_of_several_methods_stand_side_by_side() -> None:
    terms = "[{kind: kd}, {kind: cwd}, {kind: soft_jdt, weight: 0.5, smooth: 1.0}]"
    run = load_preset("cityscapes-psp18-dist", [f"distiller.terms={terms}"])
    assert total_loss(run).splitlines()[1:] == [
        KD,
        "  + 3·CWD(T 4, main at head stride)",
        "  + 0.5·Jaccard_D(main, teacher; s=1)",
    ]
