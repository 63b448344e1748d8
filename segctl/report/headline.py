"""The first screen: what was done, the numbers of teacher, undistilled and distilled student, and one picture of all three."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segctl.errors import SegctlError
from segctl.files import real_path
from segctl.metrics.scores import number_or_none
from segctl.report.analysis import Measured, interval_text
from segctl.report.collect import Collection, Evaluation, Run, read_run
from segctl.report.content import UNDEFINED, Album, AlbumPicture, Tile, Tiles
from segctl.report.explorer.album import gains_of, miou_by_run, unpack_map
from segctl.report.gains import better, beyond_seeds, gain, paired
from segctl.report.groups import Comparison, Group, undistilled
from segctl.report.tables import score_text
from segctl.runs import MODEL_FILE, OLD_MODEL_FILE, RunFolder

if TYPE_CHECKING:
    from segctl.report.explorer.maps import ClassIds, NetworkTimes

Colors = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Trio:
    """The three networks of the first screen, each None where there is none, in one comparison.

    teacher: its run, with or without an evaluation in this comparison.  others: how many distilled groups scored lower.
    alone: the group that is shown where nothing was distilled.
    """

    comparison: Comparison
    teacher: Run | None
    undistilled: Group | None
    distilled: Group | None
    others: int
    alone: Group | None

    @property
    def pair(self) -> tuple[Run, Run] | None:
        """The runs of the distilled and the undistilled student that share the first seed in common."""
        if self.distilled is None or self.undistilled is None:
            return None
        return next(iter(paired(self.distilled, self.undistilled)), None)

    @property
    def teacher_group(self) -> Group | None:
        """The teacher among the groups of the comparison; None where it was not scored there."""
        return None if self.teacher is None else _group_of(self.teacher, self.comparison)


def trio_of(comparison: Comparison, runs: Sequence[Run]) -> Trio:
    """The best distilled group, its undistilled partner, and its teacher, which may be a run outside the report."""
    distilled = [group for group in comparison.groups if group.runs[0].teacher and group.method != "none"]
    with_partner = [group for group in distilled if undistilled(group, comparison.groups) is not None]
    best = max(with_partner or distilled, key=_score, default=None)
    if best is None:
        return Trio(comparison, None, None, None, 0, max(comparison.groups, key=_score))
    base = undistilled(best, comparison.groups)
    return Trio(comparison, teacher_run(best.runs[0], runs), base, best, len(with_partner or distilled) - 1, None)


def teacher_run(student: Run, runs: Sequence[Run]) -> Run | None:
    """The run that a student's teacher came from: one of the report, or else one on the disk; None for other weights.

    None for an ensemble as well: no single run has its scores.
    """
    kept = student.teacher.get("run")
    if not kept or len(student.teachers) > 1:
        return None
    folder = Path(str(kept))
    folder = folder.parent if folder.name in (MODEL_FILE, OLD_MODEL_FILE) else folder
    found = next((run for run in runs if real_path(run.folder.path) == real_path(folder)), None)
    if found is not None or not (folder / "run.yaml").is_file():
        return found
    try:
        read = read_run(RunFolder(folder))
    except (SegctlError, OSError):
        return None
    taken = any(run.label == read.label for run in runs)
    return replace(read, label=f"teacher {read.label}") if taken else read


def first_of(comparisons: Sequence[Comparison], runs: Sequence[Run]) -> Trio | None:
    """The comparison for the first screen: one with a pair, or else one with a distilled student, or else the largest."""
    trios = [trio_of(comparison, runs) for comparison in comparisons]
    return max(
        trios,
        key=lambda trio: (trio.pair is not None, trio.distilled is not None, len(trio.comparison.groups)),
        default=None,
    )


def sentence(trio: Trio | None, collection: Collection) -> str:
    """What was done."""
    if trio is None:
        count = len(collection.runs)
        return f"{count} {'run' if count == 1 else 'runs'} of training; no run has been evaluated yet."
    place = f"scored on {_images(trio.comparison)} of {trio.comparison.place}"
    if trio.distilled is None:
        assert trio.alone is not None
        return f"{_student(trio.alone)} was trained {_length(trio.alone)} and {place}."
    how = f"with {trio.distilled.method} from the teacher {_teacher_word(trio)}"
    both = "once without a teacher and once " if trio.undistilled is not None else ""
    return f"{_student(trio.distilled)} was trained {_length(trio.distilled)}, {both}{how}, and {place}."


def tiles(trio: Trio, measured: Sequence[Measured], positions: Mapping[str, int], clocks: Mapping[str, "NetworkTimes"]) -> Tiles:
    """The numbers of up to three networks, and what distillation gained."""

    def of_group(role: str, group: Group) -> Tile:
        several = len(group.runs) > 1
        note = f"{interval_text(measured, group)} over images" + (f", {len(group.runs)} seeds" if several else ", one seed")
        score = score_text(group.score("mIoU_D"))
        return Tile(role, _name(group), score, note, _facts(group.runs, clocks), positions[group.runs[0].label])

    if trio.alone is not None:
        return Tiles((of_group("this student", trio.alone),), "", "")
    found = []
    if trio.teacher_group is not None:
        found.append(of_group("teacher", trio.teacher_group))
    elif trio.distilled is not None:
        found.append(_unscored_teacher(trio, clocks))
    if trio.undistilled is not None:
        found.append(of_group("undistilled", trio.undistilled))
    assert trio.distilled is not None
    found.append(of_group("distilled", trio.distilled))
    return Tiles(tuple(found), *gain_in_words(trio, measured))


def gain_in_words(trio: Trio, measured: Sequence[Measured]) -> tuple[str, str]:
    """The gain, such as `+1.50 points of mIoU_D`, and what it means; both empty without an undistilled student."""
    group, groups = trio.distilled, trio.comparison.groups
    found = None if group is None else gain(group, groups)
    if group is None or found is None:
        missing = "There is no undistilled student with the same settings and seed, so the gain of distillation is not known."
        return "", missing if group is not None else ""
    seeds = len(found.seeds)
    if found.low is None or found.high is None:
        meaning = "One seed each: whether another seed would show the same is not known."
        over = next((each.differences.scores["mIoU_D"] for each in measured if each.group is group and each.differences), None)
        if over is not None:
            verdict = "excludes 0, so other images would show it too" if over.low > 0 or over.high < 0 else "holds 0"
            meaning += f" Over images its 95 % interval is [{over.low:+.2f}, {over.high:+.2f}], which {verdict}."
    else:
        verdict = "beyond the noise of seeds" if beyond_seeds(found) else "within the noise of seeds, so it shows no difference"
        loss = "" if better(found) or not beyond_seeds(found) else ", and a loss"
        meaning = f"95 % interval over {seeds} seeds [{found.low:+.2f}, {found.high:+.2f}]: {verdict}{loss}."
    if trio.others:
        meaning += f" It is the best of {trio.others + 1} distilled students on these images, which flatters it."
    return f"{found.mean:+.2f} points of mIoU_D by distillation", meaning


def most_improved(trio: Trio, album: Album) -> tuple[AlbumPicture, float | None] | None:
    """The picture of the album on which the distilled student is most above the undistilled one, with the points.

    Without a pair, or without its pictures: the first picture that the shown run has a prediction for.
    """
    labels = [label for label, _ in album.runs]
    if trio.pair is not None and album.scores is not None:
        gains = gains_of(miou_by_run(album.scores), trio.pair)
        places = [labels.index(run.label) for run in trio.pair]
        shown = [
            picture
            for picture in album.pictures
            if picture.name in gains and all(picture.predictions[place] is not None for place in places)
        ]
        if shown:
            best = max(shown, key=lambda picture: gains[picture.name])
            return best, gains[best.name]
    group = trio.distilled or trio.alone
    wanted = labels.index(group.runs[0].label) if group is not None else 0
    found = next((picture for picture in album.pictures if picture.predictions[wanted] is not None), None)
    return None if found is None else (found, None)


def row_maps(trio: Trio, album: Album, picture: AlbumPicture) -> list[tuple[str, "ClassIds"]]:
    """The label maps beside the image, from the truth on, each with its role."""
    roles: list[tuple[str, Run | None]] = [("teacher", trio.teacher)]
    if trio.pair is not None:
        roles += [("undistilled", trio.pair[1]), ("distilled", trio.pair[0])]
    elif trio.distilled is not None:
        roles.append(("distilled", trio.distilled.runs[0]))
    elif trio.alone is not None:
        roles.append(("prediction", trio.alone.runs[0]))
    labels = [label for label, _ in album.runs]
    found = [("truth", unpack_map(picture.truth, picture.height, picture.width))]
    for role, run in roles:
        packed = picture.predictions[labels.index(run.label)] if run is not None and run.label in labels else None
        if packed is not None:
            found.append((role, unpack_map(packed, picture.height, picture.width)))
    return found


def legend_in_view(colors: Colors, maps: Sequence["ClassIds"]) -> tuple[tuple[str, str], ...]:
    """The classes that are in one of the label maps."""
    seen = {int(kind) for found in maps for kind in np.unique(found)}
    return tuple(entry for index, entry in enumerate(colors) if index in seen)


def _score(group: Group) -> float:
    found = group.score("mIoU_D").mean
    return -1.0 if found is None else found


def _group_of(run: Run, comparison: Comparison) -> Group | None:
    return next((group for group in comparison.groups if any(run.label == other.label for other in group.runs)), None)


def _name(group: Group) -> str:
    return group.short_label if group.method != "none" else group.spec.name


def _student(group: Group) -> str:
    model = group.spec.model
    return f"{group.spec.name} ({model.head} on {model.backbone})"


def _length(group: Group) -> str:
    seeds = len(group.runs)
    return f"for {group.spec.train.steps:,} steps" + (f" with {seeds} seeds" if seeds > 1 else "")


def _images(comparison: Comparison) -> str:
    count = int(comparison.groups[0].evaluations[0].about.get("images") or 0)
    return f"{count:,} {'image' if count == 1 else 'images'}"


def _teacher_word(trio: Trio) -> str:
    assert trio.distilled is not None
    return str(trio.distilled.runs[0].teacher.get("preset") or UNDEFINED)


def _unscored_teacher(trio: Trio, clocks: Mapping[str, "NetworkTimes"]) -> Tile:
    """The teacher by what the student's run noted of it."""
    assert trio.distilled is not None
    student = trio.distilled.runs[0]
    facts = () if trio.teacher is None else _facts([trio.teacher], clocks)
    value, images = (student.teacher.get("scores") or {}).get("mIoU_D"), student.teacher.get("images")
    note = (
        "not scored" if value is None else f"on {images if images is not None else UNDEFINED} images, the check before training"
    )
    elsewhere = None if trio.teacher is None else scored_elsewhere(trio.teacher, student.evaluations[trio.comparison.split])
    if elsewhere is not None:
        value, note = elsewhere, f"on {_images(trio.comparison)}, according to its own run"
    score = UNDEFINED if value is None else f"{value:.2f}"
    return Tile("teacher", _teacher_word(trio), score, note, facts, -1)


