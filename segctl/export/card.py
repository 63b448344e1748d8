"""The model card of a run: README.md in its repository, with what the scores average over, and where everything comes from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from segctl import __version__
from segctl.data.datasets import KNOWN
from segctl.data.files.bands import BandScaling
from segctl.errors import InputError
from segctl.evaluate.scores_record import read_scores
from segctl.files import file_sha256
from segctl.metrics.scores import RULES
from segctl.models import SavedModel
from segctl.programs import ProgramFacts
from segctl.runs import HUB, MODEL_FILE, RunFolder
from segctl.schema.run import TrainRun, method_in_words
from segctl.schema.terms.formula import total_loss

CARD_SCORES = ("mIoU_D", "mIoU_I", "mIoU_C", "Acc")
"""The scores in the card's table."""
EXPLAINED = ("unit", "valid pixel", "IoU, Acc, Dice of a class", *CARD_SCORES)
"""The rules that a card prints. Those of the four scores say what each averages over."""


@dataclass(frozen=True)
class CardScores:
    """An evaluation for the card. of: the file that was scored.  split: as in the folder's name, without the file's."""

    of: str
    split: str
    scores: dict[str, Any]


@dataclass(frozen=True)
class CardFile:
    """A file of the repository. facts: of an exported file."""

    name: str
    bytes: int
    facts: ProgramFacts | None = None


def card_scores(run: RunFolder, exports: Sequence[Path]) -> list[CardScores]:
    """The evaluations of the run's weights and of its exported files, the network's own first.

    Evaluations of other weights, such as those of a run that was extended since, are left out.  Raises InputError for a damaged
    scores.json.
    """
    hashes = {path.name: file_sha256(path) for path in (run.model, *exports)}
    found, usual = [], run.read_run().data.val_split
    for path in sorted(run.path.glob("eval/*/scores.json")):
        scores = read_scores(path)
        about = scores.get("about", {})
        of = about.get("program") or run.model.name
        if about.get("weights_sha256") == hashes.get(of):
            split = path.parent.name.replace(f"@{of}", "", 1)
            found.append(CardScores(MODEL_FILE if of == run.model.name else of, split, scores))
    return sorted(found, key=lambda one: (one.of != MODEL_FILE, one.split != usual, one.of, one.split))


