"""What every tracker is given, by small stand-ins for the packages; TensorBoard has a test of its own."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from toy import Silent, toy_run

from segctl.errors import InputError
from segctl.models import read
from segctl.runs import RunFolder
from segctl.train.resume import resume_run
from segctl.train.session import Request
from segctl.train.start import start_run
from tests.slow_cases import slow_after

RUN = {"train": {"steps": 8, "validate_every": 4, "checkpoint_every": 3}}
NAMES = ("wandb", "mlflow", "trackio")


class Book:
    """What a stand-in was given."""

    def __init__(self) -> None:
        self.points: dict[str, list[int]] = {}
        self.values: dict[str, list[float]] = {}
        self.images: list[tuple[int, str]] = []
        self.opened: list[dict[str, Any]] = []
        self.settings: dict[str, Any] = {}
        self.ends: list[Any] = []
        self.failing = False

    def point(self, curve: str, value: float, step: int) -> None:
        if self.failing:
            raise ConnectionError("no route to host")
        self.points.setdefault(curve, []).append(step)
        self.values.setdefault(curve, []).append(value)

    def log(self, values: dict[str, Any], step: int) -> None:
        for curve, value in values.items():
            pictures = value if isinstance(value, list) else [value]
            for picture in (one for one in pictures if isinstance(one, SimpleNamespace)):
                assert Path(picture.path).read_bytes()[:4] == b"\x89PNG"
                self.images.append((step, Path(picture.path).name))
            if isinstance(value, float):
                self.point(curve, value, step)


def fake_wandb(book: Book) -> ModuleType:
    module: Any = ModuleType("wandb")

    def init(**options: Any) -> Any:
        book.opened.append(options)
        book.settings = options["config"]
        return SimpleNamespace(log=book.log, finish=lambda exit_code: book.ends.append(exit_code))

    module.init, module.Settings, module.Image = init, SimpleNamespace, lambda path, caption: SimpleNamespace(path=path)
    return module


def fake_trackio(book: Book) -> ModuleType:
    module: Any = ModuleType("trackio")

    def init(**options: Any) -> Any:
        book.opened.append(options | {"id": options["name"]})
        book.settings = options["config"]
        return SimpleNamespace(log=book.log, finish=lambda: book.ends.append(0))

    module.init, module.Image = init, lambda path: SimpleNamespace(path=path)
    return module


def fake_mlflow(book: Book) -> ModuleType:
    module, entities = ModuleType("mlflow"), ModuleType("mlflow.entities")
    runs: list[str] = []

    class Client:
        def __init__(self, tracking_uri: str) -> None:
            self.uri = tracking_uri

        def get_experiment_by_name(self, name: str) -> Any:
            return None if not runs else SimpleNamespace(experiment_id="7")

        def create_experiment(self, name: str) -> str:
            return "7"

        def create_run(self, experiment: str, run_name: str) -> Any:
            runs.append(run_name)
            book.opened.append({"id": f"run{len(runs)}", "name": run_name, "uri": self.uri})
            return SimpleNamespace(info=SimpleNamespace(run_id=f"run{len(runs)}"))

        def update_run(self, run_id: str, status: str) -> None:
            book.opened.append({"id": run_id, "uri": self.uri})

        def log_batch(self, run_id: str, metrics: Any = (), params: Any = ()) -> None:
            assert len(params) <= 100
            book.settings |= {param.key: param.value for param in params}
            for metric in metrics:
                book.point(metric.key, metric.value, metric.step)

        def log_artifact(self, run_id: str, path: str, place: str = "") -> None:
            assert Path(path).is_file()
            if place:
                book.images.append((int(place.removeprefix("worst/step-")), Path(path).name))

        def set_terminated(self, run_id: str, status: str) -> None:
            book.ends.append(0 if status == "FINISHED" else 1)

    def metric(key: str, value: float, timestamp: int, step: int) -> SimpleNamespace:
        return SimpleNamespace(key=key, value=value, step=step)

    module.__dict__.update(MlflowClient=Client, entities=entities)
    entities.__dict__.update(Metric=metric, Param=lambda key, value: SimpleNamespace(key=key, value=value))
    return module


FAKES = {"wandb": fake_wandb, "mlflow": fake_mlflow, "trackio": fake_trackio}


@pytest.fixture
def books(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Book]:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    found = {name: Book() for name in NAMES}
    for name, book in found.items():
        monkeypatch.setitem(sys.modules, name, FAKES[name](book))
    monkeypatch.setitem(sys.modules, "mlflow.entities", sys.modules["mlflow"].entities)
    return found


class Stopping(Silent):
    """Ends the run after a step, as a kill would."""

    def stepped(self, report: object, steps: int) -> None:
        if getattr(report, "step", 0) == 6:
            raise KeyboardInterrupt


def request(data: Path, runs: Path, *track: str, **blocks: Any) -> Request:
    return Request(toy_run(**RUN | blocks), data, runs, device="cpu", track=track)


@pytest.mark.parametrize("name", slow_after(NAMES))
def test_a_tracker_is_given_every_number_the_preset_and_the_worst_images(
    name: str, books: dict[str, Book], toy_data: Path, tmp_path: Path
) -> None:
    folder = start_run(request(toy_data, tmp_path, name), RunFolder(tmp_path / "run"), Silent())
    book, log = books[name], folder.read_log()
    assert book.points["loss/total"] == list(range(1, 9))
    assert book.values["loss/total"] == [event["loss"] for event in log if event["event"] == "step"]
    assert book.values["validation/mIoU_D"] == [event["scores"]["mIoU_D"] for event in log if event["event"] == "validation"]
    assert book.points["validation/mIoU_D"] == [4, 8]
    assert [step for step, _ in book.images] == [4] * 4 + [8] * 4
    assert all(picture.startswith(f"{rank % 4:02d}_") for rank, (_, picture) in enumerate(book.images))
    assert str(book.settings.get("train", {}).get("steps") or book.settings["train.steps"]) == "8"
    assert book.ends == [0]


@pytest.mark.parametrize("name", [NAMES[0], *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES[1:])])
def test_a_resumed_run_goes_on_in_the_same_place_and_repeats_nothing(
    name: str, books: dict[str, Book], toy_data: Path, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        start_run(request(toy_data, tmp_path, name), folder, Stopping())  # step 5 is given, and the checkpoint is of step 3
    resume_run(request(toy_data, tmp_path), folder, Silent())
    book = books[name]
    assert book.points["loss/total"] == list(range(1, 9))
    assert book.points["validation/mIoU_D"] == [4, 8]
    assert [step for step, _ in book.images] == [4] * 4 + [8] * 4
    first, second = book.opened
    assert first["id"] == second["id"]
    assert book.ends == ([0, 0] if name == "trackio" else [1, 0])


def test_trackers_switched_on_late_are_given_the_earlier_steps(books: dict[str, Book], toy_data: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        start_run(request(toy_data, tmp_path), folder, Stopping())
    assert not folder.trackers.exists()
    resume_run(request(toy_data, tmp_path, *NAMES), folder, Silent())
    assert all(book.points["loss/total"] == list(range(1, 9)) for book in books.values())


def test_tracking_changes_nothing_that_is_computed(books: dict[str, Book], toy_data: Path, tmp_path: Path) -> None:
    for name, track in (("plain", ()), ("tracked", NAMES)):
        start_run(request(toy_data, tmp_path, *track), RunFolder(tmp_path / name), Silent())
    one, other = (read(tmp_path / name).weights for name in ("plain", "tracked"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("name", [NAMES[0], *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES[1:])])
def test_a_tracker_that_fails_does_not_end_the_run(name: str, books: dict[str, Book], toy_data: Path, tmp_path: Path) -> None:
    watch = Silent()
    books[name].failing = True
    folder = start_run(request(toy_data, tmp_path, name), RunFolder(tmp_path / "run"), watch)
    assert folder.finished
    said = f"warning: --track {name} has ended: no route to host; the run goes on, and log.jsonl has every number"
    assert watch.notes.count(said) == 1


@pytest.mark.slow
def test_wandb_is_offline_unless_somebody_is_logged_in(
    books: dict[str, Book], toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Silent()
    start_run(request(toy_data, tmp_path, "wandb"), RunFolder(tmp_path / "first"), watch)
    assert any(note.startswith("wandb is offline; to send the run later: `wandb sync ") for note in watch.notes)
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret\n")
    start_run(request(toy_data, tmp_path, "wandb"), RunFolder(tmp_path / "second"), Silent())
    monkeypatch.setenv("WANDB_MODE", "offline")
    start_run(request(toy_data, tmp_path, "wandb"), RunFolder(tmp_path / "third"), Silent())
    assert [options["mode"] for options in books["wandb"].opened] == ["offline", "online", "offline"]


def refusal(request: Request, folder: RunFolder) -> str:
    with pytest.raises(InputError) as error:
        start_run(request, folder, Silent())
    assert not folder.path.exists()
    return str(error.value)


def test_a_missing_login_is_said_before_anything_is_written(
    books: dict[str, Book], toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    assert refusal(request(toy_data, tmp_path, "wandb"), RunFolder(tmp_path / "run")) == (
        "--track wandb: WANDB_MODE is online, but nobody is logged in; "
        "run `wandb login`, or unset WANDB_MODE: the run is then tracked offline"
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_package_is_said_before_anything_is_written(
    name: str, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)  # import then says that there is none
    assert refusal(request(toy_data, tmp_path, name), RunFolder(tmp_path / "run")) == (
        f"--track {name} needs the package {name}, which is not installed; "
        f'run `pip install "segctl[{name}]"`, or leave out --track {name}; log.jsonl has the same numbers'
    )


def test_an_unknown_tracker_is_refused_with_the_known_ones(toy_data: Path, tmp_path: Path) -> None:
    assert refusal(request(toy_data, tmp_path, "wandbb"), RunFolder(tmp_path / "run")) == (
        "--track 'wandbb' is not known, did you mean 'wandb'?; use tensorboard, wandb, mlflow, trackio"
    )


def test_a_tracker_that_does_not_open_is_one_sentence(
    books: dict[str, Book], toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(**options: Any) -> None:
        raise RuntimeError("the disk is full\nand more")

    monkeypatch.setattr(sys.modules["wandb"], "init", init)
    with pytest.raises(InputError, match="--track wandb cannot start: the disk is full; leave out --track wandb"):
        start_run(request(toy_data, tmp_path, "wandb"), RunFolder(tmp_path / "run"), Silent())


def test_a_damaged_record_is_named(books: dict[str, Book], toy_data: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        start_run(request(toy_data, tmp_path, "wandb"), folder, Stopping())
    folder.trackers.write_text('{"wandb": {"sent": {"step": "many"}}}')
    with pytest.raises(InputError, match=r"trackers\.json"):
        resume_run(request(toy_data, tmp_path), folder, Silent())
