"""Exported files that are missing, damaged, strangers' or for another machine: one sentence each."""

import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from segctl.errors import InputError
from segctl.files import archive_kind
from segctl.programs import is_program, open_program


@pytest.fixture
def file(toy_export: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(toy_export / "export" / "model.onnx", tmp_path / "model.onnx"))


def refused(path: Path, *arguments: str, **options: bool) -> str:
    with pytest.raises(InputError) as raised:
        open_program(path, *arguments, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def small_onnx(path: Path, operation: str = "Relu", domain: str = "", opset: int = 18) -> Path:
    node = helper.make_node(operation, ["images"], ["labels"], domain=domain)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("images", "labels")]
    opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    onnx.save(helper.make_model(helper.make_graph([node], "g", values[:1], values[1:]), opset_imports=opsets, ir_version=9), path)
    return path


@pytest.mark.parametrize("content", ["cut", "empty", "zeros", "text"])
def test_a_damaged_onnx_is_named(content: str, file: Path) -> None:
    sound = file.read_bytes()
    file.write_bytes({"cut": sound[: len(sound) // 2], "empty": b"", "zeros": bytes(len(sound)), "text": b"hello" * 99}[content])
    assert refused(file).startswith(f"cannot read '{file}': it is damaged, cut short, or not an ONNX file: ")


def test_a_bit_that_flipped_in_a_weight_is_found(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert "damaged" in refused(file)


def test_a_file_that_another_tool_wrote_again_is_read(file: Path) -> None:
    model = onnx.load(file)
    model.producer_name = "another tool"
    onnx.save(model, file)
    assert open_program(file).labels(np.zeros((1, 9, 7, 3), np.uint8)).shape == (1, 9, 7)


def test_a_strangers_onnx_is_no_export(tmp_path: Path) -> None:
    said = refused(small_onnx(tmp_path / "a.onnx"))
    assert said.startswith(
        f"'{tmp_path / 'a.onnx'}' was not exported by segctl: it does not say which classes it knows; export it"
    )


@pytest.mark.parametrize(("operation", "domain"), [("Frobnicate", ""), ("Secret", "com.example")])
def test_an_operation_that_onnxruntime_lacks_is_named(operation: str, domain: str, tmp_path: Path) -> None:
    said = refused(small_onnx(tmp_path / "a.onnx", operation, domain))
    assert re.search(rf"uses the operation \S*{operation}\S*, which onnxruntime [\d.]+ does not have; update onnxruntime", said)


def test_facts_that_were_edited_are_damage(file: Path) -> None:
    model = onnx.load(file)
    model.metadata_props[0].value = model.metadata_props[0].value.replace('"labels"', '"lables"')
    onnx.save(model, file)
    assert refused(file).startswith(f"'{file}' is damaged: output is 'lables', wanted ")


def test_a_device_that_is_not_there(file: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has a provider for CUDA")
    assert refused(file, "cuda").startswith("--device 'cuda': this onnxruntime runs on ")
    assert refused(file, "mps").startswith("--device 'mps': this onnxruntime runs on ")


def test_what_is_no_exported_file(tmp_path: Path, toy_teacher: Path) -> None:
    assert refused(tmp_path / "no.onnx").startswith(f"no exported file at '{tmp_path / 'no.onnx'}'")
    (tmp_path / "a.pt2").write_text("hello")
    assert "reading it may run any code" in refused(tmp_path / "a.pt2")
    assert refused(tmp_path / "a.pt2", trusted=True).startswith(f"cannot read '{tmp_path / 'a.pt2'}': it is damaged")
    (tmp_path / "a.txt").write_text("hello")
    assert refused(tmp_path / "a.txt").startswith(f"'{tmp_path / 'a.txt'}' is not an exported file")
    (tmp_path / "a.xml").write_text("<net/>")
    pytest.importorskip("openvino")
    assert refused(tmp_path / "a.xml") == f"'{tmp_path / 'a.xml'}' has lost its weights, 'a.bin' beside it; " + (
        "export it again with `segctl export RUN`"
    )
    (tmp_path / "a.bin").write_bytes(b"")
    assert refused(tmp_path / "a.xml").startswith(f"cannot read '{tmp_path / 'a.xml'}': ")
    assert not is_program(toy_teacher)
    assert not is_program(toy_teacher / "model.safetensors")


def test_a_strangers_torchscript_is_not_run(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.ReLU()), tmp_path / "a.pt")
    assert archive_kind(tmp_path / "a.pt") == "torchscript"
    assert is_program(tmp_path / "a.pt")
    assert "a TorchScript program, and reading it may run any code" in refused(tmp_path / "a.pt")
    assert "was not exported by segctl" in refused(tmp_path / "a.pt", trusted=True)


def test_a_flipped_bit_in_an_archive_of_torch(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt2", "w") as archive:
        archive.writestr("a/archive_format", "pt2" * 500)
    content = bytearray((tmp_path / "a.pt2").read_bytes())
    content[600] ^= 1
    (tmp_path / "a.pt2").write_bytes(content)
    assert "does not match its checksum" in refused(tmp_path / "a.pt2", trusted=True)