def model_card(
    name: str, run: RunFolder, saved: SavedModel, files: Sequence[CardFile], scores: Sequence[CardScores], licence: str | None
) -> str:
    """The card of a repository `ORG/NAME` in Markdown.

    licence: of the weights, as the hub names it, such as `mit`; None: unstated.
    Raises InputError for a damaged environment.json.
    """
    spec, environment = run.read_run(), run.read_environment()
    parts = [
        _front(name, spec, scores, licence),
        f"# {name.partition('/')[2]}",
        _about(spec, saved, environment),
        _use(name, files, saved.pixels),
        _scores(scores),
        _classes(saved, scores),
        _files(files),
        _training(spec, environment),
        _licences(spec, environment, licence),
        f"Written by segctl {__version__}.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front(name: str, spec: TrainRun, scores: Sequence[CardScores], licence: str | None) -> str:
    front: dict[str, Any] = {"library_name": "segctl", "pipeline_tag": "image-segmentation"}
    if licence is not None:
        front["license"] = licence
    front["tags"] = ["segctl", "semantic-segmentation", spec.data.dataset, spec.model.backbone, spec.model.head]
    if scores:
        first = scores[0]
        front["model-index"] = [
            {
                "name": name.partition("/")[2],
                "results": [
                    {
                        "task": {"type": "image-segmentation", "name": "Semantic segmentation"},
                        "dataset": {"name": spec.data.dataset, "type": spec.data.dataset, "split": first.split},
                        "metrics": [
                            {"name": kind, "type": "mean_iou", "value": round(first.scores[kind], 2)}
                            for kind in CARD_SCORES[:3]
                            if first.scores.get(kind) is not None
                        ],
                    }
                ],
            }
        ]
    return f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---"


def _about(spec: TrainRun, saved: SavedModel, environment: dict[str, Any]) -> str:
    cost = environment.get("cost") or {}
    priced = ""
    if cost:
        height, width = cost["size"]
        priced = (
            f" It has {cost['parameters'] / 1e6:.2f} M parameters and takes {cost['gflop']:.1f} GFLOP (multiply-adds × 2) for an "
            f"image of {height}×{width}."
        )
    return (
        f"Semantic segmentation of {spec.data.dataset} in {len(saved.class_names)} classes: {spec.model.head} on "
        f"{spec.model.backbone} at output stride {spec.model.output_stride}.{priced}"
    )


def _use(repository: str, files: Sequence[CardFile], pixels: dict[str, Any] | None) -> str:
    """pixels: how the bands of picture files become those of images; None for 8-bit colour."""
    picture = "photo.jpg" if pixels is None else "bands.tif"
    text = f"""## Use

```python
import segctl  # pip install segctl

net = segctl.load("{HUB}{repository}")
labels = net.predict("{picture}")  # uint8 (H, W): the class of each pixel, by the ids below
labels.overlay().save("overlay.png")
```"""
    if pixels is not None:
        text += f"\n\nIts {BandScaling.model_validate(pixels).in_words()}."
    programs = [
        (facts, file.name)
        for file in files
        if (facts := file.facts) and file.name.endswith(".onnx") and facts.size is None and facts.output == "labels"
    ]
    if not programs:
        return text
    # If there are several, the one that computes as the run does.
    facts, path = min(programs, key=lambda program: program[0].int8 + program[0].fp16)
    folder, _, file = path.rpartition("/")
    reader, opening = "\nfrom PIL import Image", 'np.asarray(Image.open("photo.jpg").convert("RGB"))'
    if pixels is not None:
        reader, opening = "", f'np.load("bands.npy")  # {facts.input} (H, W, {facts.bands})'
    return f"""{text}

Without segctl and torch:

```python
import numpy as np
import onnxruntime
from huggingface_hub import hf_hub_download{reader}

session = onnxruntime.InferenceSession(hf_hub_download("{repository}", "{file}", subfolder="{folder}"))
picture = {opening}
labels = session.run(None, {{"images": picture[None]}})[0][0]  # uint8 (H, W)
```"""


def _scores(scores: Sequence[CardScores]) -> str:
    if not scores:
        return "## Scores\n\nThis network was not evaluated."
    rows = [
        [f"`{one.of}`", one.split, f"{one.scores['about'].get('images', 0):,}", str(one.scores["about"].get("protocol") or "n/a")]
        + [_with_interval(one.scores, name) for name in CARD_SCORES]
        for one in scores
    ]
    rules = {rule.term: rule.text for rule in RULES}
    text = ["## Scores", _table(("file", "split", "images", "protocol", *CARD_SCORES), rows)]
    method = next((one.scores["intervals_method"] for one in scores if one.scores.get("intervals_method")), None)
    warning = next((one.scores["intervals_warning"] for one in scores if one.scores.get("intervals_warning")), None)
    if method:
        text.append(f"In brackets: {method}." + (f" {warning[0].upper()}{warning[1:]}." if warning else ""))
    text.append("\n".join(f"- **{term}**: {rules[term]}" for term in EXPLAINED))
    return "\n\n".join(text)


def _with_interval(scores: dict[str, Any], name: str) -> str:
    value, ends = scores.get(name), (scores.get("intervals") or {}).get(name)
    if value is None:
        return "n/a"
    return f"{value:.2f}" + ("" if ends is None else f" [{ends[0]:.2f}, {ends[1]:.2f}]")


def _classes(saved: SavedModel, scores: Sequence[CardScores]) -> str:
    ious = {row["class"]: row.get("IoU_D") for row in scores[0].scores.get("per_class", [])} if scores else {}
    rows = [
        [f"{index}", name, "n/a" if ious.get(name) is None else f"{ious[name]:.2f}"]
        for index, name in enumerate(saved.class_names)
    ]
    return "## Classes\n\n" + _table(("id", "class", f"IoU_D on {scores[0].split}" if scores else "IoU_D"), rows)


def _files(files: Sequence[CardFile]) -> str:
    return "## Files\n\n" + _table(
        ("file", "MB", "what it is"), [[f"`{file.name}`", f"{file.bytes / 1e6:.2f}", _what(file)] for file in files]
    )


def _what(file: CardFile) -> str:
    if file.facts is None:
        return {MODEL_FILE: "the weights, with the run and its classes in the header", "run.yaml": "the run's settings"}.get(
            file.name, "weights of the .xml of this name"
        )
    kind = "int8, " if file.facts.int8 else "float16, " if file.facts.fp16 else ""
    return f"{kind}{file.facts.takes} → {file.facts.output}"


def _training(spec: TrainRun, environment: dict[str, Any]) -> str:
    method = method_in_words(spec)
    teacher = environment.get("teacher") or {}
    data = environment.get("dataset") or {}
    rows = [
        ["data", f"{spec.data.dataset}, split {spec.data.train_split}, crops of {spec.data.crop[0]}×{spec.data.crop[1]}"],
        ["fingerprint of the data", f"`{data['fingerprint']}`" if data.get("fingerprint") else "unknown"],
        ["method", "supervised, without a teacher" if method == "none" else f"distillation: {method}"],
        ["teacher", _teacher(teacher)],
        ["first weights", _name_alone(str(environment.get("initial_weights") or spec.model.weights))],
        ["steps × batch", f"{spec.train.steps:,} × {spec.train.batch_size}, seed {spec.train.seed}"],
        ["preset", f"`{spec.name}`, recipe {spec.recipe}; `run.yaml` has every setting"],
        ["made with", f"segctl {environment.get('segctl', 'unknown')}, torch {environment.get('torch', 'unknown')}"],
    ]
    return "## Training\n\n" + _table(("", ""), rows) + f"\n\n```\n{total_loss(spec)}\n```"


def _teacher(teacher: dict[str, Any]) -> str:
    if not teacher:
        return "none"
    if members := teacher.get("members"):
        each = "; ".join(f"{member.get('weight', 1):g} × {_teacher(member)}" for member in members)
        return f"the mean of {len(members)} networks' probabilities: {each}"
    score = (teacher.get("scores") or {}).get("mIoU_D")
    known = f", sha256 `{teacher['sha256']}`"
    if score is not None:
        known += f", mIoU_D {score:.2f} on {teacher.get('images')} images"
    return f"{teacher.get('preset')} (`{_name_alone(teacher['run'])}`){known}"


def _name_alone(text: str) -> str:
    """A path without its folders, which are those of one machine; a name on the hub as it is."""
    if text.startswith(HUB) or not (Path(text).is_absolute() or text.startswith(("~", "."))):
        return text
    path = Path(text)
    return path.parent.name if path.name in (MODEL_FILE, "model.pt") else path.name


def _licences(spec: TrainRun, environment: dict[str, Any], licence: str | None) -> str:
    known = KNOWN.get(spec.data.dataset)
    terms = f"the terms of its publisher hold ({known.origin})" if known else "its author sets the terms"
    if spec.data.dataset == "shapes":
        terms = "drawn by segctl, without terms"
    lines = [
        f"- Weights: {licence or 'the author states no licence'}.",
        f"- Data ({spec.data.dataset}): {terms}.",
        "- segctl, which reads them: MIT.",
    ]
    if environment.get("initial_weights") not in (None, "none", "random"):
        own = environment.get("initial_weights_license")
        lines.insert(2, f"- The first weights: {own}." if own else "- The first weights have terms of their own.")
    if (environment.get("teacher") or {}).get("license"):
        lines.insert(-1, f"- The teacher's weights: {environment['teacher']['license']}.")
    return "## Licences\n\n" + "\n".join(lines)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return "\n".join([line(columns), line(["---"] * len(columns)), *map(line, rows)])


def require_repository(target: str) -> str:
    """`hf:ORG/NAME` -> `ORG/NAME`. Raises InputError."""
    name = target.removeprefix(HUB)
    parts = name.split("/")
    if not target.startswith(HUB) or len(parts) != 2 or not all(_is_name(part) for part in parts):
        raise InputError(f"got '{target}', wanted the name of a repository", f"for example {HUB}your-name/camvid-tiny")
    return name


def _is_name(text: str) -> bool:
    """Whether the hub takes a name: letters, digits, `-`, `_` and `.`, of which the last three neither begin nor end it."""
    body = text.replace("-", "").replace("_", "").replace(".", "")
    doubled = "--" in text or ".." in text
    return (
        0 < len(text) <= 96 and body.isascii() and body.isalnum() and text[0] not in "-." and text[-1] not in "-." and not doubled
    )
