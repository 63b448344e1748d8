"""The teacher of a run: one network, or the mean of several or of several views; and the form in which it runs fastest."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from segctl.data.shards.dataset import PreparedDataset
from segctl.errors import InputError
from segctl.files import archive_kind, content_key
from segctl.models.averaged import AveragedNetwork
from segctl.models.folded import folded_network
from segctl.models.saving import read_if_saved
from segctl.runs import on_the_hub
from segctl.schema.run import DistillRun
from segctl.schema.terms.methods import TeacherSpec
from segctl.teacher.features import FeatureTeacher
from segctl.teacher.find import find_teacher, is_hugging_face
from segctl.teacher.load import Teacher, load_teacher

T = TypeVar("T", Teacher, FeatureTeacher)


def open_teacher(
    run: DistillRun,
    given: Sequence[Path],
    dataset: PreparedDataset,
    runs_root: Path,
    *,
    data_root: Path | None = None,
    preset: str | None = None,
    trust_program: bool = False,
) -> Teacher:
    """Find and load the teacher of a run, in eval mode, on the CPU.

    given: the values of --teacher; empty for the newest run of the preset's teacher.  preset: that of --teacher-preset; of
    several teachers it describes those that are plain weights.  Raises InputError if one does not exist or fit, or if several
    do not fit together.
    """
    members = []
    paths: Sequence[Path | None] = given or [None]
    all_found = [find_teacher(run, path, runs_root, data_root, dataset.fingerprint) for path in paths]
    described = [preset if preset is not None and (len(paths) == 1 or _is_plain(found.path)) else None for found in all_found]
    if preset is not None and not any(described):
        raise InputError(
            f"--teacher-preset '{preset}' describes no teacher: each of them says which network it is",
            "leave --teacher-preset out, or add a file of plain weights by --teacher",
        )
    for found, of_it in zip(all_found, described, strict=True):
        loaded = load_teacher(found.path, dataset, of_it, trust_program=trust_program, crop=run.data.crop)
        loaded.model.require_images(dataset.bands, dataset.pixel_type, f"the teacher '{loaded.path}'", dataset.name)
        members.append(loaded.chosen(found.note))
    _require_fitting(members, run.teacher)
    return averaged(members, run.teacher)


def averaged(members: Sequence[Teacher], how: TeacherSpec) -> Teacher:
    """The teacher that averages the members and their views; a single member without further views as it is."""
    weights = how.weights or (1.0,) * len(members)
    if len(members) == 1 and not how.averages_views:
        return members[0]
    featured = 0 if len(members) == 1 else None  # of several, the run finds out whose features there are
    first = members[0].model
    model = AveragedNetwork(
        [member.model for member in members], weights, first.class_names or (),
        returns=first.returns, scales=how.scales, flip=how.flip, featured=featured,
    )  # fmt: skip
    notes = (_views_in_words(how),) if how.averages_views else ()
    if len(members) == 1:
        alone = members[0]
        return Teacher(model, alone.path, alone.preset, alone.sha256, (*alone.notes, *notes), alone.given_preset)
    shares = [weight / sum(weights) for weight in weights]
    key = content_key({"teachers": [[each.sha256, share] for each, share in zip(members, shares, strict=True)]})
    named = tuple(f"{share:.0%} of the teacher is '{each.path}'" for each, share in zip(members, shares, strict=True))
    of_members = tuple(f"'{each.path}': {note}" for each in members for note in each.notes)
    return Teacher(
        model,
        members[0].path,
        " + ".join(each.preset for each in members),
        key,
        (*named, *of_members, *notes),
        next((each.given_preset for each in members if each.given_preset is not None), None),
        tuple(members),
        tuple(weights),
    )


def with_folded_networks(teacher: T, dtype: torch.dtype) -> T:
    """The teacher with folded copies of the networks that segctl built; others, such as programs, stay as they are.

    teacher: on the CPU; an ensemble is changed in place.  dtype: that of autocast when it runs.  A note says how many batch norms
    were folded.
    """
    found, count = folded_network(teacher.model, dtype)
    changes: dict[str, Any] = {"model": found}
    if isinstance(found, AveragedNetwork) and teacher.members:
        networks: Iterable[Any] = found.members
        members = zip(teacher.members, networks, strict=True)
        changes["members"] = tuple(replace(member, model=network) for member, network in members)
    if count:
        changes["notes"] = (*teacher.notes, f"the teacher's {count} batch norms are folded into its convolutions")
    return replace(teacher, **changes)


def choose_features(teacher: Teacher, run: DistillRun, gives_features: Callable[[Teacher], bool]) -> None:
    """Let an ensemble give the features of the only member that has any.

    Features of two networks have no mean. Raises InputError that names a term which compares features, if several members give
    some. gives_features: whether a member does.
    """
    if not isinstance(teacher.model, AveragedNetwork) or not teacher.members:
        return
    giving = [index for index, member in enumerate(teacher.members) if gives_features(member)]
    if len(giving) == 1:
        teacher.model.featured = giving[0]
        return
    for index, term in enumerate(run.distiller.terms):
        if "features" in term.reads:
            raise InputError(
                f"distiller.terms.{index} ('{term.kind}') compares features, and {len(giving) or 'none'} of the "
                f"{len(teacher.members)} teachers give{'' if giving else 's'} features, wanted exactly one",
                "give one teacher, or terms that compare only logits, such as --method kd, dist or jml",
            )


def _require_fitting(members: Sequence[Teacher], how: TeacherSpec) -> None:
    if how.weights is not None and len(how.weights) != len(members):
        counted = f"{len(members)} teacher{'s are' if len(members) > 1 else ' is'}"
        raise InputError(
            f"teacher.weights has {len(how.weights)} values, and {counted} given",
            "give --teacher once for each weight, or set teacher.weights=null",
        )
    for index, member in enumerate(members):
        for other in members[:index]:
            if other.sha256 == member.sha256:
                raise InputError(
                    f"the teachers '{other.path}' and '{member.path}' are the same network (sha256 {member.sha256[:12]})",
                    "give each once; a weight, such as --teacher RUN=2, makes one count more",
                )
            if other.model.returns is not member.model.returns:
                aligned = other if other.model.returns(*[None] * 3).align_corners else member  # type: ignore[arg-type]
                raise InputError(
                    f"the teacher '{aligned.path}' was trained with logits resized on aligned corners, and another one was not: "
                    "their maps do not lie over each other",
                    "give teachers of one kind, or only one of them",
                )


def _is_plain(path: Path) -> bool:
    """Whether a teacher is a file of plain weights, which do not say which network they are of."""
    return not (on_the_hub(path) or is_hugging_face(path) or archive_kind(path)) and read_if_saved(path) is None


def _views_in_words(how: TeacherSpec) -> str:
    scales = ", ".join(f"{scale:g}" for scale in how.scales)
    views = len(how.scales) * (2 if how.flip else 1)
    mirrored = ", each also mirrored" if how.flip else ""
    return f"the teacher's probabilities are the mean over {views} views of an image: scales {scales}{mirrored}"
