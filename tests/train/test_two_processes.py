"""Several processes are one: gradients, losses and scores do not depend on how many share a batch; and they end together."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from forked import run_in_processes
from toy import CLASSES, PRESET, STUDENT, TwoLayers, write_preset
from waiting import LIMIT

from segctl.data.batches.loader import Batch
from segctl.distillers import build_distiller
from segctl.distillers.align import Pair, Shape
from segctl.errors import InputError, PeerError
from segctl.models import read
from segctl.runs import RunFolder
from segctl.runtime.device import Compute
from segctl.runtime.launcher import REPORTS_VARIABLE, first_error, reporting_errors
from segctl.runtime.world import World, adopt_slurm
from segctl.schema.load import validate_run
from segctl.train.checkpoint import Best, State
from segctl.train.loop import take_step
from segctl.train.session import Session
from segctl.train.tasks import DistillationTask

TERMS = [
    {"kind": "cross_entropy", "logits": "main", "weight": 0.5},
    {"kind": "cross_entropy", "logits": "aux", "weight": 0.5},
    {"kind": "jdt", "logits": "main", "weight": 0.5, "smooth": 1.0},
]
DISTILLER = {"label_weight": 0.5, "terms": [{"kind": "kd"}, {"kind": "soft_kl"}, {"kind": "soft_jdt", "smooth": 1.0}]}
IMAGES = 8


def session_of(world: World, accumulate: int, mixed_in: int = 0) -> Session:
    """A distilling session of networks without batch norm, in float64; mixed_in: pictures without labels in each batch."""
    tree = STUDENT | {"loss": TERMS, "train": STUDENT["train"] | {"batch_size": IMAGES, "accumulate": accumulate}}
    if mixed_in:
        tree |= {"data": STUDENT["data"] | {"unlabelled": {"per_batch": mixed_in}}}
    run = validate_run(tree | {"distiller": DISTILLER}, "toy")
    torch.manual_seed(0)
    student, teacher = TwoLayers().double(), TwoLayers().double()
    shape = Shape.of(student(torch.zeros(1, 3, 32, 48, dtype=torch.float64)))
    distiller = build_distiller(run.distiller, Pair(shape, shape))
    task = DistillationTask(student, run.labels, run.loss, teacher, distiller)
    cpu = torch.device("cpu")
    optimizer = torch.optim.SGD(task.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    state = State(cpu, task, optimizer, None, scaler, None, step=0, validated=0, best=Best())
    compute = Compute(cpu, "", "fp32", "")
    return Session(run, None, compute, world, 0, student, task, world.wrap(task, unused=False), None, state)


def batch_of(world: World) -> Batch:
    """This process's share of eight images; some pixels, and all of one image, are ignored."""
    random = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (IMAGES, 32, 48, 3), generator=random).to(torch.uint8)
    labels = torch.randint(0, CLASSES, (IMAGES, 32, 48), generator=random).to(torch.uint8)
    labels[:3, :10] = 255
    labels[5] = 255
    mine = slice(world.rank, None, world.size)
    return Batch(images[mine], labels[mine], [])


def mixed_batch_of(world: World) -> Batch:
    """The same, and three pictures without labels, one of them padded to a half."""
    labelled = batch_of(world)
    random = torch.Generator().manual_seed(2)
    images = torch.randint(0, 256, (3, 32, 48, 3), generator=random).to(torch.uint8)
    unlabelled = torch.ones(3, 32, 48, dtype=torch.bool)
    unlabelled[1, 16:] = False
    mine = slice(world.rank, None, world.size)
    lacking = torch.cat([torch.zeros_like(labelled.labels, dtype=torch.bool), unlabelled[mine]])
    labels = torch.cat([labelled.labels, torch.full_like(unlabelled[mine], 255, dtype=torch.uint8)])
    return Batch(torch.cat([labelled.images, images[mine]]), labels, [], unlabelled=lacking)


def mixed_step_of(world: World) -> dict[str, torch.Tensor]:
    """Terms of a mixed batch, summed over the processes, and weights after one step."""
    session = session_of(world, 1, mixed_in=3)
    terms = take_step(session, mixed_batch_of(world)).terms
    summed = {name: world.total(value.detach()) for name, value in terms.items()}
    return summed | {name: weight.detach() for name, weight in session.task.named_parameters()}


