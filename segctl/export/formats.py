"""A traced network -> a file of each format, with facts about it inside.

A new format is a function in WRITERS here, and a Program in segctl/programs.
"""

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
import xxhash
from torch.export import ExportedProgram

from segctl.errors import InputError, did_you_mean
from segctl.export.trace import cannot_trace, trace, trace_script
from segctl.files import write_whole
from segctl.models import Segmenter
from segctl.programs.facts import EXTRA_FILE, KEY, ProgramFacts
from segctl.programs.onnx_file import INPUT, with_facts
from segctl.programs.openvino_file import require_openvino

OPSET = 18
"""The newest opset that torch writes without converting: onnxruntime since 1.14 and every current tool reads it."""
AXES = ("batch", "height", "width")


class ExportFormat(NamedTuple):
    """A format of exported files: the ending of its name, its writer, and a word on it for help."""

    ending: str
    write: Callable[[Path, Segmenter, ProgramFacts], None]


def write_onnx(path: Path, network: Segmenter, facts: ProgramFacts) -> None:
    """Write an .onnx file, whole."""
    content = with_facts(onnx_bytes(network, facts), facts)
    _write_bytes(path, content)


def onnx_bytes(network: Segmenter, facts: ProgramFacts) -> bytes:
    """The network as a serialised ONNX model, without facts. Raises InputError where torch cannot write it."""
    size = _size(facts)
    program = trace(network, facts.output, size)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found: Any = torch.onnx.export(
                program,
                (),
                None,
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[facts.output],
                verbose=False,
            )
        model = found.model_proto
    except Exception as error:  # the exporter raises kinds of its own
        raise cannot_trace(size, error) from error
    _tidy(model, size)
    return bytes(model.SerializeToString(deterministic=True))


def _tidy(model: Any, size: tuple[int, int] | None) -> None:
    """Name the free axes, and drop what the exporter noted on the machine: its stack traces hold paths."""
    names = AXES if size is None else AXES[:1]
    image, result = model.graph.input[0].type.tensor_type.shape.dim, model.graph.output[0].type.tensor_type.shape.dim
    places = (0, 1, 2) if len(result) == 3 else (0, 2, 3)
    for axis, name in enumerate(names):
        image[axis].dim_param = result[places[axis]].dim_param = name
    del model.graph.value_info[:]
    model.doc_string = model.graph.doc_string = ""
    del model.metadata_props[:]
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for tensor in model.graph.initializer:
        tensor.doc_string = ""
    del model.graph.metadata_props[:]
    for function in model.functions:
        function.doc_string = ""
        del function.metadata_props[:]
        for node in function.node:
            node.doc_string = ""
            del node.metadata_props[:]


def write_torch(path: Path, network: Segmenter, facts: ProgramFacts) -> None:
    """Write a .pt2 file of torch.export, whole."""
    program: ExportedProgram = trace(network, facts.output, _size(facts))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it holds paths of this machine
    content = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.export.save(program, content, extra_files={EXTRA_FILE: facts.to_text()})
    except Exception as error:
        raise cannot_trace(_size(facts), error) from error
    _write_bytes(path, content.getvalue())


def write_torchscript(path: Path, network: Segmenter, facts: ProgramFacts) -> None:
    """Write a TorchScript file, whole."""
    program = trace_script(network, facts.output, _size(facts))
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(program, content, _extra_files={EXTRA_FILE: facts.to_text()})
    _write_bytes(path, content.getvalue())


def write_openvino(path: Path, network: Segmenter, facts: ProgramFacts) -> None:
    """Write OpenVINO's .xml and the .bin beside it, each whole; the .xml comes last."""
    openvino = require_openvino()
    with TemporaryDirectory() as folder:
        source, target = Path(folder) / "model.onnx", Path(folder) / "model.xml"
        source.write_bytes(onnx_bytes(network, facts))
        try:
            model = openvino.convert_model(str(source))
            openvino.save_model(model, str(target), compress_to_fp16=False)
            weights = target.with_suffix(".bin").read_bytes()
            vouched = facts.model_copy(update={"checksum": xxhash.xxh3_128_hexdigest(weights), "checked_bytes": len(weights)})
            model.set_rt_info(vouched.to_text(), [KEY])
            openvino.save_model(model, str(target), compress_to_fp16=False)
            text = target.read_bytes()
        except RuntimeError as error:  # OpenVINO raises nothing else
            raise cannot_trace(_size(facts), error) from error
    _write_bytes(path.with_suffix(".bin"), weights)
    _write_bytes(path, text)


EXPORT_FORMATS = {
    "onnx": ExportFormat(".onnx", write_onnx),
    "torch": ExportFormat(".pt2", write_torch),
    "torchscript": ExportFormat(".torchscript.pt", write_torchscript),
    "openvino": ExportFormat(".xml", write_openvino),
}


def require_format(name: str) -> ExportFormat:
    """The format of this name. Raises InputError."""
    if name not in EXPORT_FORMATS:
        known = list(EXPORT_FORMATS)
        raise InputError(f"--format '{name}' is not known{did_you_mean(name, known)}", f"use {', '.join(known)}")
    return EXPORT_FORMATS[name]


def _size(facts: ProgramFacts) -> tuple[int, int] | None:
    return None if facts.size is None else (facts.size[0], facts.size[1])


def _write_bytes(path: Path, content: bytes) -> None:
    def write(partial: Path) -> None:
        partial.write_bytes(content)

    write_whole(path, write)
