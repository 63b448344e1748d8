"""The frozen list of commands and options: growing it is a decision, not an accident."""

import re

import pytest

from segctl.cli import main

ROOTS = {"--data-root", "--runs-root"}
TRAINING = {
    "--preset",
    "--data",
    "--set",
    "--run",
    "--resume",
    "--extend-to",
    "--dry-run",
    "--steps",
    "--seed",
    "--deterministic",
    "--device",
    "--processes",
    "--profile",
    "--track",
    "--tensorboard",
    *ROOTS,
}
NETWORK = {"--protocol", "--tile", "--stride", "--scales", "--flip", "--precision"}
SURFACE = {
    "": {"--version", "--install-completion", "--show-completion"},
    "data list": {"--data-root", "--json"},
    "data prepare": {
        "--source", "--images", "--labels", "--classes", "--unlabelled", "--unannotated", "--split", "--split-seed", "--format",
        "--min-confidence", "--label-suffix", "--instances", "--bands", "--range", "--tile", "--overlap", "--codec", "--workers",
        "--limit", "--release", "--check", "--data-root",
    },
    "data check": {"--data-root", "--json"},
    "data info": {"--split", "--data-root", "--json"},
    "data preview": {"--output", "--split", "--augmented", "--data-root"},
    "data bench": {"--source", "--split", "--crop", "--samples", "--workers", "--data-root", "--json"},
    "presets list": {"--json"},
    "presets show": {"--set", "--data", "--data-root", "--json"},
    "presets check": {"--set", "--data", "--data-root"},
    "presets new": {"--like", "--set", "--data", "--data-root"},
    "train": TRAINING,
    "distill": TRAINING | {"--method", "--teacher", "--teacher-preset", "--trust-program", "--fsdp"},
    "pretrain": TRAINING | {"--teacher", "--method", "--split", "--fsdp"},
    "compare": {
        "--preset", "--data", "--methods", "--seeds", "--teacher", "--teacher-preset", "--trust-program", "--set", "--steps",
        "--devices", "--json", *ROOTS,
    },
    "eval": NETWORK | {
        "--model", "--trust-program", "--split", "--batch", "--save-predictions", "--calibration", "--device", "--processes",
        "--data-root",
        "--pred", "--gt", "--num-classes", "--classes", "--ignore", "--label-ids", "--resize", "--workers", "--counts",
        "--instances", "--boundary", "--binary", "--worst", "--segment-px", "--min", "--output", "--json",
        "--dataset", "--class-map",
    },
    "bench": {"--size", "--threads", "--compile", "--device", "--trust-program", "--data-root", "--json"},
    "predict": NETWORK | {
        "--every", "--no-frames", "--output", "--overlay", "--confidence", "--soft", "--top-k", "--label-ids", "--trust-program",
        "--device", "--data-root",
    },
    "export": {
        "--format", "--output", "--size", "--parity", "--tolerance", "--int8", "--fp16", "--calibration-images", "--seed",
        "--data-root", "--json",
    },
    "push": {"--dry-run", "--license", "--private", "--json"},
    "report": {"--output", "--diff", "--pictures", "--runs-root", "--data-root", "--split", "--json"},
    "demo": {"--steps"},
}  # fmt: skip


@pytest.mark.parametrize("command", SURFACE, ids=lambda command: command or "segctl")
def test_the_options_of_a_command_are_these(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    found = {option for line in shown.splitlines() for option in re.findall(r"^│\s+(?:\*\s+)?(--[a-z0-9-]+)", line)}
    assert found - {"--help"} == SURFACE[command]


def test_the_commands_are_these(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    listed = re.findall(r"^│ ([a-z]+)  ", capsys.readouterr().out, flags=re.MULTILINE)
    assert listed == [
        "data",
        "presets",
        "train",
        "distill",
        "pretrain",
        "compare",
        "eval",
        "predict",
        "export",
        "push",
        "bench",
        "report",
        "demo",
    ]


@pytest.mark.parametrize("command", ["train", "predict", "data info", "presets show"])
def test_help_has_no_type_after_a_flag_and_no_braces_around_an_argument(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), "-h"]) == 0
    shown = capsys.readouterr().out
    assert "<bool>" not in shown
    assert not re.search("[{}]", shown)


@pytest.mark.parametrize("command", ["train", "distill", "pretrain", "predict"])
def test_80_columns_cut_no_word_of_the_help(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([command, "-h"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) == 80
    assert "…" not in shown
