"""Teachers that segctl did not make, or whose classes stand in another order: their answers, class by class, and refusals."""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toy import STUDENT, Silent, toy_run, write_preset

from segctl.data.shards.dataset import PreparedDataset, open_dataset
from segctl.errors import InputError
from segctl.models import load, save
from segctl.models.outputs import Prediction
from segctl.runs import RunFolder
from segctl.schema.run import DistillRun
from segctl.teacher.find import find_teacher
from segctl.teacher.load import Teacher, load_teacher
from segctl.train.dry_run import dry_run
from segctl.train.resume import resume_run
from segctl.train.session import Request
from segctl.train.start import start_run
from tests.mask2former import save_mask2former
from tests.slow_cases import slow_after


@pytest.fixture(scope="module")
def dataset(toy_data: Path) -> PreparedDataset:
    return open_dataset(toy_data, "camvid")


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 33, 47, 3), np.uint8))


def answer(teacher: Teacher, images: Tensor) -> Prediction:
    with torch.inference_mode():
        prediction: Prediction = teacher.model(teacher.model.normalize(images))
    return prediction


class LogitsAlone(nn.Module):
    """The toy teacher as strangers would ship it: normalised images in, logits (and auxiliary ones) out."""

    def __init__(self, teacher: Path, order: list[int]) -> None:
        super().__init__()
        self.net, self.order = load(teacher), order

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        prediction = self.net(images)
        return prediction.logits[:, self.order], prediction.aux_logits[:, self.order]


