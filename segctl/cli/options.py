"""Options that more than one command takes, each written once, and all options of `train` and `distill` as one object."""

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar, get_type_hints

import typer

from segctl.cli import completion
from segctl.commands import DATA_ROOT, DATA_VARIABLE, RUNS_ROOT, RUNS_VARIABLE
from segctl.errors import InputError
from segctl.runtime.device_name import check_device_name

MOST_WEIGHT = 1e9
"""The largest weight of a teacher."""


def _data_root(text: str | Path) -> Path:
    """The value of --data-root. Importing what reads URLs takes time, which most commands need not spend."""
    if "://" not in str(text):
        return Path(text)
    from segctl.data.files.remote import root_of

    return root_of(str(text))


DataRootOpt = Annotated[
    Path,
    typer.Option(
        "--data-root",
        envvar=DATA_VARIABLE,
        parser=_data_root,
        metavar="PATH",
        help="Folder of prepared datasets, or a URL (https://, s3://). A URL is read in parts and never written to.",
        show_default=True,
    ),
]
RunsRootOpt = Annotated[Path, typer.Option("--runs-root", envvar=RUNS_VARIABLE, help="Folder of runs.", show_default=True)]
JsonOpt = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
SetOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="A.B=C",
        autocompletion=completion.preset_settings,
        help="Change a value of the preset, such as train.steps=100 (repeatable).",
    ),
]
PresetOpt = Annotated[
    str | None,
    typer.Option(
        "--preset", metavar="NAME_OR_FILE", autocompletion=completion.presets, help="A shipped preset's name, or a YAML file."
    ),
]
DataOpt = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="NAME",
        autocompletion=completion.datasets,
        help="The prepared dataset to fit the preset to, if the preset names none: dl101, fast, tiny and others.",
    ),
]
DeviceOpt = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="NAME",
        callback=lambda name: None if name is None else check_device_name(name),
        help="cpu, cuda, cuda:0 or mps; default: a CUDA GPU if there is one.",
    ),
]

RunOpt = Annotated[
    Path | None,
    typer.Option(
        "--run", metavar="DIR", autocompletion=completion.runs, help="The run's folder; default: a new folder in the runs root."
    ),
]
ResumeOpt = Annotated[bool, typer.Option("--resume", help="Resume a stopped run, exactly as if it had not stopped.")]
ExtendOpt = Annotated[
    int | None,
    typer.Option(
        "--extend-to",
        metavar="STEPS",
        min=1,
        max=10**9,
        help="Train the run of --run, finished or not, until it has taken STEPS steps.",
    ),
]
DryRunOpt = Annotated[
    bool, typer.Option("--dry-run", help="Take one step, validate one image, save and load a checkpoint; keep nothing.")
]
StepsOpt = Annotated[int | None, typer.Option("--steps", metavar="N", min=1, max=10**9, help="The same as --set train.steps=N.")]
SeedOpt = Annotated[int | None, typer.Option("--seed", metavar="N", min=0, max=2**32 - 1, help="The same as --set train.seed=N.")]
DeterministicOpt = Annotated[
    bool,
    typer.Option("--deterministic", help="Compute the same bits in every run; sets train.deterministic."),
]
ProcessesOpt = Annotated[
    int | None,
    typer.Option(
        "--processes",
        metavar="N",
        min=1,
        max=1024,
        help="Local processes that share the global batch; default: one per visible GPU, or fewer if the batch does not divide "
        "by that.",
    ),
]
FsdpOpt = Annotated[
    bool,
    typer.Option(
        "--fsdp", help="Spread the teacher's weights over the processes of the run, for a teacher that does not fit on each GPU."
    ),
]
ProfileOpt = Annotated[
    bool, typer.Option("--profile", help="Measure early in the run where the time of a step goes; write a table and a trace.")
]
TrackOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--track",
        metavar="NAME",
        help="Also log curves and worst images to tensorboard, wandb, mlflow or trackio (repeatable). None needs an account.",
    ),
]
TensorboardOpt = Annotated[bool, typer.Option("--tensorboard", help="The same as --track tensorboard.")]
MethodOpt = Annotated[
    str | None,
    typer.Option(
        "--method",
        metavar="NAME",
        autocompletion=completion.methods,
        help="A published method instead of the preset's distiller.",
    ),
]
TeacherOpt = Annotated[
    list[Path] | None,
    typer.Option(
        "--teacher",
        metavar="RUN_OR_FILE",
        autocompletion=completion.runs,
        help="The teacher: a run, a weights file, a TorchScript or torch.export file, a Hugging Face folder, or hf:ORG/NAME; "
        "best: the best finished run of the preset's teacher by validation; default: the newest. Repeat it to learn from the "
        "mean of several teachers' probabilities; RUN=2 counts twice.",
    ),
]
TeacherPresetOpt = Annotated[
    str | None,
    typer.Option(
        "--teacher-preset",
        metavar="NAME_OR_FILE",
        autocompletion=completion.presets,
        help="Preset that describes the teacher's network, if the teacher is a file of plain weights.",
    ),
]

TrustOpt = Annotated[
    bool,
    typer.Option("--trust-program", help="Load a TorchScript or torch.export teacher, which may run code stored in the file."),
]

