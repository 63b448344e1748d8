"""The error door: version, help, exit codes, one sentence and no traceback."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image

from segctl import __version__
from segctl.cli import app, main
from segctl.schema.terms.methods import METHODS


def commands_of(app: typer.Typer) -> list[list[str]]:
    """Every command, those of a group after the group; [] is segctl itself."""
    found: list[list[str]] = [[]]
    for name, command in typer.main.get_group(app).commands.items():
        found += [[name], *([name, inner] for inner in getattr(command, "commands", {}))]
    return found


COMMANDS = commands_of(app)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"segctl {__version__}\n"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_help_answers(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--help"]) == 0
    assert f"Usage: {' '.join(['segctl', *command])}" in capsys.readouterr().out


def test_no_help_imports_torch() -> None:
    code = f"""
import sys
from segctl.cli import app, main
from segctl.schema.terms.methods import METHODS
for command in {COMMANDS!r}:
    assert main([*command, "--help"]) == 0
print("loaded:", sorted(set(sys.modules) & {{"torch", "h5py", "timm", "cv2", "matplotlib"}}))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "loaded: []"


def test_python_dash_m_is_the_same_command() -> None:
    found = subprocess.run([sys.executable, "-m", "segctl", "--version"], capture_output=True, text=True, check=True)
    assert found.stdout == f"segctl {__version__}\n"


@pytest.mark.parametrize(
    ("command", "message", "hint"),
    [
        (["train"], "no run is given: wanted --preset NAME, or --resume --run DIR", "`segctl presets list` shows the presets"),
        (["train", "--preset", "camvid-psp81"], "no preset is called 'camvid-psp81', did you mean 'camvid-psp18'?",
         "see `segctl presets list`, or give the path of a .yaml file"),
        (["distill", "--preset", "camvid-psp18", "--method", "jlm"], "--method 'jlm' is not known, did you mean 'jml'?",
         f"use one of {', '.join(METHODS)}"),
        (["distill", "--preset", "camvid-dl101"], "preset 'camvid-dl101' has no teacher to learn from",
         "use `segctl train --preset camvid-dl101`"),
        (["train", "--preset", "camvid-psp18", "--set", "train.steps"], "cannot read --set 'train.steps'",
         "write it as a.b=value, such as --set train.steps=100"),
        (["train", "--preset", "voc-psp18", "--data-root", "nowhere"],
         "dataset 'voc-sbd-wins' is not prepared in 'nowhere'", "run `segctl data prepare voc-sbd-wins --data-root nowhere`"),
        (["eval", "nowhere"], "'nowhere' is not a run: it has no run.yaml", "give a folder that `segctl train` wrote"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_sentence_and_exit_code_2(
    command: list[str], message: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert f"error: {message}" in said.err
    if hint:
        assert f"next:  {hint}" in said.err
    assert "Traceback" not in said.err


def test_zero_steps_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--preset", "camvid-psp18", "--set", "train.steps=0"]) == 2
    assert "train.steps: got 0, wanted at least 1" in capsys.readouterr().err
    assert main(["train", "--preset", "camvid-psp18", "--steps", "0"]) == 2
    assert "--steps" in capsys.readouterr().err


def test_an_unknown_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    assert "No such command 'trian'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    "encoding", ["ascii", pytest.param("cp1252", marks=pytest.mark.slow), pytest.param("latin-1", marks=pytest.mark.slow)]
)
def test_characters_that_the_terminal_lacks_are_replaced(encoding: str) -> None:
    env = {**os.environ, "PYTHONIOENCODING": encoding}
    for command in (["presets", "show", "camvid-psp18"], ["--help"]):
        found = subprocess.run([sys.executable, "-m", "segctl", *command], capture_output=True, env=env)
        assert found.returncode == 0, found.stderr
        assert b"Traceback" not in found.stderr


@pytest.mark.slow
def test_a_closed_stdout_is_no_traceback() -> None:
    found = subprocess.run(["bash", "-c", f"'{sys.executable}' -m segctl presets list >&-"], capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["presets", "check", "x" * 300 + ".yaml"], "File name too long"),
        (["report", "--runs-root", "n" * 300], "File name too long"),
    ],
)
def test_what_the_system_refuses_is_a_sentence(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert words in capsys.readouterr().err


def test_ctrl_c_while_importing_is_130_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt\n")
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    found = subprocess.run([sys.executable, "-m", "segctl", "--version"], capture_output=True, text=True, env=env)
    assert (found.returncode, found.stderr) == (130, "")


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_eval_prints_where_the_terminal_lacks_characters(encoding: str, tmp_path: Path) -> None:
    for folder in ("pred", "gt"):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8)).save(tmp_path / folder / "größe.png")
    (tmp_path / "classes.txt").write_text("Straße\n道路\n", encoding="utf-8")
    command = ["eval", "--pred", "pred", "--gt", "gt", "--classes", "classes.txt"]
    env = {**os.environ, "PYTHONIOENCODING": encoding}
    found = subprocess.run([sys.executable, "-m", "segctl", *command], capture_output=True, env=env, cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert b"Traceback" not in found.stderr
    said = found.stdout.decode(encoding)
    assert "100.00" in said
    assert ("Straße" in said) == (encoding == "cp1252")
    (tmp_path / "gt" / "größe.png").unlink()
    found = subprocess.run([sys.executable, "-m", "segctl", *command], capture_output=True, env=env, cwd=tmp_path)
    assert (found.returncode, found.stdout) == (2, b"")
    assert b"error: --gt 'gt' holds no PNG" in found.stderr
