"""The table of what presets cost is what torch counts, and small students are small."""

import importlib.util
import math
from functools import cache
from pathlib import Path

import pytest

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


@cache
def network(name):
    return network_of(name)


def what_is_counted(name):
    dataset = None if name in generic_names() else load_preset(name).data.dataset
    return dataset, network(name).model_copy(update={"weights": "none", "aux": False}).model_dump_json()


FIRST = {what_is_counted(name): name for name in reversed(all_names())}
"""One preset for each network and dataset; recipes share them."""

OF_EACH_HEAD = {
    network(name).head: name
    for name in sorted(FIRST.values(), key=lambda name: -preset_costs()[name].parameters)
    if network(name).head != "linear"  # it stands on a transformer, which takes longest to count
}.values()
"""The smallest preset of each head, which every test run counts. Counting all of them takes half a minute of a core."""


def test_every_preset_has_a_row_and_presets_of_one_network_the_same():
    costs = preset_costs()
    assert list(costs) == all_names(), "run benchmarks/preset_costs.py"
    assert all(costs[name] == costs[FIRST[what_is_counted(name)]] for name in costs)


@pytest.mark.parametrize(
    "name", [name if name in OF_EACH_HEAD else pytest.param(name, marks=pytest.mark.slow) for name in sorted(FIRST.values())]
)
def test_a_row_is_what_torch_counts(name):
    found = script().cost(name)
    row = preset_costs()[name]
    assert (row.parameters, row.gflop, list(row.size)) == tuple(found.values()), "run benchmarks/preset_costs.py"


@pytest.mark.parametrize("kind", BOUNDS)
@pytest.mark.parametrize("dataset", DATASETS)
def test_a_small_student_is_small_and_its_teacher_is_five_times_dearer(dataset, kind):
    run = load_preset(f"{dataset}-{kind}")
    assert isinstance(run, DistillRun)
    found, teacher = preset_costs()[f"{dataset}-{kind}"], preset_costs()[run.teacher.preset]
    most, gflop = BOUNDS[kind]
    assert found.parameters <= most
    area = math.prod(-(-side // 32) * 32 for side in found.size)  # the coarsest map rounds up
    assert found.gflop * (1024 * 2048) / area <= gflop
    assert teacher.size == found.size
    assert teacher.gflop >= 5 * found.gflop
    assert teacher.parameters >= 5 * found.parameters
