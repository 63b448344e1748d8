"""A distiller from its specs: names, weights, values."""

from distillers_golden import golden_inputs, golden_pair, outputs

from segctl.distillers import build_distiller
from segctl.schema.terms.distill_terms import PixelKLSpec, SoftJDTSpec, SoftKLSpec
from segctl.schema.terms.methods import METHODS, DistillerSpec


def test_the_published_recipe_halves_the_task_loss_and_weighs_three_terms() -> None:
    recipe = METHODS["jml"]
    assert recipe is not None
    distiller = build_distiller(recipe, golden_pair())
    assert distiller.label_weight == 0.5
    assert distiller.weights == {"soft_kl_main": 0.0625, "soft_kl_aux": 0.0625, "soft_jdt_main": 0.375}
    assert list(distiller.terms) == list(distiller.weights)


def test_terms_of_one_name_are_numbered() -> None:
    specs = (PixelKLSpec(), PixelKLSpec(temperature=4.0), SoftJDTSpec(), PixelKLSpec(logits="aux"), PixelKLSpec(weight=2.0))
    distiller = build_distiller(DistillerSpec(terms=specs), golden_pair())
    assert list(distiller.weights) == ["kd_main", "kd_main_2", "soft_jdt_main", "kd_aux", "kd_main_3"]
    assert distiller.weights["kd_main_3"] == 2.0


def test_values_come_back_by_name_and_unweighted() -> None:
    student, teacher, label = golden_inputs()
    light = build_distiller(DistillerSpec(terms=(PixelKLSpec(weight=0.1), SoftKLSpec(weight=0.2))), golden_pair())
    heavy = build_distiller(DistillerSpec(terms=(PixelKLSpec(weight=5.0), SoftKLSpec(weight=7.0))), golden_pair())
    values = light(outputs(student), outputs(teacher), label)
    assert list(values) == ["kd_main", "soft_kl_main"]
    assert values == heavy(outputs(student), outputs(teacher), label)


def test_the_published_terms_have_nothing_to_train() -> None:
    for method in ("kd", "jml"):
        recipe = METHODS[method]
        assert recipe is not None
        assert list(build_distiller(recipe, golden_pair()).parameters()) == []
