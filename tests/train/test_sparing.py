"""What saves memory or time trains the same student: activation checkpointing to the bit, torch.compile to the last digits."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from toy import STUDENT, Silent, TwoLayers, toy_run, write_preset

from segctl.distillers import build_distiller
from segctl.distillers.align import Pair, Shape
from segctl.errors import InputError, PresetError, SegctlError
from segctl.models import build_model, read
from segctl.models.recompute import recompute_blocks
from segctl.runs import RunFolder
from segctl.runtime.compiler import compile_failure_in_words, require_compiler
from segctl.schema.run import DistillRun
from segctl.train import build
from segctl.train.build import build_session
from segctl.train.resume import resume_run
from segctl.train.session import Request
from segctl.train.start import start_run
from segctl.train.tasks import DistillationTask

TERMS = [
    {"kind": "kd"},
    {"kind": "cwd_features"},
    {"kind": "adversarial"},
    {"kind": "cirkd_memory", "pixel_slots": 50, "region_slots": 9, "pixel_samples": 60, "region_samples": 40},
    {"kind": "soft_kl", "logits": "aux"},
    {"kind": "soft_jdt", "smooth": 1.0},
]
"""Terms that read main and auxiliary logits, and features."""
CPU = torch.device("cpu")


class Stopping(Silent):
    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def stepped(self, report: Any, steps: int) -> None:
        if report.step == self.step:
            raise KeyboardInterrupt


def request(toy_data: Path, teacher: Path, runs: Path, **train: Any) -> Request:
    settings = {"steps": 4, "checkpoint_every": 2, "validate_every": 4, "accumulate": 2, "ema": 0.9} | train
    return Request(toy_run(STUDENT | {"distiller": {"terms": TERMS}}, train=settings), toy_data, runs, teacher, device="cpu")


def tensors(tree: Any, path: str = "") -> dict[str, torch.Tensor]:
    if isinstance(tree, torch.Tensor):
        return {path: tree}
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list | tuple) else ()
    return {name: tensor for key, value in items for name, tensor in tensors(value, f"{path}/{key}").items()}


def checkpoint(folder: RunFolder) -> dict[str, torch.Tensor]:
    return tensors(torch.load(folder.last, weights_only=True))


def require_equal(mine: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert mine.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(mine[name], tensor), name


@pytest.fixture(scope="module")
def plain(toy_data: Path, toy_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    runs = tmp_path_factory.mktemp("plain")
    start_run(request(toy_data, toy_teacher, runs), RunFolder(runs / "run"), Silent())
    return RunFolder(runs / "run")


@pytest.mark.slow
def test_checkpointed_activations_give_the_very_run_and_may_be_taken_up_in_the_middle(
    plain: RunFolder, toy_data: Path, toy_teacher: Path, tmp_path: Path
) -> None:
    folder, watch = RunFolder(tmp_path / "run"), Stopping(3)
    with pytest.raises(KeyboardInterrupt):
        start_run(request(toy_data, toy_teacher, tmp_path), folder, watch)
    watch = Silent()
    resume_run(request(toy_data, toy_teacher, tmp_path, activation_checkpointing=True), folder, watch)
    require_equal(checkpoint(folder), checkpoint(plain))


def test_it_is_said_before_step_1(toy_data: Path, toy_teacher: Path, tmp_path: Path) -> None:
    session = build_session(request(toy_data, toy_teacher, tmp_path, activation_checkpointing=True))
    assert (
        "activation checkpointing: the backbone's blocks are computed again in the backward pass, not stored"
        in session.decisions()
    )


@pytest.mark.slow
@pytest.mark.parametrize("terms", [TERMS, [{"kind": "kd"}]], ids=["all that is read", "auxiliary head unused"])
def test_two_processes_checkpoint_activations_too(
    terms: list[dict[str, Any]], toy_data: Path, toy_teacher: Path, tmp_path: Path
) -> None:
    loss = [{"kind": "cross_entropy", "logits": "main"}]
    weights = []
    for spare in (False, True):
        settings = {"steps": 3, "validate_every": 3, "activation_checkpointing": spare}
        preset = write_preset(tmp_path / f"{spare}.yaml", STUDENT | {"loss": loss}, train=settings, distiller={"terms": terms})
        run = tmp_path / f"run-{spare}"
        arguments = ["distill", "--preset", str(preset), "--run", str(run), "--data-root", str(toy_data), "--processes", "2"]
        found = subprocess.run(
            [sys.executable, "-m", "segctl", *arguments, "--teacher", str(toy_teacher)], capture_output=True, text=True
        )
        assert found.returncode == 0, found.stderr
        weights.append(read(run).weights)
    require_equal(*weights)


@pytest.mark.slow
def test_the_wiring_of_compiled_networks_changes_nothing_by_itself(
    plain: RunFolder, toy_data: Path, toy_teacher: Path, tmp_path: Path
) -> None:
    """With the compiler told to stand aside, because what it does takes a minute."""
    folder, watch = RunFolder(tmp_path / "run"), Silent()
    with torch.compiler.set_stance("force_eager"):
        start_run(request(toy_data, toy_teacher, tmp_path, compile=True), folder, watch)
    assert "compiled: student and teacher; the first step takes minutes" in watch.notes
    require_equal(checkpoint(folder), checkpoint(plain))


@pytest.mark.slow
def test_a_compiled_run_is_near_the_plain_one_resumes_to_the_bit_and_keeps_every_name(
    plain: RunFolder, toy_data: Path, toy_teacher: Path, tmp_path: Path
) -> None:
    runs = {}
    for name in ("whole", "stopped"):
        folder = RunFolder(tmp_path / name)
        asked = request(toy_data, toy_teacher, tmp_path, compile=True, activation_checkpointing=True)
        if name == "whole":
            start_run(asked, folder, Silent())
        else:
            with pytest.raises(KeyboardInterrupt):
                start_run(asked, folder, Stopping(3))
            resume_run(asked, folder, Silent())
        runs[name] = checkpoint(folder)
    require_equal(runs["stopped"], runs["whole"])
    theirs = checkpoint(plain)
    assert runs["whole"].keys() == theirs.keys()
    counts = [name for name in theirs if name.endswith("num_batches_tracked")]
    assert counts
    for name in counts:
        assert torch.equal(runs["whole"][name], theirs[name]), name


@pytest.mark.slow
def test_scoring_images_of_many_sizes_compiles_nothing(toy_data: Path, toy_teacher: Path, tmp_path: Path) -> None:
    session = build_session(request(toy_data, toy_teacher, tmp_path, compile=True))
    torch._dynamo.utils.counters.clear()
    session.model.eval()
    with torch.no_grad():
        for size in ((33, 47), (40, 64), (65, 49)):
            session.evaluated_model(torch.zeros(1, 3, *size))
            session.model(torch.zeros(1, 3, *size))
    assert not torch._dynamo.utils.counters["stats"]


@pytest.mark.slow
def test_a_compiled_run_may_go_on_uncompiled_and_says_so(toy_data: Path, toy_teacher: Path, tmp_path: Path) -> None:
    folder, watch = RunFolder(tmp_path / "run"), Silent()
    with torch.compiler.set_stance("force_eager"), pytest.raises(KeyboardInterrupt):
        start_run(request(toy_data, toy_teacher, tmp_path, compile=True), folder, Stopping(3))
    resume_run(request(toy_data, toy_teacher, tmp_path), folder, watch)
    assert (
        "resuming with train.compile=false, but the run was started with train.compile=true: results stay correct but are not "
        "bit-identical"
    ) in watch.notes


@pytest.mark.slow
def test_a_teacher_that_segctl_did_not_build_stays_as_it_is() -> None:
    run = toy_run(STUDENT | {"distiller": {"terms": [{"kind": "kd"}]}})
    assert isinstance(run, DistillRun)
    shape = Shape.of(TwoLayers()(torch.zeros(1, 3, 32, 48)))
    task = DistillationTask(TwoLayers(), run.labels, run.loss, TwoLayers(), build_distiller(run.distiller, Pair(shape, shape)))
    task.compile_networks()
    assert task.compiled == ["student"]


def test_what_torch_compile_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, marks = [], []
    monkeypatch.setattr(torch, "compile", lambda function, **options: asked.append(options) or function)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: marks.append(1))
    run = toy_run(STUDENT | {"distiller": {"terms": [{"kind": "kd"}]}})
    assert isinstance(run, DistillRun)
    teacher = build_model(run.model.model_copy(update={"weights": "none"}), 11)
    shape = Shape.of(TwoLayers()(torch.zeros(1, 3, 32, 48)))
    distiller = build_distiller(run.distiller, Pair(shape, shape))
    task = DistillationTask(TwoLayers(), run.labels, run.loss, teacher, distiller)
    for given, mode in ((True, None), ("reduce-overhead", "reduce-overhead")):
        build._save_memory_and_time(
            run.model_copy(update={"train": run.train.model_copy(update={"compile": given})}), task, torch.device("cuda"), 1
        )
        assert asked == [{"dynamic": False, "mode": mode}] * 2
        asked.clear()
        task.begin_step(0)
        assert len(marks) == (mode is not None)  # once a step, whatever the number of micro-batches


@pytest.mark.parametrize(
    ("device", "processes", "sentence"),
    [
        ("cpu", 1, "which records CUDA graphs, and the device is 'cpu'"),
        ("cuda", 2, "whose CUDA graphs cannot hold what 2 processes send each other"),
    ],
)
def test_cuda_graphs_want_one_gpu(device: str, processes: int, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "require_compiler", lambda device: None)
    run, task = toy_run(train={"compile": "reduce-overhead"}), SimpleNamespace(model=None)
    with pytest.raises(InputError, match=sentence) as caught:
        build._save_memory_and_time(run, task, torch.device(device), processes)  # type: ignore[arg-type]
    assert caught.value.hint == "use --set train.compile=true, or false"


@pytest.mark.parametrize(
    ("blocks", "sentence"),
    [
        ({"train": {"activation_checkpointing": True}}, "train.compile: got 'reduce-overhead' with train.activation_checkpoint"),
        ({"teacher": {"preset": "toy", "overlap": True}}, "teacher.overlap: got true with train.compile 'reduce-overhead'"),
    ],
)
def test_what_cuda_graphs_cannot_hold_is_refused(blocks: dict[str, Any], sentence: str) -> None:
    train = {"compile": "reduce-overhead"} | blocks.pop("train", {})
    with pytest.raises(PresetError, match=sentence):
        toy_run(STUDENT | {"distiller": {"terms": [{"kind": "kd"}]}}, train=train, **blocks)


def test_a_cpu_folds_a_teacher_and_does_not_run_it_beside_the_student(toy_data: Path, toy_teacher: Path, tmp_path: Path) -> None:
    asked = request(toy_data, toy_teacher, tmp_path)
    assert isinstance(asked.run, DistillRun)
    overlapping = asked.run.model_copy(update={"teacher": asked.run.teacher.model_copy(update={"overlap": True})})
    session = build_session(replace(asked, run=overlapping))
    lines = session.decisions()
    assert "the teacher does not run beside the student: teacher.overlap wants a GPU, and no --deterministic" in lines
    assert any("batch norms are folded into its convolutions" in line for line in lines)
    assert isinstance(session.task, DistillationTask)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in session.task.teacher.modules())


def test_a_machine_without_a_compiler_gets_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError) as caught:
        require_compiler(CPU)
    assert caught.value.message == (
        "train.compile: got true, but this machine has no C++ compiler (neither g++ nor clang++ is on the PATH)"
    )
    assert caught.value.hint == "install g++, or leave train.compile at false"
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InputError, match=r"\(CXX names 'no-such-compiler'\)"):
        require_compiler(CPU)


def test_a_gpu_needs_a_c_compiler_and_python_s_headers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gpu = torch.device("cuda")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(InputError) as caught:
        require_compiler(gpu)
    assert "no C compiler (neither cc, gcc nor clang is on the PATH)" in caught.value.message
    (tmp_path / "gcc").write_text("#!/bin/sh\n")
    (tmp_path / "gcc").chmod(0o755)  # gcc alone, without g++, is enough
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"include": str(tmp_path)})
    with pytest.raises(InputError, match=r"Python's header files are not installed: there is no '.*Python\.h'"):
        require_compiler(gpu)
    (tmp_path / "Python.h").touch()
    require_compiler(gpu)


def test_what_the_compiler_cannot_do_is_a_sentence() -> None:
    def failing(module: Any, inputs: Any) -> Any:
        raise OSError("no room for what is compiled")

    with pytest.raises(SegctlError) as caught, compile_failure_in_words(CPU):
        torch.compile(lambda x: x + 1, backend=failing)(torch.zeros(1))
    assert caught.value.message.startswith("train.compile: torch cannot compile the networks for cpu: ")
    assert "no room for what is compiled" in caught.value.message
    assert caught.value.hint == "resume or start again with --set train.compile=false"


def test_a_backbone_without_blocks_is_refused(toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert recompute_blocks(torch.nn.Conv2d(3, 3, 1)) == 0
    monkeypatch.setattr(build, "recompute_blocks", lambda network: 0)  # every network that timm has for us has blocks
    with pytest.raises(InputError) as caught:
        build_session(Request(toy_run(train={"activation_checkpointing": True}), toy_data, tmp_path, device="cpu"))
    assert caught.value.message == (
        "train.activation_checkpointing: got true, but 'test_resnet' has no blocks that can be computed again"
    )


@pytest.mark.skipif(shutil.which("g++") is None, reason="wants a C++ compiler")
def test_this_machine_has_one() -> None:
    require_compiler(CPU)