FeatureTeacherOpt = Annotated[
    list[Path] | None,
    typer.Option(
        "--teacher",
        metavar="NAME",
        help="The frozen backbone to learn from: timm:NAME with a NAME such as vit_small_patch16_dinov3, hf:ORG/NAME, or a "
        "folder that the transformers library wrote.",
    ),
]
MatchOpt = Annotated[
    str | None, typer.Option("--method", metavar="NAME", help="How features are compared: cosine (default), mse or cwd.")
]
PretrainSplitOpt = Annotated[
    str | None,
    typer.Option("--split", metavar="NAME", help="The pictures to learn from, such as unlabelled; default: the preset's."),
]

NETWORK = "evaluation protocol, if it differs from the run's own"
ProtocolOpt = Annotated[
    str | None,
    typer.Option("--protocol", metavar="NAME", rich_help_panel=NETWORK, help="whole or sliding; default: the run's own."),
]
TileOpt = Annotated[
    str | None,
    typer.Option("--tile", metavar="HxW", rich_help_panel=NETWORK, help="Size of a sliding tile; default: the training crop."),
]
StrideOpt = Annotated[
    float | None,
    typer.Option(
        "--stride", metavar="FRACTION", rich_help_panel=NETWORK, help="Distance between tiles, as a fraction of the tile's size."
    ),
]
ScalesOpt = Annotated[
    str | None,
    typer.Option("--scales", metavar="A,B,...", rich_help_panel=NETWORK, help="Image scales whose probabilities are averaged."),
]
FlipOpt = Annotated[
    bool | None,
    typer.Option("--flip/--no-flip", rich_help_panel=NETWORK, help="Also average over the mirrored image."),
]
PrecisionOpt = Annotated[
    str | None,
    typer.Option(
        "--precision", metavar="NAME", rich_help_panel=NETWORK, help="auto, fp32, bf16 or fp16; default: as in training."
    ),
]


class GivenTeachers(NamedTuple):
    """The values of --teacher: where each is, and how much it counts; no weights where none is given."""

    paths: tuple[Path, ...]
    weights: tuple[float, ...] | None

    @classmethod
    def of(cls, values: Sequence[Path] | None) -> "GivenTeachers":
        """Read PATH and PATH=WEIGHT; a path that exists is taken as it is. Raises InputError for a weight that is none."""
        read = [cls._read(value) for value in values or []]
        weights = [weight for _, weight in read]
        if len(read) == 1 and weights[0] is not None:
            raise InputError(
                f"--teacher '{(values or [])[0]}' gives a weight to the only teacher", "leave it out, or add another --teacher"
            )
        given = any(weight is not None for weight in weights)
        return cls(
            tuple(path for path, _ in read), tuple(1.0 if weight is None else weight for weight in weights) if given else None
        )

    @staticmethod
    def _read(value: Path) -> tuple[Path, float | None]:
        head, equals, tail = str(value).rpartition("=")
        if not equals or value.exists():
            return value, None
        try:
            weight = float(tail)
        except ValueError:
            weight = math.nan
        if not head or not 0 < weight <= MOST_WEIGHT:
            raise InputError(
                f"--teacher '{value}': got the weight '{tail}', wanted a number above 0", "for example --teacher RUN=2"
            )
        return Path(head), weight


@dataclass(frozen=True)
class RunOptions:
    """The options of `distill`, in the order of its help; `train` has those without a teacher."""

    preset: PresetOpt = None
    data: DataOpt = None
    method: MethodOpt = None
    teacher: TeacherOpt = None
    teacher_preset: TeacherPresetOpt = None
    trust_program: TrustOpt = False
    set_: SetOpt = None
    run: RunOpt = None
    resume: ResumeOpt = False
    extend_to: ExtendOpt = None
    dry_run: DryRunOpt = False
    steps: StepsOpt = None
    seed: SeedOpt = None
    deterministic: DeterministicOpt = False
    device: DeviceOpt = None
    processes: ProcessesOpt = None
    fsdp: FsdpOpt = False
    profile: ProfileOpt = False
    track: TrackOpt = None
    tensorboard: TensorboardOpt = False
    data_root: DataRootOpt = DATA_ROOT
    runs_root: RunsRootOpt = RUNS_ROOT


@dataclass(frozen=True)
class PretrainOptions(RunOptions):
    """The options of `pretrain`."""

    method: MatchOpt = None
    teacher: FeatureTeacherOpt = None
    split: PretrainSplitOpt = None


Chosen = TypeVar("Chosen", bound=RunOptions)


def with_run_options(
    of: type[Chosen], *, without: tuple[str, ...] = ()
) -> Callable[[Callable[[Chosen], None]], Callable[..., None]]:
    """Turn a function of options into a command with one option for each field, except for the fields of `without`."""

    def decorate(command: Callable[[Chosen], None]) -> Callable[..., None]:
        def call(**given: Any) -> None:
            command(of(**given))

        # typer reads a command's options from its signature, so this one gets the signature that the fields describe.
        hints = get_type_hints(of, include_extras=True)
        chosen = [field for field in fields(of) if field.name not in without]
        call.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [
                inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name])
                for field in chosen
            ]
        )
        call.__annotations__ = {field.name: hints[field.name] for field in chosen}
        call.__name__, call.__doc__ = command.__name__, command.__doc__
        return call

    return decorate
