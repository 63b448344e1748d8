"""A loss term, written out.  What is as by default stays out; whatever else changes the number is there."""

from typing import assert_never

from segctl.schema.loss_terms import (
    Active,
    ClassWeights,
    CrossEntropySpec,
    FocalSpec,
    JaccardFamily,
    JDTSpec,
    KLSpec,
    LossTermSpec,
    LovaszSpec,
    OhemSpec,
    SoftDiceSpec,
    SoftJaccardSpec,
)


def loss_term(term: LossTermSpec, label: str, soft: bool) -> str:
    """`CE(main, y)`, `Jaccard_D(main, y; s=1)`; `soft` says whether the label is."""
    match term:
        case CrossEntropySpec():
            return _call("CE", term.logits, label, _weighted(term.class_weights))
        case FocalSpec():
            return _call("Focal", term.logits, label, [f"γ={term.gamma:g}", *_weighted(term.class_weights)])
        case OhemSpec():
            return _call("OHEM", term.logits, label, [f"p<{term.threshold:g}", f"at least {term.min_share:g} of the pixels"])
        case KLSpec():
            return f"KL({label} ‖ {term.logits})"
        case JDTSpec():
            active = term.active_soft if soft else term.active_hard
            default: Active = "all" if soft else "present"
            options = [*classes(active, default), *_weighted(term.class_weights)]
            return jaccard(term, term.logits, label, options)
        case LovaszSpec() | SoftJaccardSpec() | SoftDiceSpec():
            return _baseline(term, label)
        case _:
            assert_never(term)


def jaccard(term: JaccardFamily, logits: str, label: str, options: list[str]) -> str:
    """`Jaccard_D(main, y)`, `Dice_I(main, y; s=1)`, `Tversky(0.3, 0.7)_D+C`, `log Jaccard_D^2`.

    Index, means it follows, exponent, log form; then what differs from the defaults of `JaccardFamily`, and `options`.
    """
    match (term.alpha, term.beta):
        case (1.0, 1.0):
            index = "Jaccard"
        case (0.5, 0.5):
            index = "Dice"
        case (alpha, beta):
            index = f"Tversky({alpha:g}, {beta:g})"
    weights = (("D", term.miou_d), ("I", term.miou_i), ("C", term.miou_c))
    used = [(name, weight) for name, weight in weights if weight > 0]
    mean = "+".join(name if weight == 1 else f"{weight:g}{name}" for name, weight in used)
    focal = "" if term.gamma == 1 else f"^{term.gamma:g}"
    name = f"{'log ' if term.log_loss else ''}{index}_{mean}{focal}"
    return _call(name, logits, label, [*_unusual(term), *options])


def _unusual(term: JaccardFamily) -> list[str]:
    fields = JaccardFamily.model_fields
    options = [("s", term.smooth, fields["smooth"]), ("norm", term.norm, fields["norm"])]
    options += [("threshold", term.threshold, fields["threshold"])]
    shown = [f"{name}={value:g}" for name, value, field in options if value != field.default]
    return [*shown, "over all GPUs"] if term.reduce == "global" else shown


def _baseline(term: LovaszSpec | SoftJaccardSpec | SoftDiceSpec, label: str) -> str:
    names = {"lovasz": "Lovász", "soft_jaccard": "softJaccard", "soft_dice": "softDice"}
    smooth = [] if isinstance(term, LovaszSpec) or term.smooth == 1 else [f"s={term.smooth:g}"]
    place = ["per image"] if term.per_image else []
    return _call(names[term.kind], term.logits, label, [*place, *smooth, *classes(term.active, "present")])


def classes(active: Active, usual: Active) -> list[str]:
    """Which classes are averaged over, where it is not the usual ones."""
    return [] if active == usual else [f"{active} classes"]


def _weighted(class_weights: ClassWeights | None) -> list[str]:
    return [] if class_weights is None else ["weighted classes"]


def _call(name: str, logits: str, label: str, options: list[str]) -> str:
    return f"{name}({logits}, {label}{'; ' if options else ''}{', '.join(options)})"
