"""A preset is closed and checked at once: every fault, its dotted path, what was got, what was wanted."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from segctl.errors import InputError, PresetError
from segctl.schema.load import apply_override, find_preset, load_preset, preset_folder, sibling, validate_run
from segctl.schema.models import HEADS
from segctl.schema.run import DistillRun, TrainRun

*_SOME, _LAST = map(repr, HEADS)
HEAD_NAMES = f"{', '.join(_SOME)} or {_LAST}"


def tree(name: str = "camvid-psp18") -> dict[str, Any]:
    return yaml.safe_load((preset_folder() / f"{name}.yaml").read_text(encoding="utf-8"))


def faults(changed: dict[str, Any]) -> list[str]:
    with pytest.raises(PresetError) as caught:
        validate_run(changed, "preset 'x'")
    return [str(fault) for fault in caught.value.faults]


def test_an_unknown_key_is_refused_with_the_nearest_known_one() -> None:
    changed = tree()
    changed["optim"]["weigth_decay"] = 1
    assert faults(changed) == ["optim.weigth_decay: unknown key, did you mean 'weight_decay'?"]


def test_an_unknown_key_unlike_any_lists_the_known_ones() -> None:
    changed = tree()
    changed["teacher"]["zzz"] = 1
    assert faults(changed) == ["teacher.zzz: unknown key, wanted one of preset, cache, overlap, weights, scales, flip"]


def test_an_unknown_key_inside_a_list_of_terms_is_named_without_the_union_tag() -> None:
    changed = tree()
    changed["loss"][2]["smoth"] = 1
    changed["distiller"]["terms"][0]["temprature"] = 1
    assert faults(changed) == [
        "loss.2.smoth: unknown key, did you mean 'smooth'?",
        "distiller.terms.0.temprature: unknown key, did you mean 'temperature'?",
    ]


def test_all_faults_come_at_once_those_between_blocks_included() -> None:
    changed = tree()
    changed["data"]["croop"] = 3
    changed["data"]["scale"] = [2.0, 0.5]
    changed["train"]["accumulate"] = 3
    assert faults(changed) == [
        "data.croop: unknown key, did you mean 'crop'?",
        "data.scale: got [2.0, 0.5], wanted the smaller number first",
        "train.accumulate: got 3, wanted a divisor of train.batch_size (8)",
    ]


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("train.steps=0", "train.steps: got 0, wanted at least 1"),
        ("train.steps=many", "train.steps: got 'many', wanted a whole number"),
        ("train.steps=2.5", "train.steps: got 2.5, wanted a whole number"),
        ("model.aux=perhaps", "model.aux: got 'perhaps', wanted true or false"),
        ("optim.lr=.inf", "optim.lr: got inf, wanted a finite number"),
        ("optim=5", "optim: got 5, wanted a block of keys"),
        ("data.crop=5", "data.crop: got 5, wanted a list of 2, such as [5, 5]"),
        ("model.head=pspnett",
         f"model.head: got 'pspnett', wanted {HEAD_NAMES}, did you mean 'pspnet'?"),
        ("loss.0.kind=jtd", "loss.0.kind: got 'jtd', wanted one of cross_entropy, focal, ohem, kl, jdt, lovasz, "
         "soft_jaccard, soft_dice, did you mean 'jdt'?"),
        ("loss.0.kind=kl", "loss.0.kind: got 'kl' with hard labels, wanted 'cross_entropy' or soft labels (labels.kind)"),
        ("model.aux=false", "loss.1.logits: got 'aux', wanted 'main', because model.aux is false"),
        ("labels={kind: boundary, kernel_size: 4}", "labels.kernel_size: got 4, wanted an odd number"),
        ("model.head=unet", "model.output_stride: got 8, wanted 32 for model.head 'unet'"),
        ("distiller.terms=[]", "distiller.terms: is empty, wanted at least one item"),
        ("data.val_split=train", "data.val_split: got 'train', which is also data.train_split; wanted another split"),
        ("schedule.floor_lr=1", "schedule.floor_lr: got 1.0, wanted at most optim.lr (6e-05)"),
    ],
)  # fmt: skip
def test_a_wrong_value_says_what_was_got_and_wanted(override: str, fault: str) -> None:
    with pytest.raises(PresetError) as caught:
        load_preset("camvid-psp18", [override])
    assert fault in [str(found) for found in caught.value.faults]


def test_a_missing_block_is_named() -> None:
    changed = tree()
    del changed["teacher"], changed["optim"]["lr"]
    assert faults(changed) == ["optim.lr: is missing", "teacher: is missing"]


def test_the_error_reads_as_one_sentence_a_fault() -> None:
    with pytest.raises(PresetError) as caught:
        load_preset("camvid-psp18", ["train.stps=5", "train.seed=-1"])
    assert str(caught.value).splitlines()[:3] == [
        "preset 'camvid-psp18' has 2 faults",
        "  train.seed: got -1, wanted at least 0",
        "  train.stps: unknown key, did you mean 'steps'?",
    ]


def test_overrides_reach_lists_numbers_and_new_blocks() -> None:
    run = load_preset("camvid-psp18", ["data.crop=[240, 320]", "loss.2.smooth=1e-4", "labels.kind=smoothed", "train.ema=0.99"])
    assert run.data.crop == (240, 320)
    assert run.loss[2].model_dump()["smooth"] == 1e-4
    assert run.labels.kind == "smoothed"
    assert run.train.ema == 0.99


def test_exponents_without_a_dot_are_numbers_although_yaml_reads_text() -> None:
    assert yaml.safe_load("1e-4") == "1e-4"
    assert load_preset("camvid-psp18", ["optim.lr=1e-4"]).optim.lr == 1e-4


@pytest.mark.parametrize("override", ["train.steps", "=5", ".a=5", "loss.9.weight=1", "loss.x=1", "name.a.b=1"])
def test_an_override_that_reaches_nothing_is_refused(override: str) -> None:
    with pytest.raises(InputError, match="--set"):
        apply_override(tree(), override)


def test_a_misspelt_preset_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError) as caught:
        find_preset("camvid-psp81")
    assert caught.value.message == "no preset is called 'camvid-psp81', did you mean 'camvid-psp18'?"


def test_a_file_that_is_no_yaml_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("name: x\ndata: [1, 2\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"line 3 is not valid YAML"):
        load_preset(str(path))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("name: x\nname: y\n", "line 2 is not valid YAML: the key 'name' occurs twice"),
        ("a: &a [1]\nb: *a\n", r"line 2 is not valid YAML: aliases \(\*name\) are not allowed"),
    ],
)
def test_a_file_that_is_not_what_it_looks_like_is_refused(text: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "sly.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=problem):
        load_preset(str(path))


def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.yaml"
    path.write_text("- 1\n", encoding="utf-8")
    with pytest.raises(InputError, match="holds list, wanted a mapping"):
        load_preset(str(path))


def test_a_student_without_its_teacher_is_a_plain_run() -> None:
    run = load_preset("camvid-psp18")
    assert isinstance(run, DistillRun)
    alone = run.without_teacher()
    assert type(alone) is TrainRun
    assert alone.loss == run.loss


@pytest.mark.parametrize(
    ("name", "recipe", "found"),
    [
        ("cityscapes-psp18", "cirkd", "cityscapes-psp18-cirkd"),
        ("cityscapes-psp18-cirkd", "jml", "cityscapes-psp18"),
        ("cityscapes-psp18-dist", "cirkd", "cityscapes-psp18-cirkd"),
        ("voc-psp18", "dist", None),
        ("camvid-psp18-scratch", "jml", "camvid-psp18"),
        ("my-own", "cirkd", None),
    ],
)
def test_the_preset_of_the_same_student_under_another_recipe(name: str, recipe: str, found: str | None) -> None:
    assert sibling(name, recipe) == found
