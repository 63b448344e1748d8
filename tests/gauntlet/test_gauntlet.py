"""Bad inputs for every command, each in a process forked from this one: a sentence, the right exit code, nothing left behind.

Nothing may be computed in this process: a fork of a process whose libraries have threads could hang.
"""

import importlib
import os
import re
import shutil
import signal
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path

import bad_inputs
import pytest
from bad_inputs import Bad

from segctl.cli import main

pytestmark = pytest.mark.slow

LIMIT_S = 20.0
SENTENCE = re.compile(r"^error: |─ Error ─", re.MULTILINE)
FINE = {
    r"--labels: t(ar|gz) cut at": "the cut lies behind the last label",
    r"--source: tar with a": "what is not a plain file is left out, and no sample needs it",
    r"^data list --data-root: (?!a long|an empty arg)": "where there is no dataset, it lists what can be prepared",
    r"data-root: (missing|an empty folder|a folder of such a name)": "a new or empty data root is made",
    r"(--run|--runs-root|--output): (missing|an empty folder|a folder of such a name)": "a new or empty folder is made",
    r"(data preview|report) --output: (a text file|an empty file|a name that is not UTF-8)": "the file given is written again",
    r"train.steps=(1_000|0x10)": "whole numbers within their bounds, written in another way",
    r"data.dataset=\.\./x": "names of datasets are judged with the data root, which `presets` does not read",
}
"""Inputs that look bad and are fine, by a pattern of their names, and why."""

KNOWN: dict[str, str] = {}
"""Inputs that are not refused as they should be yet, by name, and why."""


def run_forked(arguments: tuple[str, ...], folder: Path, output: Path) -> tuple[int, str, float]:
    """The exit code of `segctl ARGUMENTS` in a folder (negative: the signal that ended it), its whole output, and seconds."""
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        code = 70
        try:
            os.setsid()
            os.chdir(folder)
            to = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(to, 1)
            os.dup2(to, 2)
            sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115 (pytest has its own)
            code = main(list(arguments))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() - began > LIMIT_S:
            os.killpg(child, signal.SIGKILL)
            ended = os.waitpid(child, 0)
            break
        time.sleep(0.002)
    text = output.read_text(encoding="utf-8", errors="replace") if output.exists() else ""
    return os.waitstatus_to_exitcode(ended[1]), text, time.monotonic() - began


def files_under(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound world, made in a process of its own."""
    folder = tmp_path_factory.mktemp("world")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            bad_inputs.make_world(folder)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0

    # The forks share what is imported here, so that none imports for itself.
    for module in (folder / "modules.txt").read_text(encoding="utf-8").split():
        with suppress(Exception):  # some modules are there only as parts of others
            importlib.import_module(module)
    return folder


def faults_of(case: Bad, world: Path, place: Path) -> list[str]:
    """What is wrong with the command's answer to one case; the folder `place` is used and removed."""
    folder = place / "case"
    bad_inputs.copy_world(world, folder)
    try:
        case.make(folder)
        before = files_under(folder)
        code, text, _ = run_forked(case.arguments, folder, place / "output.txt")
        new = sorted(name for name in files_under(folder) - before if not case.left or name.split("/")[0] != case.left)
        gone = sorted(before - files_under(folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    faults = []
    fine = any(re.search(pattern, case.name) for pattern in FINE)
    if code not in ({0} | case.codes if fine else case.codes):
        faults.append(f"exit code {code}")
    if "Traceback" in text:
        faults.append("a traceback")
    sentences = len(SENTENCE.findall(text))
    if code != 0 and sentences != 1:
        faults.append(f"{sentences} sentences")
    if code != 0 and new:
        faults.append(f"left behind: {', '.join(new)}")
    if gone:
        faults.append(f"removed: {', '.join(gone)}")
    return [f"{'; '.join(faults)}\n    segctl {' '.join(case.arguments)[:300]!r}\n{text[-1500:]}"] if faults else []


COMMANDS = ("data", "presets", "train", "distill", "compare", "eval", "predict", "report", "demo")
GROUPS = [
    *(f"paths of {command}" for command in COMMANDS),
    "options", "presets", "class tables", "pictures", "archives", *(f"written: {name}" for name in bad_inputs.OURS),
]  # fmt: skip


@pytest.mark.parametrize("group", GROUPS)
def test_bad_inputs_get_a_sentence_and_leave_nothing(group: str, world: Path, tmp_path: Path) -> None:
    cases = [case for case in bad_inputs.all_cases(world) if case.group == group]
    wrong = []
    for case in cases:
        faults = faults_of(case, world, tmp_path)
        if case.name in KNOWN:
            if not faults:
                wrong.append(f"{case.name}: right now; take it out of KNOWN")
            continue
        wrong += [f"{case.name}: {fault}" for fault in faults]
    assert not wrong, f"{len(wrong)} of {len(cases)}:\n" + "\n".join(wrong)


def test_there_are_enough_cases_and_every_one_is_run(world: Path) -> None:
    cases = bad_inputs.all_cases(world)
    assert len(cases) >= 600
    assert {case.group for case in cases} == set(GROUPS)
