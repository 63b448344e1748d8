"""What can be measured, what each row knows, and what is refused."""

import numpy as np
import pytest
import torch
from onnx import TensorProto

from segctl.bench.exported_file import Conditions
from segctl.bench.subjects import Subject, subjects_of, usual_size
from segctl.errors import InputError
from segctl.export.formats import write_openvino, write_torch, write_torchscript
from segctl.models import upsample
from segctl.models.saving import save
from segctl.programs.facts import DataFacts, ProgramFacts
from segctl.schema.load import preset_costs
from tests.bench.onnx_files import write_onnx
from tests.models.specs import CLASS_NAMES, network, run_of, spec

HERE = Conditions((16, 24), 1, "cpu")
IMAGE = np.random.default_rng(0).integers(0, 256, (1, 16, 24, 3), dtype=np.uint8)


def run_folder(path, head="lraspp", **changes):
    model = network(head, num_classes=5, output_stride=16, **changes)
    path.mkdir(parents=True)
    run = run_of(spec(head, output_stride=16, **changes))
    save(path / "model.pt", model, run, CLASS_NAMES)
    (path / "run.yaml").write_text(run.model_dump_json(), encoding="utf-8")
    return model.eval()


def test_a_preset_costs_what_the_table_of_presets_says(tmp_path):
    plain, compiled = subjects_of("camvid-tiny", usual_size("camvid-tiny", tmp_path), tmp_path, compiled=True)
    row = preset_costs()["camvid-tiny"]
    assert (plain.parameters, round(plain.gflop, 2)) == (row.parameters, row.gflop)
    assert (plain.form, compiled.form, plain.file) == ("torch", "torch compiled", None)


def test_a_run_is_measured_with_its_exported_files_but_not_with_those_that_failed(tmp_path):
    run_folder(tmp_path / "run")
    for name in ("model", "model-int8", "model-failed-parity"):
        write_onnx(tmp_path / "run" / "export" / f"{name}.onnx")
    found = list(subjects_of(str(tmp_path / "run"), (16, 24), tmp_path, compiled=False))
    assert [(one.form, one.name) for one in found] == [
        ("torch", str(tmp_path / "run")),
        ("onnx", "model-int8.onnx"),
        ("onnx", "model.onnx"),
    ]
    assert len({one.parameters for one in found}) == 1


def test_torch_gives_the_network_s_classes(tmp_path):
    model = run_folder(tmp_path / "run")
    (subject,) = subjects_of(str(tmp_path / "run"), (16, 24), tmp_path, compiled=False)
    with torch.no_grad():
        logits = model(model.normalize(torch.from_numpy(IMAGE))).logits
    assert torch.equal(subject.segment(HERE)(IMAGE), upsample(logits, (16, 24)).argmax(1).to(torch.uint8))


def test_an_onnx_file_alone_tells_its_weights_and_gives_its_labels(tmp_path):
    path = write_onnx(tmp_path / "toy.onnx")
    (subject,) = subjects_of(str(path), (16, 24), tmp_path, compiled=True)
    assert (subject.parameters, subject.gflop, subject.name) == (15, None, str(path))
    (labels,) = subject.segment(HERE)(IMAGE)
    assert np.array_equal(labels, (IMAGE.astype(np.float32) @ np.arange(15, dtype=np.float32).reshape(3, 5)).argmax(3))


def test_the_size_is_the_file_s_own_the_dataset_s_or_the_crop_s(tmp_path):
    assert usual_size(str(write_onnx(tmp_path / "fixed.onnx", height=97, width=130)), tmp_path) == (97, 130)
    assert usual_size(str(write_onnx(tmp_path / "free.onnx")), tmp_path) == (512, 1024)
    assert usual_size("cityscapes-tiny", tmp_path) == (1024, 2048)
    run_folder(tmp_path / "run")
    assert usual_size(str(tmp_path / "run"), tmp_path) == usual_size(str(tmp_path / "run" / "model.pt"), tmp_path) == (128, 160)


