"""Which format a file has, and opening it."""

from pathlib import Path
from typing import Literal

from segctl.errors import InputError
from segctl.files import archive_kind, damage_of_zip
from segctl.programs.base import Program
from segctl.programs.facts import EXPORT_AGAIN, ProgramFacts, torch_facts
from segctl.runs import RunFolder

FAILED = "-failed-parity"
"""Part of the name of an exported file that differs too much from its run."""

ProgramKind = Literal["onnx", "openvino", "torch", "torchscript"]


def kind_of(path: Path) -> ProgramKind | None:
    """The format of an exported file, by its name and, for torch's archives, by what is inside; None for any other file."""
    if path.suffix in (".onnx", ".xml"):
        return "onnx" if path.suffix == ".onnx" else "openvino"
    match archive_kind(path) if path.is_file() else "":
        case "torchscript":
            return "torchscript"
        case "export":
            return "torch"
        case _:
            return "torch" if path.suffix == ".pt2" else None


def is_program(path: Path) -> bool:
    """Whether a path is that of an exported file."""
    return not path.is_dir() and kind_of(path) is not None


def exports_of(run: RunFolder) -> list[Path]:
    """The exported files of a run by name, without those that differ too much from it, whose names say so."""
    found = sorted(run.exports.iterdir()) if run.exports.is_dir() else []
    return [path for path in found if is_program(path) and not path.name.startswith(".") and FAILED not in path.name]


def bytes_of(path: Path) -> int:
    """The size of an exported file, with the weights that lie beside an OpenVINO .xml."""
    beside = path.with_suffix(".bin")
    return path.stat().st_size + (beside.stat().st_size if path.suffix == ".xml" and beside.is_file() else 0)


def program_facts(path: Path) -> ProgramFacts:
    """What an exported file says about itself; runs none of its code. Raises InputError as `open_program` does."""
    if kind_of(path) not in ("torch", "torchscript"):
        return open_program(path).facts
    return torch_facts(path)


def open_program(path: Path, device: str | None = None, *, trusted: bool = False, threads: int | None = None) -> Program:
    """The exported file at `path`, ready to run.

    device: `cpu`, or `cuda` for .onnx.  trusted: whether a .pt2 or TorchScript file may be read, which may run its code.
    threads: on the CPU; the library's own number if None.
    Raises InputError for a file that is missing, damaged, not exported by segctl, or not trusted; for a device that the format
    does not run on; and for a library that is not installed.
    """
    kind = kind_of(path)
    if not path.is_file():
        raise InputError(f"no exported file at '{path}'", "give a file that `segctl export` wrote")
    if kind is None:
        raise InputError(f"'{path}' is not an exported file", "give a .onnx, .pt2, TorchScript or OpenVINO .xml file")
    if kind in ("torch", "torchscript") and (damage := damage_of_zip(path)):
        raise InputError(f"'{path}' is damaged: {damage}", EXPORT_AGAIN)
    if kind != "onnx" and device not in (None, "cpu"):
        raise InputError(
            f"--device '{device}': a file of this format runs on the CPU here", "leave --device out, or give a .onnx"
        )
    # Each library is loaded for its own files alone: a prediction by ONNX needs no torch.
    if kind == "onnx":
        from segctl.programs.onnx_file import OnnxProgram

        return OnnxProgram.open(path, device, threads)
    if kind == "openvino":
        from segctl.programs.openvino_file import OpenVinoProgram

        return OpenVinoProgram.open(path, threads)
    if not trusted:
        name = "TorchScript" if kind == "torchscript" else "torch.export"
        raise InputError(
            f"'{path}' is a {name} program, and reading it may run any code that it contains",
            "add --trust-program if you trust whoever made it; a .onnx file runs no code",
        )
    from segctl.programs.torch_file import TorchProgram

    return TorchProgram.open(path, kind, threads)