def take_mixed_share(rank: int, size: int) -> dict[str, torch.Tensor]:
    return mixed_step_of(World(rank, size))


def step_of(world: World, accumulate: int) -> dict[str, torch.Tensor]:
    """Terms, summed over the processes, and weights after one step."""
    session = session_of(world, accumulate)
    terms = take_step(session, batch_of(world)).terms
    summed = {name: world.total(value.detach()) for name, value in terms.items()}
    return summed | {name: weight.detach() for name, weight in session.task.named_parameters()}


def take_share(rank: int, size: int) -> dict[int, dict[str, torch.Tensor]]:
    return {accumulate: step_of(World(rank, size), accumulate) for accumulate in (1, 2)}


@pytest.mark.parametrize("size", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_processes_take_the_step_that_one_takes(size: int, tmp_path: Path) -> None:
    shares = run_in_processes(take_share, size, tmp_path)
    alone = step_of(World(), 1)
    for rank, found in enumerate(shares):
        for name, value in alone.items():
            assert torch.allclose(found[1][name], value, rtol=0, atol=1e-12), (name, rank)
    # The ratio of a Jaccard term is taken per micro-batch, of which the processes must agree on the number.
    assert shares[0][2].keys() == alone.keys()


def test_processes_take_the_step_that_one_takes_with_pictures_without_labels(tmp_path: Path) -> None:
    alone = mixed_step_of(World())
    for found in run_in_processes(take_mixed_share, 2, tmp_path):
        for name, value in alone.items():
            assert torch.allclose(found[name], value, rtol=0, atol=1e-12), name


def train_and_start_again(rank: int, size: int) -> list[dict[str, torch.Tensor]]:
    """Six steps, and three and three with averaging set up anew, as a resumed run does."""
    found = []
    for starts in ((0,), (0, 3)):
        torch.manual_seed(0)
        layers = [layer for _ in range(6) for layer in (torch.nn.Conv2d(8, 8, 3, padding=1), torch.nn.Tanh())]
        network = torch.nn.Sequential(*layers)
        for step in range(6):
            if step in starts:
                averaged = World(rank, size).wrap(network, unused=False)
            images = torch.randn(2, 8, 16, 16, generator=torch.Generator().manual_seed(100 * step + rank))
            network.zero_grad()
            averaged(images).square().mean().backward()
            torch.optim.SGD(network.parameters(), lr=0.1).step()
        found.append(network.state_dict())
    return found


@pytest.mark.parametrize("size", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_averaging_set_up_anew_in_the_middle_sums_in_the_same_order(size: int, tmp_path: Path) -> None:
    through, again = run_in_processes(train_and_start_again, size, tmp_path)[0]
    for name, weight in through.items():
        assert torch.equal(again[name], weight), name


def command(preset: Path, run: Path, data: Path, *more: str) -> list[str]:
    verb = "distill" if "student" in preset.name else "train"
    return [sys.executable, "-m", "segctl", verb, "--preset", str(preset), "--run", str(run), "--data-root", str(data), *more]


def weights(run: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = read(run).weights
    return found


def steps_logged(run: Path) -> int:
    return max((event.get("step", 0) for event in RunFolder(run).read_log()), default=0)


def wait_for_step(process: "subprocess.Popen[str]", run: Path, step: int) -> None:
    while steps_logged(run) < step:
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        time.sleep(0.05)


def ranks_of(process: "subprocess.Popen[str]") -> list[int]:
    """The pids of the training processes, in no order."""
    found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True)
    return [int(line) for line in found.stdout.split()]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return int(one.getsockname()[1])


def start(arguments: list[str], **more: str) -> "subprocess.Popen[str]":
    environment = os.environ | more
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


QUEUES = {"kind": "cirkd_memory", "pixel_slots": 50, "region_slots": 9, "pixel_samples": 60, "region_samples": 40}
ENDLESS = {"train": {"steps": 5000, "validate_every": 5000, "checkpoint_every": 10}}


@pytest.mark.slow
def test_a_killed_process_ends_the_run_with_a_sentence_and_the_run_goes_on_exactly(
    toy_data: Path, toy_teacher: Path, tmp_path: Path
) -> None:
    settings = {"train": {"steps": 14, "checkpoint_every": 5, "validate_every": 7, "ema": 0.9}}
    distiller = {"terms": [*STUDENT["distiller"]["terms"], QUEUES]}
    preset = write_preset(tmp_path / "student.yaml", STUDENT, **settings, distiller=distiller)
    teacher = ["--teacher", str(toy_teacher), "--processes", "2"]
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    whole = subprocess.run(command(preset, undisturbed, toy_data, *teacher), capture_output=True, text=True)
    assert whole.returncode == 0, whole.stderr
    assert "batch 4 over 2 processes" in whole.stderr
    assert whole.stderr.count("teacher scores") == 1

    process = start(command(preset, killed, toy_data, *teacher))
    wait_for_step(process, killed, 6)
    os.kill(max(ranks_of(process)), signal.SIGKILL)
    _, said = process.communicate(timeout=LIMIT)  # it ends long before torch's own limit of 30 minutes
    assert process.returncode == 1
    assert "was killed by SIGKILL; the machine may be out of memory" in said
    assert f"resume with `segctl distill --resume --run {killed} --processes 2 --data-root {toy_data}" in said
    assert "Traceback" not in said

    again = subprocess.run(command(preset, killed, toy_data, *teacher, "--resume"), capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    mine, theirs = weights(undisturbed), weights(killed)
    for name, value in mine.items():
        assert torch.equal(value, theirs[name]), name


@pytest.mark.slow
def test_a_fault_that_all_processes_find_is_said_once(toy_data: Path, tmp_path: Path) -> None:
    preset = write_preset(tmp_path / "toy.yaml", train={"batch_size": 1})
    found = subprocess.run(command(preset, tmp_path / "run", toy_data, "--processes", "2"), capture_output=True, text=True)
    assert found.returncode == 2
    assert found.stderr.splitlines()[-2:] == [
        "error: train.batch_size: got 1, wanted at least 2, one image for each process",
        "next:  add --set train.batch_size=2",
    ]
    assert found.stderr.count("error:") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_polite_signal_stops_all_at_one_step(number: signal.Signals, code: int, toy_data: Path, tmp_path: Path) -> None:
    preset = write_preset(tmp_path / "toy.yaml", PRESET, **ENDLESS)
    process = start(command(preset, tmp_path / "run", toy_data, "--processes", "2"))
    wait_for_step(process, tmp_path / "run", 20)
    process.send_signal(number)
    _, said = process.communicate(timeout=LIMIT)
    assert process.returncode == code, said
    assert f"stopped by {number.name} after step" in said
    assert "Traceback" not in said
    assert said.count("resume with") == 1
    assert torch.load(tmp_path / "run" / "last.pt", weights_only=True)["step"] >= 20


@pytest.mark.slow
def test_slurms_warning_saves_and_the_run_goes_on(toy_data: Path, tmp_path: Path) -> None:
    preset = write_preset(tmp_path / "toy.yaml", train={"steps": 5000, "validate_every": 5000, "checkpoint_every": 5000})
    run = tmp_path / "run"
    process = start(command(preset, run, toy_data, "--processes", "2"))
    wait_for_step(process, run, 20)
    process.send_signal(signal.SIGUSR1)
    while not (run / "last.pt").is_file():
        assert process.poll() is None
        time.sleep(0.05)
    wait_for_step(process, run, steps_logged(run) + 10)
    ranks = ranks_of(process)  # before the kill, because they end with their parent
    process.kill()
    for rank in ranks:
        with suppress(ProcessLookupError):
            os.kill(rank, signal.SIGKILL)
    process.communicate()


@pytest.mark.slow
def test_torchs_launcher_on_two_hosts_and_slurm_run_the_same_command(
    toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # segctl's launcher divides the cores among its processes, the other two do not; sums over threads differ in last digits.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    preset = write_preset(tmp_path / "toy.yaml", train={"steps": 3, "validate_every": 3})
    local = subprocess.run(command(preset, tmp_path / "local", toy_data, "--processes", "2"), capture_output=True, text=True)
    assert local.returncode == 0, local.stderr

    launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d"]
    meeting = ["--rdzv-endpoint", f"localhost:{free_port()}", "--rdzv-id", "toy"]
    # Without the `--`, torch's launcher takes --run for a short form of options of its own.
    _, module, name, *arguments = command(preset, tmp_path / "hosts", toy_data)
    hosts = [start([*launcher, *meeting, module, "--", name, *arguments]) for _ in range(2)]
    for host in hosts:
        _, said = host.communicate(timeout=LIMIT)
        assert host.returncode == 0, said

    step = {"SLURM_JOB_ID": "77", "SLURM_STEP_ID": "3", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "localhost"}
    tasks = [
        start(command(preset, tmp_path / "slurm", toy_data), **step, SLURM_PROCID=f"{rank}", SLURM_LOCALID=f"{rank}")
        for rank in range(2)
    ]
    for task in tasks:
        _, said = task.communicate(timeout=LIMIT)
        assert task.returncode == 0, said
    for name in ("hosts", "slurm"):
        for key, value in weights(tmp_path / "local").items():
            assert torch.equal(value, weights(tmp_path / name)[key]), (name, key)


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes_and_says_so(toy_data: Path, tmp_path: Path) -> None:
    preset = write_preset(tmp_path / "toy.yaml", PRESET, **ENDLESS)
    run = tmp_path / "run"
    process = start(command(preset, run, toy_data, "--processes", "2"))
    wait_for_step(process, run, 12)
    process.terminate()
    process.communicate(timeout=LIMIT)
    more = start(command(preset, run, toy_data, "--resume"))
    wait_for_step(more, run, torch.load(run / "last.pt", weights_only=True)["step"] + 2)
    more.terminate()
    _, said = more.communicate(timeout=LIMIT)
    assert (
        "resuming with --processes 1, but the run was stopped with --processes 2: results stay correct but are not bit-identical"
        in said
    )


def test_sruns_variables_become_the_launchers() -> None:
    found = {
        "SLURM_JOB_ID": "12", "SLURM_STEP_ID": "1", "SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5", "SLURM_LOCALID": "1",
        "SLURM_STEP_TASKS_PER_NODE": "4(x2)", "SLURM_STEP_NODELIST": "gpu[07-08]",
    }  # fmt: skip
    adopt_slurm(found)
    wanted = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", "MASTER_ADDR": "gpu07"}
    assert {name: found[name] for name in wanted} == wanted
    assert 20_000 <= int(found["MASTER_PORT"]) < 40_000


def test_a_batch_scripts_own_variables_start_nothing() -> None:
    found = {"SLURM_JOB_ID": "12", "SLURM_NTASKS": "8", "SLURM_PROCID": "0"}
    adopt_slurm(found)
    assert "WORLD_SIZE" not in found


@pytest.mark.parametrize(
    ("hosts", "first"), [("node1", "node1"), ("node1,node2", "node1"), ("gpu[03-05,9],login", "gpu03"), ("a[2,7]", "a2")]
)
def test_the_first_of_slurms_hosts(hosts: str, first: str) -> None:
    found = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0", "SLURM_STEP_NODELIST": hosts}
    adopt_slurm(found)
    assert found["MASTER_ADDR"] == first


def test_words_of_a_bug_are_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although the process that only lost its peer spoke first."""
    monkeypatch.setenv(REPORTS_VARIABLE, str(tmp_path))
    for rank, error in enumerate((PeerError(), ValueError("x"))):
        monkeypatch.setenv("RANK", str(rank))
        with pytest.raises(SystemExit), reporting_errors():
            raise error
    found = first_error(tmp_path, {0: 1, 1: 1}, 2)
    assert found.message == "process 1 failed: ValueError('x')"
    assert found.trace.startswith("Traceback")


def test_work_on_main_is_done_by_one_and_handed_back_there() -> None:
    done: list[int] = []
    answers = [World(rank, 3).on_main(lambda rank=rank: done.append(rank) or "written") for rank in range(3)]
    assert answers == ["written", None, None]
    assert done == [0]


def test_an_error_without_room_to_hand_it_over_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a full folder for temporary files: the process that knows the reason says it itself."""
    monkeypatch.setenv(REPORTS_VARIABLE, str(tmp_path / "gone"))
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(InputError, match="the reason"), reporting_errors():
        raise InputError("the reason")