def scored_elsewhere(teacher: Run, mine: Evaluation) -> float | None:
    """The mIoU_D of a teacher on the data of a student's evaluation; None where it was not scored there."""
    found = teacher.evaluations.get(mine.split)
    return found.scores["mIoU_D"] if found is not None and found.fingerprint == mine.fingerprint else None


def _facts(runs: Sequence[Run], clocks: Mapping[str, "NetworkTimes"]) -> tuple[tuple[str, str], ...]:
    """Parameters and GFLOP of a prediction, time of an image and size of the file: what is known of them.

    A run of an older version has no cost; its parameters include those that only training needs.
    """
    times = [found for run in runs if run.label in clocks and (found := clocks[run.label].median) is not None]
    cost = runs[0].environment.get("cost") or {}
    at = f" at {'×'.join(map(str, cost['size']))}" if cost.get("size") else ""
    known: list[tuple[str, float | None, Callable[[float], str]]] = [
        (
            "parameters",
            number_or_none(cost.get("parameters", runs[0].environment.get("parameters"))),
            lambda value: f"{value / 1e6:.2f} M",
        ),
        (f"GFLOP{at}", number_or_none(cost.get("gflop")), lambda value: f"{value:.3g}"),
        (
            f"ms an image ({clocks[runs[0].label].device}, here)" if times else "",
            statistics.fmean(times) if times else None,
            lambda value: f"{value:.3g}",
        ),
        ("file", _file_bytes(runs[0]), lambda value: f"{value / 1e6:.1f} MB"),
    ]
    return tuple((name, text(value)) for name, value, text in known if value is not None)


def _file_bytes(run: Run) -> float | None:
    try:
        return float(run.folder.model.stat().st_size)
    except OSError:
        return None
