"""README and guide tell the truth: their session runs, their options exist, their set-up lines are CI's."""

import re
import shlex
from pathlib import Path

import pytest

from segctl.cli import main
from segctl.runs import RunFolder
from segctl.schema.load import all_names, load_preset

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
TEXT = README + (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
MOST_LINES = 120
SHORT = {"train": ["--steps", "25"], "distill": ["--steps", "2"]}
"""The session's runs are cut to this many steps: the teacher must still know more than a constant."""


def console_commands() -> list[list[str]]:
    """The arguments of every `$ segctl …` line in the console blocks, in order."""
    blocks = re.findall(r"```console\n(.*?)```", TEXT, flags=re.DOTALL)
    lines = [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


@pytest.mark.slow
def test_every_command_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran = [command[0] for command in console_commands()]
    assert ran[:5] == ["data", "train", "distill", "eval", "report"]
    for command in console_commands():
        assert main([*command, *SHORT.get(command[0], [])]) == 0, command
    assert RunFolder(tmp_path / "runs" / "shapes-student").finished
    assert (tmp_path / "report.md").is_file()


def test_every_command_and_option_of_the_session_exists(capsys: pytest.CaptureFixture[str]) -> None:
    for command in console_commands():
        words = [word for word in command if not word.startswith("-")]
        verb = words[:2] if words[:1] in (["data"], ["presets"]) else words[:1]
        assert main([*verb, "--help"]) == 0, command
        shown = capsys.readouterr().out
        for option in command:
            if option.startswith("-"):
                assert f" {option} " in shown, (command, option)


def test_every_command_and_option_in_readme_text_exists(capsys: pytest.CaptureFixture[str]) -> None:
    from segctl.cli import app

    known = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    known |= {group.name for group in app.registered_groups}
    for name in re.findall(r"`segctl ([a-z]+)", TEXT):
        assert name in known, name
    for command in ("train", "distill", "eval", "compare", "predict", "export", "report", "data prepare"):
        main([*command.split(), "--help"])
    shown = capsys.readouterr().out
    for option in set(re.findall(r"`(--[a-z-]+)", TEXT)) - {"--version", "--json"}:
        assert option in shown, option


def test_every_option_of_the_commands_that_want_a_dataset_exists(capsys: pytest.CaptureFixture[str]) -> None:
    """No test can run these lines, because the datasets are not here: each command must exist and take each option."""
    lines = re.findall(r"^segctl (data [a-z]+) (.*?)(?:\s+#.*)?$", TEXT, flags=re.M)
    assert len(lines) >= 5
    for command, arguments in lines:
        assert main([*command.split(), "--help"]) == 0
        shown = capsys.readouterr().out
        for option in re.findall(r"--[a-z-]+", arguments):
            assert option in shown, (command, option)


def test_the_readme_is_short_and_its_pictures_are_there() -> None:
    assert len(README.splitlines()) <= MOST_LINES
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)
    assert pictures
    for picture in pictures:
        assert (ROOT / picture).stat().st_size < 300_000, picture


def test_every_preset_in_readme_exists() -> None:
    for name in re.findall(r"--preset ([a-z0-9-]+)", TEXT):
        assert name in all_names()


def test_the_formula_in_readme_is_what_the_preset_shows() -> None:
    from segctl.schema.terms.formula import total_loss

    assert "\n".join(f"# {line}" for line in total_loss(load_preset("camvid-psp18")).splitlines()) in TEXT


def test_ci_runs_the_two_set_up_lines_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for line in ("pip install -e . && segctl demo", 'pip install -e ".[dev]" && pytest'):
        assert line in README
        assert line in script


def test_the_python_of_the_readme_calls_what_there_is() -> None:
    import segctl

    blocks = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    names = set(re.findall(r"\bsegctl\.(\w+)\(", "".join(blocks)))
    assert {"load", "JDTLoss", "evaluate_files"} <= names
    for name in names:
        assert callable(getattr(segctl, name))
