"""Thirty steps of every method on `shapes`, through the engine: its own terms go down."""

from pathlib import Path

import pytest
from toy import Silent

from segctl.data.datasets import open_source
from segctl.data.prepare import prepare_source
from segctl.runs import RunFolder
from segctl.schema.load import load_preset, with_method
from segctl.schema.run import DistillRun
from segctl.schema.terms.methods import METHODS, Method
from segctl.train.session import Request
from segctl.train.start import start_run

QUICK = ["data.workers=0", "train.batch_size=4", "train.checkpoint_every=1000", "data.crop=[64,96]"]
NOT_LOWERED = ("adversarial_main_generator", "adversarial_main_discriminator")
"""A game between two: neither side's loss has to go down."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shapes, and a teacher of sixty steps."""
    folder = tmp_path_factory.mktemp("shapes")
    prepare_source(open_source("shapes", []), folder / "data", workers=0)
    run = load_preset("shapes-teacher", [*QUICK, "train.steps=60", "train.validate_every=60"])
    start_run(Request(run, folder / "data", folder, device="cpu"), RunFolder(folder / "teacher"), Silent())
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("method", [method for method in METHODS if method != "none"])
def test_thirty_steps_lower_every_term_of_the_method(method: Method, root: Path, tmp_path: Path) -> None:
    student = load_preset("shapes-student", [*QUICK, "train.steps=30", "train.validate_every=30"])
    assert isinstance(student, DistillRun)
    folder = RunFolder(tmp_path / method)
    start_run(Request(with_method(student, method), root / "data", root, root / "teacher", device="cpu"), folder, Silent())
    reports = [event["terms"] for event in folder.read_log() if event["event"] == "step"]
    own = [name for name in reports[0] if not name.startswith(("cross_entropy", "jdt")) and name not in NOT_LOWERED]
    assert own
    for name in own:
        first, last = (sum(terms[name] for terms in part) / len(part) for part in (reports[:5], reports[-5:]))
        assert last < first, (name, first, last)
