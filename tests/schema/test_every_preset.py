"""Every shipped preset loads, carries its header, and survives being written out and read back."""

import pytest
import yaml

from segctl.schema.distillers import METHODS, method_of
from segctl.schema.formula import total_loss
from segctl.schema.load import load_preset, preset_folder, preset_names, validate_run
from segctl.schema.run import DistillRun

NAMES = preset_names()


def test_the_presets_of_the_first_release_are_all_there() -> None:
    models = {"camvid": ["psp18", "dl18", "dlmb2", "dl101"], "cityscapes": ["psp18", "dl18", "dlmb2", "dl101"]}
    models |= {"voc": ["psp18", "dl18", "dl101"], "deepglobe": ["dl18", "dl101"]}
    wanted = {f"{dataset}-{model}" for dataset, names in models.items() for model in names}
    wanted |= {f"camvid-{model}-scratch" for model in models["camvid"]}
    assert wanted <= set(NAMES)
    assert [name for name in NAMES if name.startswith("shapes-")]


@pytest.mark.parametrize("name", NAMES)
def test_the_name_inside_is_the_file_name(name: str) -> None:
    assert load_preset(name).name == name


@pytest.mark.parametrize("name", NAMES)
def test_the_header_says_purpose_command_score_and_time(name: str) -> None:
    head = (preset_folder() / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[:4]
    assert [line.split()[:2][1] for line in head[1:]] == ["Command:", "Expected:", "Time:"]
    verb = "distill" if isinstance(load_preset(name), DistillRun) else "train"
    assert head[1].endswith(f"segctl {verb} --preset {name}")


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_survives_dump_and_load(name: str) -> None:
    run = load_preset(name)
    again = yaml.safe_load(yaml.safe_dump(run.model_dump(mode="json")))
    assert validate_run(again, name) == run


@pytest.mark.parametrize("name", NAMES)
def test_the_teacher_is_a_preset_on_the_same_data_without_a_teacher_of_its_own(name: str) -> None:
    run = load_preset(name)
    if isinstance(run, DistillRun):
        teacher = load_preset(run.teacher.preset)
        assert not isinstance(teacher, DistillRun)
        assert teacher.data.dataset == run.data.dataset
        assert teacher.data.val_split == run.data.val_split


@pytest.mark.parametrize("name", NAMES)
def test_students_ship_with_the_jml_bundle(name: str) -> None:
    run = load_preset(name)
    if isinstance(run, DistillRun):
        assert method_of(run.distiller) == "jml"
        assert run.distiller == METHODS["jml"]


def test_the_jml_recipe_has_the_weights_of_the_published_command() -> None:
    run = load_preset("cityscapes-psp18")
    assert total_loss(run).splitlines() == [
        "L = 0.5·[0.125·CE(main, y) + 0.125·CE(aux, y) + 0.75·Jaccard_D(main, y; s=1)]",
        "  + 0.0625·KL(teacher ‖ main)",
        "  + 0.0625·KL(teacher ‖ aux)",
        "  + 0.375·Jaccard_D(main, teacher; s=1)",
    ]
    assert (run.optim.lr, run.optim.head_lr_factor, run.optim.weight_decay) == (6e-5, 10, 0.01)
    assert not run.optim.decay_norm_and_bias
    assert (run.train.steps, run.train.batch_size, run.schedule.power, run.schedule.warmup_fraction) == (40000, 8, 1.0, 0.01)


def test_a_teacher_learns_from_boundary_smoothed_labels() -> None:
    assert total_loss(load_preset("voc-dl101")).splitlines() == [
        "L = 0.125·KL(y' ‖ main) + 0.125·KL(y' ‖ aux) + 0.75·Jaccard_D(main, y'; s=1)",
        "where y' = 0.5·y + 0.5/C at pixels whose 3×3 window holds another class",
    ]


def test_published_numbers_match_the_table_of_the_fact_sheet() -> None:
    row = {score.method: score.value for score in load_preset("cityscapes-psp18").published}
    assert row == {
        "none": 72.55, "skd": 73.29, "ifvd": 73.71, "cwd": 74.36, "cirkd": 74.73, "maskd": 75.34, "dist": 76.31, "jml": 77.75,
    }  # fmt: skip
