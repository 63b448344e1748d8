"""The memory of a step: what can be added up by hand, and the table of the shipped presets."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from toy import STUDENT, toy_run

from segctl.schema.load import CARD_ROOM_GIB, PresetMemory, load_preset, preset_memory, preset_names
from segctl.train.build import build_session
from segctl.train.session import Request
from segctl.train.step_memory import GIB, memory_of_session, step_memory

ROOT = Path(__file__).parents[2]


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("preset_memory", ROOT / "benchmarks" / "preset_memory.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_a_session_keeps_its_weights_momentum_and_teacher(toy_data: Path, toy_teacher: Path, tmp_path: Path) -> None:
    run = toy_run(STUDENT)
    session = build_session(Request(run, toy_data, tmp_path, teacher=toy_teacher))
    assert session.teacher is not None
    found = memory_of_session(session, "fp32")
    assert found is not None
    learnt = sum(weight.nbytes for weight in session.task.parameters())
    fixed = sum(buffer.nbytes for buffer in session.task.buffers())
    teacher = sum(tensor.nbytes for tensor in session.teacher.model.state_dict().values())
    by_hand = 2 * learnt + fixed + teacher  # momentum is as large as the weights
    assert by_hand <= found.kept * GIB <= by_hand + 512 * 3 * len(session.task.state_dict()) + 512 * 500
    assert found.peak * GIB > by_hand + learnt  # the gradients
    assert not any(tensor.is_meta for tensor in session.task.state_dict().values())  # the session itself is as it was


def test_every_preset_has_a_row_and_fits_16_gb_somehow() -> None:
    table = preset_memory()
    assert list(table) == preset_names(), "run benchmarks/preset_memory.py"
    for name, row in table.items():
        assert row.batch == load_preset(name).train.batch_size, name
        for precision in ("fp32", "bf16"):
            sizes = row.of(precision)
            assert [row.batch // images for images in sizes] == [2**turn for turn in range(len(sizes))], name
            assert row.advice(precision) != "no way found", (name, precision)
            if name.startswith("cityscapes"):  # "1 to 4 GPUs of 16 GB"
                # Four GPUs each hold a quarter of the activations, and all of the weights, gradients and momentum: below 1.5 GiB.
                assert row.batch // min(sizes) <= 4 or row.checkpointed[precision] / 4 + 1.5 <= CARD_ROOM_GIB, (name, precision)


def test_the_advice_names_every_way() -> None:
    row = PresetMemory(8, {8: 35.0, 4: 18.0, 2: 10.0}, {8: 17.0, 4: 9.0}, {"fp32": 20.0, "bf16": 10.5})
    assert row.advice("fp32") == "4 GPUs, or one with train.accumulate=4"
    assert row.advice("bf16") == "one with train.activation_checkpointing=true, or 2 GPUs, or one with train.accumulate=2"
    assert row.advice("fp16") == row.advice("bf16")
    assert PresetMemory(8, {8: 5.0}, {8: 4.0}, {}).advice("fp32") == "one"


def test_the_page_shows_the_table() -> None:
    assert script().table() in (ROOT / "docs" / "memory.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("name", preset_names())
def test_a_row_is_what_is_counted(name: str) -> None:
    row = json.loads((ROOT / "presets" / "memory.json").read_text(encoding="utf-8"))[name]
    found = script().row(name)
    assert found["batch"] == row["batch"]
    for precision in ("fp32", "bf16", "checkpointed"):  # torch's own operations change a little from version to version
        assert found[precision] == pytest.approx(row[precision], rel=0.02), (precision, "run benchmarks/preset_memory.py")


@pytest.mark.slow
def test_two_micro_batches_need_less_than_one_batch() -> None:
    changes = ["data.crop=[64,96]", "train.batch_size=8"]
    whole, parts = (
        step_memory(load_preset("camvid-tiny", [*changes, f"train.accumulate={number}"]), 8 // number, "bf16")
        for number in (1, 2)
    )
    assert parts.kept == whole.kept
    assert 0.4 * whole.peak < parts.peak < whole.peak
