"""Every shipped preset loads, carries its header, and survives being written out and read back."""

import yaml

from segctl.schema.load import load_preset, preset_folder, preset_names, validate_run
from segctl.schema.run import DistillRun
from segctl.schema.terms.formula import total_loss
from segctl.schema.terms.methods import method_of, published_bundle

NAMES = preset_names()
TAGS = {
    "resnet18d": "ra2_in1k", "resnet50d": "ra2_in1k", "resnet101d": "ra2_in1k", "mobilenetv2_100": "ra_in1k",
    "tf_efficientnet_lite0": "in1k", "vit_base_patch14_dinov2": "lvd142m", "mobilenetv4_conv_small_050": "e3000_r224_in1k",
}  # fmt: skip


def test_the_presets_of_the_first_release_are_all_there() -> None:
    models = {"camvid": ["psp18", "dl18", "dlmb2", "dl101"], "cityscapes": ["psp18", "dl18", "dlmb2", "dl101"]}
    models |= {"voc": ["psp18", "dl18", "dl101"], "deepglobe": ["dl18", "dl101"]}
    wanted = {f"{dataset}-{model}" for dataset, names in models.items() for model in names}
    wanted |= {f"{dataset}-{size}" for dataset in models for size in ("fast", "tiny", "foundation")}
    wanted |= {f"camvid-{model}-scratch" for model in models["camvid"]}
    wanted |= {"camvid-semi"}
    assert wanted <= set(NAMES)
    assert [name for name in NAMES if name.startswith("shapes-")]


def test_the_name_inside_is_the_file_name() -> None:
    for name in NAMES:
        assert load_preset(name).name == name, name