def one(path, size=(16, 24)):
    return Subject(str(path), "onnx", path, path.parent).segment(Conditions(size, 1, "cpu"))


def test_other_files_are_refused_in_words(tmp_path):
    with pytest.raises(InputError, match="takes only images of 97×130, got 16×24; use --size 97x130"):
        one(write_onnx(tmp_path / "fixed.onnx", height=97, width=130))
    with pytest.raises(InputError, match=r"takes tensor\(float\) .*, wanted one tensor\(uint8\) of \(B, H, W, 3\)"):
        one(write_onnx(tmp_path / "float.onnx", kind=TensorProto.FLOAT))
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(InputError, match=r"cannot read '.*broken.onnx'"):
        one(tmp_path / "broken.onnx")
    with pytest.raises(InputError, match=r"no file at 'missing.onnx'"):
        usual_size("missing.onnx", tmp_path)
    (tmp_path / "picture.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"it is not a run, preset, model file or exported file"):
        usual_size(str(tmp_path / "picture.png"), tmp_path)
    with pytest.raises(InputError, match="--device 'cuda:0': this onnxruntime runs on"):
        Subject("toy.onnx", "onnx", write_onnx(tmp_path / "toy.onnx"), tmp_path).segment(Conditions((16, 24), 1, "cuda:0"))


@pytest.mark.parametrize(
    ("form", "ending", "write"),
    [
        ("torchscript", ".torchscript.pt", write_torchscript),
        pytest.param("pt2", ".pt2", write_torch, marks=pytest.mark.slow),
        pytest.param("openvino", ".xml", write_openvino, marks=pytest.mark.slow),
    ],
)
def test_files_of_every_format_stand_beside_their_run(form, ending, write, tmp_path):
    if form == "openvino":
        pytest.importorskip("openvino")
    model = run_folder(tmp_path / "run")
    (tmp_path / "run" / "export").mkdir()
    file = tmp_path / "run" / "export" / f"model{ending}"
    write(file, model, facts())
    plain, exported = subjects_of(str(tmp_path / "run"), (16, 24), tmp_path, compiled=False)
    assert (exported.form, exported.name, exported.parameters) == (form, file.name, plain.parameters)
    trusted = Conditions((16, 24), 1, "cpu", trusted=True)
    assert np.array_equal(exported.segment(trusted)(IMAGE), plain.segment(HERE)(IMAGE))
    assert usual_size(str(file), tmp_path, trusted=True) == (512, 1024)
    (alone,) = subjects_of(str(file), (16, 24), tmp_path, compiled=False)
    assert (alone.form, alone.name) == (form, str(file))
    if form != "openvino":
        with pytest.raises(InputError, match="reading it may run any code"):
            exported.segment(HERE)
    with pytest.raises(InputError, match="a file of this format runs on the CPU here"):
        exported.segment(Conditions((16, 24), 1, "cuda"))


def test_a_file_of_one_size_is_measured_at_it_alone(tmp_path):
    file = tmp_path / "fixed.torchscript.pt"
    write_torchscript(file, run_folder(tmp_path / "run"), facts(size=[16, 24]))
    assert usual_size(str(file), tmp_path, trusted=True) == (16, 24)
    with pytest.raises(InputError, match="takes only images of 16×24, got 32×24; use --size 16x24"):
        Subject(str(file), "torchscript", file, tmp_path).segment(Conditions((32, 24), 1, "cpu", trusted=True))


def facts(**changes):
    return ProgramFacts(
        segctl="0", preset="toy", class_names=CLASS_NAMES, colors=[[0, 0, 0]] * 5, mean=[0.5] * 3, std=[0.2] * 3, output="labels",
        weights_sha256="0", data=DataFacts(dataset="toy"),
    ).model_copy(update=changes)  # fmt: skip