class LogitsAndFeatures(LogitsAlone):
    """The same with the classifier's input beside them, as winycg/CIRKD's networks return it."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        prediction = self.net(images)
        return prediction.logits, prediction.aux_logits, prediction.features


def student(**blocks: object) -> DistillRun:
    run = toy_run(STUDENT | blocks, train={"steps": 2, "validate_every": 2})
    assert isinstance(run, DistillRun)
    return run


def test_a_run_whose_classes_stand_in_another_order_is_matched_by_name(
    dataset: PreparedDataset, toy_teacher: Path, images: Tensor, tmp_path: Path
) -> None:
    mine = load(toy_teacher)
    order = [10 - index for index in range(11)]
    turned = load(toy_teacher)
    for layer in (turned.classifier, turned.aux.classifier):
        layer.weight.data, layer.bias.data = layer.weight.data[order], layer.bias.data[order]
    save(tmp_path / "turned.pt", turned, toy_run(), [dataset.classes.names[index].upper() for index in order])
    with torch.inference_mode():
        wanted = mine(mine.normalize(images))
    found = answer(load_teacher(tmp_path / "turned.pt", dataset), images)
    torch.testing.assert_close(found.logits, wanted.logits)
    torch.testing.assert_close(found.aux_logits, wanted.aux_logits)


def test_plain_weights_with_a_preset_answer_like_the_run_they_are_of(
    dataset: PreparedDataset, toy_teacher: Path, images: Tensor, tmp_path: Path
) -> None:
    mine = load(toy_teacher)
    plain = {f"module.{name}": value for name, value in mine.state_dict().items() if not name.startswith("pixel_")}
    torch.save({"state_dict": plain, "epoch": 3}, tmp_path / "plain.pth")
    preset = write_preset(tmp_path / "toy.yaml")
    teacher = load_teacher(tmp_path / "plain.pth", dataset, str(preset))
    assert teacher.preset == "toy"
    with torch.inference_mode():
        torch.testing.assert_close(answer(teacher, images).logits, mine(mine.normalize(images)).logits)


def test_plain_weights_of_another_network_are_refused(dataset: PreparedDataset, toy_teacher: Path, tmp_path: Path) -> None:
    torch.save(load(toy_teacher).state_dict(), tmp_path / "plain.pth")
    preset = write_preset(tmp_path / "wide.yaml", model={"width": 16})
    with pytest.raises(InputError) as error:
        load_teacher(tmp_path / "plain.pth", dataset, str(preset))
    assert error.value.message.startswith(
        f"'{tmp_path / 'plain.pth'}' does not fit the network of preset 'toy' with 11 classes: "
    )


def test_plain_weights_for_another_dataset_are_refused(dataset: PreparedDataset, toy_teacher: Path, tmp_path: Path) -> None:
    torch.save(load(toy_teacher).state_dict(), tmp_path / "plain.pth")
    with pytest.raises(
        InputError, match="holds weights without class names, and preset 'cityscapes-psp18' is for cityscapes, not camvid"
    ):
        load_teacher(tmp_path / "plain.pth", dataset, "cityscapes-psp18")


@pytest.mark.parametrize("kind", slow_after(["torchscript", "export"]))
def test_a_program_is_matched_by_the_names_beside_it(
    kind: str, dataset: PreparedDataset, toy_teacher: Path, images: Tensor, tmp_path: Path
) -> None:
    mine, order = load(toy_teacher), [(3 * index) % 11 for index in range(11)]
    path = write_program(kind, LogitsAlone(toy_teacher, order).eval(), images, tmp_path)
    mean, std = (buffer.flatten().div(255).tolist() for buffer in (mine.pixel_mean, mine.pixel_std))
    names = [dataset.classes.names[index] for index in order]
    path.with_suffix(".json").write_text(json.dumps({"class_names": names, "mean": mean, "std": std}), encoding="utf-8")
    teacher = load_teacher(path, dataset, trust_program=True)
    assert teacher.preset == kind
    assert teacher.notes == (f"the teacher is a program; '{path.with_suffix('.json')}' gives its classes and normalisation",)
    found = answer(teacher, images)
    with torch.inference_mode():
        wanted = mine(mine.normalize(images))
    torch.testing.assert_close(found.logits, wanted.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.aux_logits, wanted.aux_logits, rtol=1e-4, atol=1e-4)
    assert found.features is None


def write_program(kind: str, net: nn.Module, images: Tensor, folder: Path) -> Path:
    example = torch.zeros(2, 3, *images.shape[1:3])
    path = folder / ("teacher.pt" if kind == "torchscript" else "teacher.pt2")
    if kind == "torchscript":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the tracer's, and that torch would rather export
            torch.jit.trace(net, example).save(path)  # type: ignore[no-untyped-call]
    else:
        torch.export.save(torch.export.export(net, (example,)), path)
    return path


@pytest.mark.slow
def test_a_program_without_names_is_taken_at_its_word_and_says_so(
    dataset: PreparedDataset, toy_teacher: Path, images: Tensor, tmp_path: Path
) -> None:
    path = write_program("torchscript", LogitsAlone(toy_teacher, list(range(11))).eval(), images, tmp_path)
    assert load_teacher(path, dataset, trust_program=True).notes == (
        "the teacher is a program without a 'teacher.json' beside it: its classes must be the dataset's in the same order, "
        "and its images are normalised with ImageNet's mean and deviation",
    )


@pytest.mark.parametrize("kind", slow_after(["torchscript", "export"]))
def test_a_program_runs_no_code_unless_it_is_trusted(
    kind: str, dataset: PreparedDataset, toy_teacher: Path, images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_program(kind, LogitsAlone(toy_teacher, list(range(11))).eval(), images, tmp_path)
    for module in (torch.jit, torch.export):
        monkeypatch.setattr(module, "load", lambda *a, **k: pytest.fail("the program was read"))
    with pytest.raises(InputError, match="program, and reading it may run any code that it contains") as error:
        load_teacher(path, dataset)
    assert error.value.hint.startswith("add --trust-program if you trust whoever made it")


def test_plain_weights_without_a_preset_name_the_option_that_helps(
    dataset: PreparedDataset, toy_teacher: Path, tmp_path: Path
) -> None:
    torch.save(load(toy_teacher).state_dict(), tmp_path / "plain.pth")
    with pytest.raises(InputError) as error:
        load_teacher(tmp_path / "plain.pth", dataset)
    assert error.value.hint.startswith("add --teacher-preset NAME_OR_FILE, the preset of that network")


def test_a_program_of_more_channels_than_classes_is_refused(
    dataset: PreparedDataset, toy_teacher: Path, images: Tensor, tmp_path: Path
) -> None:
    path = write_program("torchscript", LogitsAlone(toy_teacher, [*range(11), 0]).eval(), images, tmp_path)
    with pytest.raises(InputError) as error:
        answer(load_teacher(path, dataset, trust_program=True), images)
    assert error.value.message == "the network returns 12 channels, wanted 11, one for each class"


@pytest.mark.slow
def test_a_program_for_one_size_says_what_it_cannot_take(
    dataset: PreparedDataset, toy_teacher: Path, images: Tensor, tmp_path: Path
) -> None:
    path = write_program("export", LogitsAlone(toy_teacher, list(range(11))).eval(), images, tmp_path)
    with pytest.raises(InputError) as error:
        answer(load_teacher(path, dataset, trust_program=True), images[:, :20])
    assert error.value.message.startswith("the network cannot take images of (2, 3, 20, 47): ")
    assert error.value.hint == "export it for any batch, height and width (dynamic shapes)"


@pytest.mark.slow
def test_a_program_teaches_a_whole_run_and_its_resumption(
    toy_data: Path, toy_teacher: Path, images: Tensor, tmp_path: Path
) -> None:
    path = write_program("torchscript", LogitsAlone(toy_teacher, list(range(11))).eval(), images, tmp_path)
    mine = load(toy_teacher)
    mean, std = (buffer.flatten().div(255).tolist() for buffer in (mine.pixel_mean, mine.pixel_std))
    path.with_suffix(".json").write_text(json.dumps({"mean": mean, "std": std}), encoding="utf-8")
    folder = RunFolder(tmp_path / "run")
    start_run(Request(student(), toy_data, tmp_path, teacher=path, trust_program=True, device="cpu"), folder, Silent())
    folder.model.unlink()
    resume_run(Request(student(), toy_data, tmp_path, trust_program=True, device="cpu"), folder, Silent())
    assert folder.read_environment()["teacher"]["preset"] == "torchscript"
    assert folder.finished


@pytest.mark.slow
def test_a_term_on_features_is_refused_where_the_teacher_hides_them(
    toy_data: Path, toy_teacher: Path, images: Tensor, tmp_path: Path
) -> None:
    path = write_program("torchscript", LogitsAlone(toy_teacher, list(range(11))).eval(), images, tmp_path)
    with pytest.raises(InputError) as error:
        dry_run(
            Request(student(distiller={"terms": [{"kind": "ifvd"}]}), toy_data, tmp_path, teacher=path, trust_program=True),
            Silent(),
        )
    assert error.value.message == "the distillation term 'ifvd' compares features, and this teacher gives none"


@pytest.mark.slow
def test_a_program_that_returns_its_features_teaches_by_them(
    toy_data: Path, toy_teacher: Path, images: Tensor, tmp_path: Path
) -> None:
    """Two steps of every term on features give the numbers that the toy teacher itself gives."""
    path = write_program("torchscript", LogitsAndFeatures(toy_teacher, []).eval(), images, tmp_path)
    mine = load(toy_teacher)
    mean, std = (buffer.flatten().div(255).tolist() for buffer in (mine.pixel_mean, mine.pixel_std))
    path.with_suffix(".json").write_text(json.dumps({"mean": mean, "std": std}), encoding="utf-8")
    run = student(distiller={"terms": [{"kind": kind} for kind in ("skd", "ifvd", "cwd_features", "cirkd")]})
    losses = []
    for teacher in (path, toy_teacher):
        folder = RunFolder(tmp_path / f"run-{teacher.stem}")
        start_run(
            Request(run, toy_data, tmp_path, teacher=teacher, trust_program=teacher == path, device="cpu"), folder, Silent()
        )
        events = [json.loads(line) for line in folder.log.read_text(encoding="utf-8").splitlines()]
        losses.append([event["loss"] for event in events if event["event"] == "step"])
    assert len(losses[0]) > 0
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize("where", ["folder", "hub name"])
def test_without_transformers_a_hugging_face_teacher_says_what_to_install(
    where: str, dataset: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    monkeypatch.setattr("segctl.teacher.load.repository_folder", lambda name: tmp_path)  # as if the hub had it
    given = tmp_path if where == "folder" else Path("hf:somebody/something")
    with pytest.raises(InputError) as error:
        load_teacher(find_teacher(student(), given, tmp_path).path, dataset)
    assert error.value.message == "a teacher from Hugging Face needs the package 'transformers'"
    assert error.value.hint == 'install it with `pip install "segctl[hf]"`'


def segformer(folder: Path, names: list[str]) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], sr_ratios=[4, 2], hidden_sizes=[8, 16], patch_sizes=[7, 3], strides=[4, 2],
        num_attention_heads=[1, 2], mlp_ratios=[2, 2], decoder_hidden_size=12, id2label=dict(enumerate(names)),
    )  # fmt: skip
    torch.manual_seed(0)
    net: nn.Module = transformers.SegformerForSemanticSegmentation(config).eval()
    net.save_pretrained(folder)
    processor = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.25], "image_processor_type": "SegformerImageProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    return net


def test_a_segformer_is_matched_by_name_with_its_own_normalisation_and_features(
    dataset: PreparedDataset, images: Tensor, tmp_path: Path
) -> None:
    order = [(4 * index) % 11 for index in range(11)]
    names = ["something else", *(dataset.classes.names[index] for index in order)]
    net = segformer(tmp_path / "hf", names)
    teacher = load_teacher(find_teacher(student(), Path(f"hf:{tmp_path / 'hf'}"), tmp_path).path, dataset)
    pixels = (images.permute(0, 3, 1, 2) / 255 - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / torch.tensor(
        [0.2, 0.2, 0.25]
    ).view(3, 1, 1)
    with torch.inference_mode():
        wanted = net(pixels).logits
    found = answer(teacher, images)
    for index, place in enumerate(order):
        torch.testing.assert_close(found.logits[:, place], wanted[:, 1 + index], rtol=1e-4, atol=1e-4)
    assert found.features is not None
    assert found.features.shape[1] == 12
    assert len(teacher.sha256) == 64


IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
PROCESSORS: dict[str, dict[str, object]] = {
    "plain": {"image_processor_type": "SegformerImageProcessor", **IMAGENET},
    "not normalised": {"image_processor_type": "SegformerImageProcessor", "do_normalize": False, **IMAGENET},
    "not rescaled": {
        "image_processor_type": "SegformerImageProcessor", "do_rescale": False,
        "image_mean": [123.675, 116.28, 103.53], "image_std": [58.395, 57.12, 57.375],
    },
    "to -1 and 1": {
        "image_processor_type": "SegformerImageProcessor", "rescale_factor": 1 / 127.5,
        "image_mean": [1.0, 1.0, 1.0], "image_std": [1.0, 1.0, 1.0],
    },
    "one number": {"image_processor_type": "SegformerImageProcessor", "image_mean": 0.5, "image_std": 0.25},
    "one number in a list": {"image_processor_type": "SegformerImageProcessor", "image_mean": [0.5], "image_std": [0.25]},
    "the class's own": {"image_processor_type": "BeitImageProcessor"},
    "blue first": {"image_processor_type": "MobileViTImageProcessor"},
}  # fmt: skip


@pytest.mark.parametrize("settings", PROCESSORS.values(), ids=PROCESSORS.keys())
def test_pixels_are_those_of_the_folder_s_own_processor(
    settings: dict[str, object], dataset: PreparedDataset, images: Tensor, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    segformer(tmp_path / "hf", dataset.classes.names)
    (tmp_path / "hf" / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
    processor = getattr(transformers, str(settings["image_processor_type"]))(
        **{key: value for key, value in settings.items() if key != "image_processor_type"}
    )
    wanted = processor(list(images.numpy()), do_resize=False, do_center_crop=False, return_tensors="pt")["pixel_values"]
    teacher = load_teacher(tmp_path / "hf", dataset)
    torch.testing.assert_close(teacher.model.normalize(images), wanted.float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_mean": None, "do_normalize": True}, "image_mean is null, wanted three numbers"),
        ({"image_mean": [0.5, 0.5]}, "image_mean is [0.5, 0.5], wanted three numbers"),
        ({"image_mean": [123.0, 116.0, 103.0]}, "do not suit pixels that the processor brings to 0 to 1"),
        ({"rescale_factor": "a"}, "rescale_factor is 'a', wanted a number"),
    ],
)
def test_a_processor_s_key_without_a_meaning_is_named(
    settings: dict[str, object], message: str, dataset: PreparedDataset, tmp_path: Path
) -> None:
    segformer(tmp_path / "hf", dataset.classes.names)
    (tmp_path / "hf" / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(InputError) as error:
        load_teacher(tmp_path / "hf", dataset)
    assert message in error.value.message


def test_a_folder_in_half_precision_without_a_processor_teaches_in_float32_and_says_what_it_assumes(
    dataset: PreparedDataset, images: Tensor, tmp_path: Path
) -> None:
    net = segformer(tmp_path / "hf", dataset.classes.names).half()
    net.save_pretrained(tmp_path / "hf")  # type: ignore[operator]
    (tmp_path / "hf" / "preprocessor_config.json").unlink()
    teacher = load_teacher(tmp_path / "hf", dataset)
    assert answer(teacher, images).logits.dtype == torch.float32
    assert teacher.notes == (
        f"'{tmp_path / 'hf'}' has no preprocessor_config.json: its images are normalised with ImageNet's mean and deviation",
    )


def test_a_folder_that_names_no_classes_says_where_to_write_them(dataset: PreparedDataset, tmp_path: Path) -> None:
    segformer(tmp_path / "hf", [f"LABEL_{index}" for index in range(11)])
    with pytest.raises(InputError) as error:
        load_teacher(tmp_path / "hf", dataset)
    assert "its config.json names none of its 11 classes" in error.value.message
    assert error.value.hint == "write the classes into id2label in config.json, in the network's own order"


def test_a_oneformer_is_refused_in_one_sentence(dataset: PreparedDataset, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    config = {"architectures": ["OneFormerForUniversalSegmentation"]}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(InputError, match="is a OneFormer, which needs a text beside each image"):
        load_teacher(tmp_path, dataset)


def test_a_hub_repository_of_pickled_weights_alone_is_fetched_whole(
    dataset: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, folder, asked = segformer(tmp_path / "hub", dataset.classes.names), tmp_path / "hub", []
    (folder / "model.safetensors").unlink()

    def snapshot(name: str, allow_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        if "pytorch_model*.bin" in allow_patterns:
            torch.save(net.state_dict(), folder / "pytorch_model.bin")
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert len(load_teacher(Path("hf:me/seg"), dataset).sha256) == 64
    assert len(asked) == 2


def test_a_transformer_of_patches_sees_the_last_row(dataset: PreparedDataset, images: Tensor, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    transformers.BeitForSemanticSegmentation(
        transformers.BeitConfig(
            hidden_size=32, num_hidden_layers=4, num_attention_heads=4, intermediate_size=64, image_size=64, patch_size=16,
            out_indices=[1, 2, 3, 4], auxiliary_channels=16, use_relative_position_bias=True,
            id2label=dict(enumerate(dataset.classes.names)),
        )
    ).save_pretrained(tmp_path / "beit")  # fmt: skip
    teacher = load_teacher(tmp_path / "beit", dataset)
    assert any("images are padded to a multiple of 16 pixels" in note for note in teacher.notes)
    changed = images.clone()
    changed[:, -1] = 255 - images[:, -1]
    assert not torch.equal(answer(teacher, images).logits, answer(teacher, changed).logits)


def test_a_segformer_teaches_by_logits_and_features(toy_data: Path, dataset: PreparedDataset, tmp_path: Path) -> None:
    segformer(tmp_path / "hf", dataset.classes.names)
    terms = {"terms": [{"kind": "kd"}, {"kind": "cwd_features"}, {"kind": "soft_jdt", "smooth": 1.0}]}
    found = dry_run(Request(student(distiller=terms), toy_data, tmp_path, teacher=tmp_path / "hf"), Silent())
    assert found["loss"] > 0


def test_a_network_that_answers_with_masks_is_read_semantically(dataset: PreparedDataset, images: Tensor, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    save_mask2former(tmp_path / "m2f", dataset.classes.names)
    found = answer(load_teacher(tmp_path / "m2f", dataset), images.repeat(1, 2, 2, 1)[:, :64, :64])
    assert found.logits.shape[:2] == (2, 11)
    torch.testing.assert_close(found.logits.exp().sum(1), torch.ones_like(found.logits[:, 0]), rtol=1e-3, atol=1e-3)


def test_a_hugging_face_network_of_another_task_is_refused(dataset: PreparedDataset, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["BertModel"]}), encoding="utf-8")
    with pytest.raises(InputError) as error:
        load_teacher(tmp_path, dataset)
    assert error.value.message == f"'{tmp_path}' is not a network for semantic segmentation: its architecture is BertModel"


@pytest.mark.slow
def test_the_cache_of_a_program_is_another_one_after_its_facts_changed(
    toy_data: Path, toy_teacher: Path, images: Tensor, tmp_path: Path
) -> None:
    """A cache that was filled without padding is not read by a run whose teacher.json asks for it."""
    path = write_program("torchscript", LogitsAndFeatures(toy_teacher, []).eval(), images, tmp_path)
    run = toy_run(
        STUDENT | {"distiller": {"terms": [{"kind": "skd"}]}},
        teacher={"preset": "toy", "cache": True},
        data={"crop": [48, 64], "scale": [1, 1]},
        train={"steps": 2, "validate_every": 2},
    )
    mine = load(toy_teacher)
    mean, std = (buffer.flatten().div(255).tolist() for buffer in (mine.pixel_mean, mine.pixel_std))
    for multiple in (1, 32, 1):
        path.with_suffix(".json").write_text(json.dumps({"mean": mean, "std": std, "multiple": multiple}), encoding="utf-8")
        folder = RunFolder(tmp_path / f"run-{len(list(tmp_path.iterdir()))}")
        start_run(Request(run, toy_data, tmp_path, teacher=path, trust_program=True, device="cpu"), folder, Silent())
    assert len(list((tmp_path / ".answers").iterdir())) == 2
