"""ONNX files, run by onnxruntime."""

import re
from pathlib import Path
from typing import Any

import xxhash
from numpy.typing import NDArray

from segctl.errors import InputError, first_line
from segctl.programs.base import Images, Program
from segctl.programs.facts import EXPORT_AGAIN, KEY, ProgramFacts, facts_of
from segctl.runtime.cores import core_count

INPUT = "images"
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "mps": "CoreMLExecutionProvider"}
QUIET = 3
"""onnxruntime's level for errors alone."""


class OnnxProgram(Program):
    """An .onnx file. `provider` is the device that onnxruntime runs it on."""

    kind = "onnx"

    def __init__(self, path: Path, facts: ProgramFacts, session: Any) -> None:
        super().__init__(path, facts)
        self.session = session

    @staticmethod
    def open(path: Path, device: str | None = None, threads: int | None = None) -> "OnnxProgram":
        """Raises InputError as `open_program` does."""
        session = open_session(path, device, threads)
        facts = facts_of(session.get_modelmeta().custom_metadata_map.get(KEY), f"'{path}'")
        _require_unchanged(path, facts)
        return OnnxProgram(path, facts, session)

    def _run(self, images: Images) -> NDArray[Any]:
        found: NDArray[Any] = self.session.run(None, {INPUT: images})[0]
        return found


def open_session(path: Path, device: str | None = None, threads: int | None = None) -> Any:
    """onnxruntime's session of any .onnx file. threads: on the CPU; every core if None.

    Raises InputError for a device that is not there, and for what onnxruntime cannot read.
    """
    import onnxruntime

    chosen = _provider(device, onnxruntime.get_available_providers())
    options = onnxruntime.SessionOptions()
    options.log_severity_level = QUIET
    options.intra_op_num_threads, options.inter_op_num_threads = threads or core_count(), 1
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=[chosen, *_unless(chosen, PROVIDERS["cpu"])])
    except Exception as error:  # onnxruntime has a dozen kinds
        raise _cannot_load(path, error, onnxruntime.__version__) from error
    if session.get_providers()[0] != chosen:
        raise InputError(f"--device '{device}': onnxruntime found no GPU that it can use", "use --device cpu")
    return session


def _provider(device: str | None, available: list[str]) -> str:
    wanted = PROVIDERS.get((device or "cpu").split(":")[0])
    if wanted not in available:
        raise InputError(
            f"--device '{device}': this onnxruntime runs on {', '.join(available)}",
            "use --device cpu, or `pip install onnxruntime-gpu` for CUDA",
        )
    assert wanted is not None
    return wanted


def _unless(chosen: str, other: str) -> list[str]:
    return [] if chosen == other else [other]


def _cannot_load(path: Path, error: Exception, version: str) -> InputError:
    said = " ".join(str(error).split())
    unknown = re.search(
        r"No Op registered for (\S+)|(\S+?)\(-?\d+\) is not a registered function/op|implementation for (\w+)", said
    )
    if unknown:
        name = next(group for group in unknown.groups() if group)
        return InputError(
            f"'{path}' uses the operation {name}, which onnxruntime {version} does not have",
            "update onnxruntime, or export the run again",
        )
    if newer := re.search(r"[Uu]nsupported model IR version: \d+|opset \d+ is under development", said):
        return InputError(f"onnxruntime {version} is too old for '{path}': {newer[0]}", "update onnxruntime")
    return InputError(
        f"cannot read '{path}': it is damaged, cut short, or not an ONNX file: {first_line(error)[:200]}", EXPORT_AGAIN
    )


def with_facts(body: bytes, facts: ProgramFacts) -> bytes:
    """A serialised ONNX model with facts about it, and their checksum of the model.

    Two protobuf messages in a row are read as one, so the facts can follow the bytes that they vouch for.
    """
    return body + _tail(facts.model_copy(update={"checksum": xxhash.xxh3_128_hexdigest(body), "checked_bytes": len(body)}))


def _tail(facts: ProgramFacts) -> bytes:
    import onnx

    tail = onnx.ModelProto()
    entry = tail.metadata_props.add()
    entry.key, entry.value = KEY, facts.to_text()
    return bytes(tail.SerializeToString())


def _require_unchanged(path: Path, facts: ProgramFacts) -> None:
    """Refuse a file whose bytes changed in place: a flipped bit is another weight.

    A file that does not end as segctl wrote it was rewritten by another tool, which is allowed.
    """
    content = path.read_bytes()
    length = facts.checked_bytes or 0
    if content[length:] == _tail(facts) and xxhash.xxh3_128_hexdigest(content[:length]) != facts.checksum:
        raise InputError(f"'{path}' is damaged: its content does not match its checksum", EXPORT_AGAIN)
