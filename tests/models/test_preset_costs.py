"""The table of what presets cost is what torch counts, and small students are small."""

import importlib.util
from functools import cache
from pathlib import Path

import pytest

from segctl.data.datasets import class_table
from segctl.models.cost import cost_of
from segctl.schema.load import all_names, generic_names, load_preset, network_of, preset_costs
from segctl.schema.run import DistillRun

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "preset_costs.py"
DATASETS = ("cityscapes", "voc", "camvid", "deepglobe")
BOUNDS = {"fast": (3_000_000, 25), "tiny": (1_500_000, 8)}
"""Parameters, and GFLOP at 1024×2048."""


@cache
def script():
    spec = importlib.util.spec_from_file_location("preset_costs", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def what_is_counted(name):
    dataset = None if name in generic_names() else load_preset(name).data.dataset
    return dataset, network_of(name).model_copy(update={"weights": "none", "aux": False}).model_dump_json()


FIRST = {what_is_counted(name): name for name in reversed(all_names())}
"""One preset for each network and dataset; recipes share them."""


def test_every_preset_has_a_row_and_presets_of_one_network_the_same():
    costs = preset_costs()
    assert list(costs) == all_names(), "run benchmarks/preset_costs.py"
    assert all(costs[name] == costs[FIRST[what_is_counted(name)]] for name in costs)


@pytest.mark.parametrize("name", sorted(FIRST.values()))
def test_a_row_is_what_torch_counts(name):
    found = script().cost(name)
    row = preset_costs()[name]
    assert (row.parameters, row.gflop, list(row.size)) == tuple(found.values()), "run benchmarks/preset_costs.py"


@pytest.mark.parametrize("kind", BOUNDS)
@pytest.mark.parametrize("dataset", DATASETS)
def test_a_small_student_is_small_and_its_teacher_is_five_times_dearer(dataset, kind):
    run = load_preset(f"{dataset}-{kind}")
    classes = class_table(dataset).num_classes
    found = cost_of(run.model, classes, (1024, 2048))
    most, gflop = BOUNDS[kind]
    assert found.parameters <= most
    assert found.gflop <= gflop
    assert isinstance(run, DistillRun)
    teacher = cost_of(load_preset(run.teacher.preset).model, classes, (1024, 2048))
    assert teacher.gflop >= 5 * found.gflop
    assert teacher.parameters >= 5 * found.parameters