def test_the_header_says_purpose_command_score_and_time() -> None:
    for name in NAMES:
        head = (preset_folder() / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[:4]
        assert [line.split()[:2][1] for line in head[1:]] == ["Command:", "Expected:", "Time:"], name
        verb = "distill" if isinstance(load_preset(name), DistillRun) else "train"
        assert head[1].endswith(f"segctl {verb} --preset {name}"), name


def test_a_preset_survives_dump_and_load() -> None:
    for name in NAMES:
        run = load_preset(name)
        again = yaml.safe_load(yaml.safe_dump(run.model_dump(mode="json")))
        assert validate_run(again, name) == run, name


def test_the_teacher_is_a_preset_on_the_same_data_without_a_teacher_of_its_own() -> None:
    for name in NAMES:
        run = load_preset(name)
        if isinstance(run, DistillRun):
            teacher = load_preset(run.teacher.preset)
            assert not isinstance(teacher, DistillRun), name
            assert teacher.data.dataset == run.data.dataset, name
            assert teacher.data.val_split == run.data.val_split, name


def test_students_ship_with_the_published_bundle_of_their_recipe() -> None:
    for name in NAMES:
        run = load_preset(name)
        if isinstance(run, DistillRun):
            method = method_of(run.distiller)
            assert method in {"jml": ["jml"], "scratch": ["jml"], "cirkd": ["cirkd"], "dist": ["dist", "maskd"]}[run.recipe], name
            assert run.distiller == published_bundle(method, run.data.dataset, run.model.aux, run.data.labelled == 1), name  # type: ignore[arg-type]


def test_imagenet_weights_are_named_with_their_tag_and_reproductions_run_in_fp32() -> None:
    for name in NAMES:
        run = load_preset(name)
        backbone, _, tag = run.model.backbone.partition(".")
        assert tag == (TAGS[backbone] if run.model.weights == "timm" else ""), name
        own = ("-fast", "-tiny", "-foundation")
        reproduces = run.recipe == "cirkd" or (name.startswith(("cityscapes-", "voc-")) and not name.endswith(own))
        assert run.train.precision == ("fp32" if reproduces else "auto"), name


def test_the_three_other_published_losses_are_presets() -> None:
    losses = {name: total_loss(load_preset(f"cityscapes-dlp101-{name}")) for name in ("jaccard-ic", "dice-d", "dice-ic")}
    assert losses == {
        "jaccard-ic": "L = 0.125·CE(main, y) + 0.125·CE(aux, y) + 0.75·Jaccard_0.5I+0.5C(main, y; s=1)",
        "dice-d": "L = 0.125·CE(main, y) + 0.125·CE(aux, y) + 0.75·Dice_D(main, y; s=1)",
        "dice-ic": "L = 0.125·CE(main, y) + 0.125·CE(aux, y) + 0.75·Dice_0.5I+0.5C(main, y; s=1)",
    }


def test_the_scores_of_jml_say_that_their_recipe_is_not_known() -> None:
    rows = [(name, score) for name in NAMES for score in load_preset(name).published if score.method == "jml"]
    assert len(rows) == 13
    for name, score in rows:
        assert "its recipe is not known" in score.note
        assert ("sbd-wins" in score.note) == name.startswith("voc-")


def test_the_cirkd_recipe_is_that_of_its_code() -> None:
    run = load_preset("cityscapes-psp18-cirkd")
    assert total_loss(run).splitlines() == [
        "L = 1·CE(main, y) + 0.4·CE(aux, y)",
        "  + 1·KD(main at head stride, all pixels)",
        "  + 1·cross-image similarity(τ 0.1, features, groups of 2)",
        "  + 0.1·pixel memory(τ 0.1, features, faithful queues)",
        "  + 0.1·region memory(τ 0.1, features, faithful queues)",
    ]
    assert (run.optim.kind, run.optim.lr, run.optim.weight_decay, run.optim.decay_norm_and_bias) == ("sgd", 0.02, 1e-4, True)
    assert (run.schedule.power, run.schedule.floor_lr, run.schedule.warmup_fraction) == (0.9, 0, 0)
    assert (run.train.steps, run.train.batch_size, run.train.select, run.train.validate_every) == (40000, 16, "best", 800)
    assert (run.data.scale, run.data.scale_step, run.data.padding, run.evaluate.protocol.kind) == (
        (0.5, 2.0),
        0.1,
        "end",
        "whole",
    )


def test_the_dist_recipe_differs_in_decay_floor_and_validations() -> None:
    cirkd, dist = load_preset("cityscapes-psp18-cirkd"), load_preset("cityscapes-psp18-dist")
    assert (dist.optim.weight_decay, dist.schedule.floor_lr, dist.train.validate_every) == (5e-4, 1e-4, 400)
    assert dist.data == cirkd.data
    assert dist.loss == cirkd.loss
    assert load_preset("cityscapes-dlmb2-dist").optim.weight_decay == 2e-4


def test_students_of_the_cirkd_and_dist_recipes_share_one_teacher() -> None:
    for name in ("cityscapes-dl18-cirkd", "cityscapes-dl18-dist", "cityscapes-dlmb2-dist"):
        run = load_preset(name)
        assert isinstance(run, DistillRun)
        assert run.teacher.preset == "cityscapes-dl101-cirkd"


def test_the_jml_presets_of_voc_are_on_the_labels_of_their_scores() -> None:
    rules = {name: load_preset(name).data.dataset for name in NAMES if name.startswith("voc-")}
    assert rules == {
        "voc-dl18": "voc-sbd-wins", "voc-psp18": "voc-sbd-wins", "voc-dl101": "voc-sbd-wins",
        "voc-foundation": "voc-sbd-wins", "voc-fast": "voc-sbd-wins", "voc-tiny": "voc-sbd-wins",
        "voc-dl18-cirkd": "voc", "voc-psp18-cirkd": "voc", "voc-dl101-cirkd": "voc",
    }  # fmt: skip


def test_voc_takes_the_memory_weights_published_for_it() -> None:
    assert "0.01·pixel memory" in total_loss(load_preset("voc-psp18-cirkd"))


def test_mobilenet_has_no_auxiliary_head_outside_the_jml_recipe() -> None:
    assert load_preset("cityscapes-dlmb2").model.aux
    assert not load_preset("cityscapes-dlmb2-cirkd").model.aux
    assert not load_preset("cityscapes-dlmb2-dist").model.aux


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


def test_a_semi_supervised_preset_is_the_fast_one_with_itself_as_teacher() -> None:
    semi, fast = load_preset("camvid-semi"), load_preset("camvid-fast")
    for field in ("model", "labels", "loss", "optim", "schedule", "train", "evaluate"):
        assert getattr(semi, field) == getattr(fast, field)
    assert not isinstance(semi, DistillRun)
    assert total_loss(semi).splitlines() == [
        "L = 0.125·CE(main, y) + 0.125·CE(aux, y) + 0.75·Jaccard_D(main, y; s=1)",
        "  + 0.5·[0.25·CE(main, mean over two strong views, class of teacher) + "
        "0.75·Jaccard_D(main, mean over two strong views, teacher; s=1)]",
        "  + 0.5·[0.25·CE(main on the weak view without 0.5 of the channels, class of teacher) + "
        "0.75·Jaccard_D(main on the weak view without 0.5 of the channels, teacher; s=1)]",
        "where teacher is the student itself, in eval mode, on the weak view, where its largest probability is at least 0.95",
    ]


def test_published_numbers_match_the_table_of_the_fact_sheet() -> None:
    row = {score.method: score.value for score in load_preset("cityscapes-psp18").published}
    assert row == {
        "none": 72.55, "skd": 73.29, "ifvd": 73.71, "cwd": 74.36, "cirkd": 74.73, "maskd": 75.34, "dist": 76.31, "jml": 77.75,
    }  # fmt: skip


def test_camvid_under_the_cirkd_recipe_is_that_of_its_scripts() -> None:
    """train_scripts/train_baseline/camvid and train_cirkd/camvid at 2d8ad0f: everything as on Cityscapes, but the crop."""
    for name in ("dl101", "dl18", "psp18"):
        camvid, cityscapes = load_preset(f"camvid-{name}-cirkd"), load_preset(f"cityscapes-{name}-cirkd")
        assert camvid.data.crop == (360, 360)
        assert camvid.data == cityscapes.data.model_copy(update={"dataset": "camvid", "crop": (360, 360)})
        assert {field for field in type(camvid).model_fields if getattr(camvid, field) != getattr(cityscapes, field)} <= {
            "name", "data", "teacher", "published",
        }  # fmt: skip
    assert {row.method: row.value for row in load_preset("camvid-psp18-cirkd").published} == {"none": 66.73, "cirkd": 68.65}


def test_dsd_stands_in_the_table_of_cirkd() -> None:
    for name, value in (("dl18", 74.81), ("dlmb2", 74.11)):
        rows = {row.method: row.value for row in load_preset(f"cityscapes-{name}-cirkd").published}
        assert rows["dsd"] == value


def test_ade20k_and_coco_stuff_under_the_cirkd_recipe_are_those_of_its_scripts() -> None:
    """train_scripts/*/ade20k and coco_stuff_164k at 2d8ad0f: crops of 512×512; COCO-Stuff takes 80,000 steps."""
    for dataset, steps in (("ade20k", 40_000), ("coco-stuff", 80_000)):
        for name in ("dl101", "dl18"):
            run, cityscapes = load_preset(f"{dataset}-{name}-cirkd"), load_preset(f"cityscapes-{name}-cirkd")
            assert run.data == cityscapes.data.model_copy(update={"dataset": dataset, "crop": (512, 512)})
            assert run.train == cityscapes.train.model_copy(update={"steps": steps})
            assert (run.loss, run.optim, run.schedule) == (cityscapes.loss, cityscapes.optim, cityscapes.schedule)
    assert {row.method: row.value for row in load_preset("ade20k-dl18-cirkd").published} == {"none": 33.91, "cirkd": 35.41}
    rows = load_preset("coco-stuff-dl18-cirkd").published
    assert {row.method: row.value for row in rows} == {"none": 32.60, "cirkd": 33.11}
    assert all("182 classes, of which 11 occur nowhere" in row.note for row in rows)
