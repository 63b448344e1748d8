# ruff: noqa: E501 (rows of the tables of inputs)
"""Bad inputs for every command: a small world that is sound, and one change to it, or one wrong option, per case.

    world       data/camvid, runs/toy (finished), runs/half (to resume), presets, pictures, labels, predictions, a class table
    Bad         one case: what is made wrong in a copy of the world, the command, and the exit codes that are right

Random changes have fixed seeds, so that every run of the tests tries the same inputs.
"""

import importlib
import io
import json
import os
import pkgutil
import random
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import toy
import yaml
from PIL import Image

import segctl

Make = Callable[[Path], object]
REFUSED = frozenset({2})
FOUND = frozenset({2, 3})
MAYBE = frozenset({0, 2, 3})
"""For random damage: it may hit what nothing reads."""


@dataclass(frozen=True)
class Bad:
    """One case. `arguments` are the command line, in a folder that `make` has changed; `codes` the right exit codes."""

    group: str
    name: str
    arguments: tuple[str, ...]
    make: Make = lambda folder: None
    codes: frozenset[int] = REFUSED
    left: str = ""
    """A folder in which a command that fails may leave what it has finished."""


# The world


def make_world(folder: Path) -> None:
    """Everything that a command can be given, sound and small. It computes, so it belongs into a process of its own."""
    from segctl.cli import main

    root = toy.pack_camvid(folder)
    toy.write_preset(folder / "toy.yaml", train={"steps": 4})
    toy.write_preset(folder / "student.yaml", toy.STUDENT, train={"steps": 4})
    assert main(["train", "--preset", str(folder / "toy.yaml"), "--run", str(folder / "runs" / "toy"), *_roots(folder)]) == 0
    assert main(["eval", str(folder / "runs" / "toy"), "--data-root", str(root)]) == 0
    half = folder / "runs" / "half"
    shutil.copytree(folder / "runs" / "toy", half, ignore=shutil.ignore_patterns("model.safetensors", "eval"))
    published = folder / "source"
    for given, ours in (("train", "pictures"), ("trainannot", "labels"), ("valannot", "gt"), ("valannot", "pred")):
        (folder / ours).mkdir()
        for path in sorted((published / given).iterdir())[:4]:
            shutil.copy(path, folder / ours / path.name)
    for module in pkgutil.walk_packages(segctl.__path__, "segctl."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    (folder / "modules.txt").write_text("\n".join(sys.modules), encoding="utf-8")
    rows = [f"class{number},{number},{number},0,{number},no" for number in range(toy.CLASSES)]
    (folder / "classes.csv").write_text("\n".join(["name,id,r,g,b,ignored", *rows, "void,11,0,0,255,yes", ""]))


def _roots(folder: Path) -> list[str]:
    return ["--data-root", str(folder / "data"), "--runs-root", str(folder / "runs")]


def copy_world(world: Path, folder: Path) -> None:
    """A copy for one case. The large files are linked: cases replace files, and segctl writes files whole."""
    shutil.copytree(
        world, folder, copy_function=lambda a, b: os.link(a, b) if a.endswith((".pt", ".h5", ".png")) else shutil.copy(a, b)
    )


def put(path: Path, content: bytes | str) -> None:
    """Replace a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


# Commands, as far as they are sound

OWN = [
    "data",
    "prepare",
    "own",
    "--images",
    "pictures",
    "--labels",
    "labels",
    "--classes",
    "classes.csv",
    "--split",
    "val=0.5",
    "--workers",
    "0",
]
TRAIN = ["train", "--preset", "toy.yaml"]
DISTILL = ["distill", "--preset", "student.yaml", "--teacher", "runs/toy"]
COMPARE = ["compare", "--preset", "student.yaml", "--methods", "kd", "--seeds", "1", "--teacher", "runs/toy"]
FILES = ["eval", "--pred", "pred", "--gt", "gt", "--num-classes", "12"]
PREDICT = ["predict", "runs/toy", "pictures", "-o", "masks"]
RESUME = ["train", "--resume", "--run", "runs/half"]


def replaced(command: list[str], option: str, value: str) -> tuple[str, ...]:
    """The command with another value of one option."""
    at = command.index(option)
    return (*command[: at + 1], value, *command[at + 2 :])


# Paths

BAD_PATHS: dict[str, tuple[str, Make]] = {
    "missing": ("nowhere/at all", lambda folder: None),
    "an empty folder": ("hollow", lambda folder: (folder / "hollow").mkdir()),
    "a text file": ("text.bin", lambda folder: put(folder / "text.bin", "not what you want\n" * 9)),
    "an empty file": ("empty.yaml", lambda folder: put(folder / "empty.yaml", "")),
    "a long name": ("x" * 300, lambda folder: None),
    "a loop of links": ("loop", lambda folder: (folder / "loop").symlink_to("loop")),
    "a pipe": ("pipe", lambda folder: os.mkfifo(folder / "pipe")),
    "an endless device": ("zero", lambda folder: (folder / "zero").symlink_to("/dev/zero")),
    "a name that is not UTF-8": (os.fsdecode(b"caf\xe9"), lambda folder: put(folder / os.fsdecode(b"caf\xe9"), "text")),
    "a folder of such a name": ("odd", lambda folder: put(folder / "odd" / os.fsdecode(b"caf\xe9.png"), "text")),
    "an empty argument": ("", lambda folder: None),
}

PATH_OPTIONS: dict[str, tuple[str, ...]] = {
    "data prepare --source": ("data", "prepare", "camvid", "--workers", "0", "--source", "{}"),
    "data prepare --source of voc": ("data", "prepare", "voc2012", "--workers", "0", "--source", "{}"),
    "data prepare --check --source": ("data", "prepare", "camvid", "--check", "--source", "{}"),
    "data prepare --images": replaced(OWN, "--images", "{}"),
    "data prepare --labels": replaced(OWN, "--labels", "{}"),
    "data prepare --classes": replaced(OWN, "--classes", "{}"),
    "data prepare --split": replaced(OWN, "--split", "val={}"),
    "data prepare --data-root": (*OWN, "--data-root", "{}"),
    "data list --data-root": ("data", "list", "--data-root", "{}"),
    "data check --data-root": ("data", "check", "camvid", "--data-root", "{}"),
    "data info --data-root": ("data", "info", "camvid", "--data-root", "{}"),
    "data preview --output": ("data", "preview", "camvid", "-o", "{}"),
    "data bench --source": ("data", "bench", "camvid", "--samples", "1", "--workers", "1", "--source", "{}"),
    "presets show": ("presets", "show", "{}"),
    "presets check": ("presets", "check", "{}"),
    "train --preset": ("train", "--preset", "{}"),
    "train --data-root": (*TRAIN, "--data-root", "{}"),
    "train --run --resume": ("train", "--resume", "--run", "{}"),
    "train --run": (*TRAIN, "--run", "{}"),
    "train --runs-root": (*TRAIN, "--runs-root", "{}"),
    "train --set model.weights": (*TRAIN, "--set", "model.weights={}"),
    "distill --preset": replaced(DISTILL, "--preset", "{}"),
    "distill --teacher": replaced(DISTILL, "--teacher", "{}"),
    "distill --teacher-preset": (*DISTILL, "--teacher-preset", "{}"),
    "distill --data-root": (*DISTILL, "--data-root", "{}"),
    "compare --preset": replaced(COMPARE, "--preset", "{}"),
    "compare --teacher": replaced(COMPARE, "--teacher", "{}"),
    "compare --data-root": (*COMPARE, "--data-root", "{}"),
    "eval RUN": ("eval", "{}"),
    "eval --data-root": ("eval", "runs/toy", "--data-root", "{}"),
    "eval --pred": replaced(FILES, "--pred", "{}"),
    "eval --gt": replaced(FILES, "--gt", "{}"),
    "eval --classes": ("eval", "--pred", "pred", "--gt", "gt", "--classes", "{}"),
    "eval --output": (*FILES, "-o", "{}"),
    "eval --counts": ("eval", "--counts", "{}"),
    "predict RUN": ("predict", "{}", "pictures", "-o", "masks"),
    "predict IMAGES": ("predict", "runs/toy", "{}", "-o", "masks"),
    "predict --output": replaced(PREDICT, "-o", "{}"),
    "report RUNS": ("report", "{}"),
    "report --runs-root": ("report", "--runs-root", "{}"),
    "report --output": ("report", "runs/toy", "-o", "{}"),
    "demo DIR": ("demo", "{}", "--steps", "0"),
}


def path_cases() -> Iterator[Bad]:
    for option, arguments in PATH_OPTIONS.items():
        for kind, (path, make) in BAD_PATHS.items():
            yield Bad(
                f"paths of {option.split(' ')[0]}", f"{option}: {kind}", tuple(a.replace("{}", path) for a in arguments), make
            )


# Options

NUMBERS = ["-1", "nan", "inf", "1e20", "", "abc"]
WORDS = ["", "abc", "nan", "../x", "\x1b[31m"]
NUMBER_OPTIONS: dict[str, tuple[tuple[str, ...], str]] = {
    "data prepare": (tuple(OWN), "--split-seed --limit --workers"),
    "data bench": (("data", "bench", "camvid"), "--samples --workers"),
    "train": (tuple(TRAIN), "--steps --seed --processes --extend-to"),
    "distill": (tuple(DISTILL), "--steps --seed --processes --extend-to"),
    "compare": (tuple(COMPARE), "--seeds --steps"),
    "eval": (("eval", "runs/toy"), "--batch --stride --scales --tile --processes"),
    "eval --pred": (tuple(FILES), "--num-classes --ignore --workers"),
    "eval --min": (tuple(FILES), "--min"),
    "predict": (tuple(PREDICT), "--stride --scales --tile"),
    "demo": (("demo", "show"), "--steps"),
}
WORD_OPTIONS: dict[str, tuple[tuple[str, ...], str]] = {
    "data prepare": (tuple(OWN), "--codec --split --format --unannotated --label-suffix"),
    "data prepare camvid": (("data", "prepare", "camvid"), "--release"),
    "data bench": (("data", "bench", "camvid"), "--split"),
    "data preview": (("data", "preview", "camvid"), "--split"),
    "data info": (("data", "info", "camvid"), "--split"),
    "train": (tuple(TRAIN), "--device --set"),
    "distill": (tuple(DISTILL), "--method --device --set"),
    "compare": (tuple(COMPARE), "--methods --devices --set"),
    "eval": (("eval", "runs/toy"), "--split --protocol --precision --device --min"),
    "eval --pred": (tuple(FILES), "--resize --min"),
    "predict": (tuple(PREDICT), "--protocol --precision --device"),
    "report": (("report", "runs/toy"), "--split"),
}
LONE = {
    "min with nan": ("eval", "--pred", "pred", "--gt", "gt", "--num-classes", "12", "--min", "mIoU_D=nan"),
    "min with 1e20": ("eval", "--pred", "pred", "--gt", "gt", "--num-classes", "12", "--min", "mIoU_D=1e20"),
    "device with a number": ("eval", "runs/toy", "--device", "cpu:7"),
    "device that is not here": ("eval", "runs/toy", "--device", "cuda:99"),
    "a huge crop": ("data", "bench", "camvid", "--crop", "999999", "999999"),
    "a huge tile": ("eval", "runs/toy", "--tile", "99999999x99999999"),
    "a tile of nothing": ("eval", "runs/toy", "--tile", "0x0"),
    "stride above one": ("eval", "runs/toy", "--stride", "1.5"),
    "no scales": ("eval", "runs/toy", "--scales", ","),
    "a scale of zero": ("eval", "runs/toy", "--scales", "0"),
    "scales of nan": ("predict", "runs/toy", "pictures", "-o", "masks", "--scales", "1,nan"),
    "ratios above one": (*OWN[:-4], "--split", "val=1.5", "--workers", "0"),
    "a ratio of nan": (*OWN[:-4], "--split", "val=nan", "--workers", "0"),
    "a limit of nothing": (*OWN, "--limit", "0"),
    "two forms of eval": ("eval", "runs/toy", "--pred", "pred", "--gt", "gt"),
    "pred alone": ("eval", "--pred", "pred"),
    "nothing to score": ("eval",),
    "counts and a run": ("eval", "runs/toy", "--counts", "runs/toy/eval/val/counts.npz"),
    "resume without a run": ("train", "--resume"),
    "extend without a run": (*TRAIN, "--extend-to", "9"),
    "unknown command": ("trane",),
    "unknown option": ("train", "--prest", "toy.yaml"),
    "unknown dataset": ("data", "prepare", "nowhere", "--source", "source"),
    "dataset that climbs": ("data", "prepare", "../up", *OWN[3:]),
    "dataset that Windows reserves": ("data", "prepare", "con", *OWN[3:]),
    "dataset of nothing": ("data", "prepare", "", *OWN[3:]),
    "own files for a known dataset": ("data", "prepare", "camvid", *OWN[3:]),
    "unknown dataset to check": ("data", "check", "\x1b[2J"),
    "unknown dataset to preview": ("data", "preview", "nowhere"),
}


def option_cases() -> Iterator[Bad]:
    for table, values in ((NUMBER_OPTIONS, NUMBERS), (WORD_OPTIONS, WORDS)):
        for command, (arguments, options) in table.items():
            for option in options.split():
                for value in values:
                    yield Bad("options", f"{command} {option} {value!r}", (*arguments, option, value))
    for name, arguments in LONE.items():
        yield Bad("options", name, arguments)


# Presets and --set

SETTINGS = """
train.steps=0|train.steps=-1|train.steps=nan|train.steps=1e99|train.steps=yes|train.steps=null|train.steps=[]|train.steps={}
train.steps=1:30|train.steps=1_000|train.steps=0x10|train.steps=2026-01-01|train.batch_size=0|train.batch_size=1.5
train.batch_size=true|train.precision=fp7|train.precision=16|train.seed=-1|train.seed=1e20|train.validate_every=0
train.checkpoint_every=-3|train.clip_norm=-1|train.clip_norm=.nan|train.clip_norm=.inf|optim.lr=-1|optim.lr=.nan|optim.lr=.inf
optim.lr=fast|optim.lr=null|optim.lr=[1]|optim.kind=sdg|optim.kind=7|optim.kind=null|optim.weight_decay=-1|optim.momentum=2
data.crop=[]|data.crop=[0,0]|data.crop=[32]|data.crop=[32,48,64]|data.crop=32|data.crop=[-32,48]|data.crop=[999999,999999]
data.crop=[.nan,48]|data.scale=[2,1]|data.scale=[0,1]|data.scale=[.nan,1]|data.scale=[1,.inf]|data.flip=7
data.dataset=|data.dataset=../x|data.dataset=null|data.dataset=[camvid]|data.workers=-1|data.workers=1e9|model.head=pspnot
model.head=null|model.backbone=resnet9999|model.backbone=null|model.backbone=[]|model.width=0|model.width=-8|model.width=1e9
loss=[]|loss=null|loss=jdt|loss.0.weight=-1|loss.0.weight=.nan|loss.9.weight=1|loss.-1.weight=1|loss.0.kind=dice9|loss.x.kind=jdt
loss.2.smooth=.nan|name=|name=null|name=[]|name=a/b|name=../x|recipe=magic|nothing=1|train.nothing=1|train=1|train=null|=|=1|train.steps
train..steps=1|.train.steps=1|train.steps.=1|train.steps=[[[[|train.steps={a|train.steps=*a|train.steps=!!python/object:os.system x
train.steps=&a [*a]|train.steps=\t|train.steps="|train.steps=2026-13-45|train.steps=0001-01-01T00:00:00+99:99
"""


def settings() -> list[str]:
    lines = "|".join(SETTINGS.strip().splitlines()).split("|")
    return [*lines, "train.steps=" + "9" * 5000, "train.steps=" + "[" * 3000, "train.steps=" + "{a: " * 2000, "x." * 3000 + "y=1"]


LITERALS = [
    "null", "[]", "{}", "text", ".nan", ".inf", "-1", "true", "2026-13-45", "2026-01-01", "9" * 5000, "[" * 200 + "]" * 200,
    "{[a, b]: c}", "{? {a: b} : c}", "*nothing", "!!python/name:os.system ''", "!!binary x", "1e400", "'\\0'", "0x" + "f" * 4000,
    "\"\\ud800\"", "<<", "=", "!!timestamp 2026-99-99", "!!int ''", "!!float x",
]  # fmt: skip

PRESET_TEXTS: dict[str, bytes] = {
    "a list": b"- a\n- b\n",
    "a word": b"word\n",
    "a number": b"7\n",
    "null": b"null\n",
    "only a comment": b"# nothing\n",
    "a tab": b"train:\n\tsteps: 1\n",
    "not UTF-8": b"name: caf\xe9\n",
    "UTF-16 without a mark": "name: toy\n".encode("utf-16-le"),
    "zeros": bytes(500),
    "binary": bytes(range(256)) * 4,
    "deep lists": b"[" * 20000,
    "deep mappings": b"a: " + b"{a: " * 5000,
    "deep indentation": "\n".join(" " * depth + "a:" for depth in range(1500)).encode(),
    "a bomb of anchors": b"a: &a [x, x, x, x, x, x, x, x, x]\n"
    + b"".join(b"%c: &%c [%s]\n" % (c + 1, c + 1, b", ".join([b"*%c" % c] * 9)) for c in range(97, 106)),
    "an anchor of itself": b"name: &a {b: *a}\n",
    "the same key twice": b"name: a\nname: b\n",
    "two documents": b"name: a\n---\nname: b\n",
    "a list as key": b"? [a, b]\n: c\n",
    "a merge of a word": b"<<: word\n",
    "an unknown tag": b"name: !thing x\n",
    "a quote without end": b'name: "toy\n',
    "a long line": b"name: " + b"x" * 300_000 + b"\n",
    "numbers as keys": b"1: 2\n3: 4\n",
}


def preset_cases() -> Iterator[Bad]:
    commands = (("presets", "check", "toy.yaml"), ("presets", "show", "toy.yaml"), tuple(TRAIN))
    for number, setting in enumerate(settings()):
        yield Bad("presets", f"--set {setting[:40]!r} {number}", (*commands[number % 3], "--set", setting))
    draw = random.Random(1)
    for path in _leaves(toy.toy_run(toy.STUDENT).model_dump(mode="json")):
        for literal in draw.sample(LITERALS, 2):
            yield Bad(
                "presets",
                f"{'.'.join(map(str, path))}: {literal[:20]}",
                ("presets", "check", "student.yaml"),
                lambda folder, path=path, literal=literal: put(folder / "student.yaml", _with_literal(path, literal)),
                MAYBE,  # some of these words are sound values of some fields
            )
    for name, text in PRESET_TEXTS.items():
        for command in ("presets check toy.yaml", "train --preset toy.yaml", "presets show toy.yaml"):
            yield Bad(
                "presets",
                f"{command}: {name}",
                tuple(command.split()),
                lambda folder, text=text: put(folder / "toy.yaml", text),
            )


def _leaves(tree: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in pairs:
        yield (*path, key)
        yield from _leaves(value, (*path, key))


def _with_literal(path: tuple[str | int, ...], literal: str) -> str:
    tree = place = toy.toy_run(toy.STUDENT).model_dump(mode="json")
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = "PLACE"
    return yaml.safe_dump(tree).replace("PLACE", literal)


# Class tables

TABLES: dict[str, bytes | str] = {
    "a.csv": "", "b.csv": "\n\n", "c.csv": "name,id\n", "d.csv": "name,id\na,0\n", "e.csv": "name,id\na,0\na,1\n",
    "f.csv": "name,id\na,0\nb,0\n", "g.csv": "name,id\na,x\nb,1\n", "h.csv": "name,id\na,-1\nb,1\n", "i.csv": "name,id\na,nan\nb,1\n",
    "j.csv": "name,id\na," + "9" * 5000 + "\nb,1\n", "k.csv": "name,id\na,1.5\nb,1\n", "l.csv": "name,id\na,70000\nb,1\n",
    "m.csv": "id\n0\n1\n", "n.csv": "nom,id\na,0\nb,1\n", "o.csv": "name,color\na,red\nb,blue\n", "p.csv": "name,color\na,#ff\nb,#00\n",
    "q.csv": 'name,color\na,"1,2"\nb,"3,4"\n', "r.csv": 'name,color\na,"256,0,0"\nb,"0,0,0"\n', "s.csv": "name,r,g\na,0,0\nb,1,1\n",
    "t.csv": "name,id,ignored\na,0,maybe\nb,1,no\n", "u.csv": "name,id,ignored\na,0,yes\nb,1,yes\n", "v.csv": "name,id\n,0\n,1\n",
    "w.csv": b"name,id\n\x00,0\nb,1\n", "x.csv": bytes(range(256)), "y.csv": "name,id\n" + "x" * 200_000 + ",0\nb,1\n",
    "z.csv": "name,id\n" + "".join(f"c{n},{n}\n" for n in range(70_000)), "aa.csv": 'name,id\n"a,0\nb,1\n', "ab.csv": "name,id,id\na,0,1\n",
    "a.yaml": "", "b.yaml": "null", "c.yaml": "7", "d.yaml": "classes: null", "e.yaml": "classes: {}", "f.yaml": "classes: [1, 2]",
    "g.yaml": "classes: [[a], [b]]", "h.yaml": "- {name: null}\n- {name: b}\n", "i.yaml": "- {name: [a]}\n- {name: b}\n",
    "j.yaml": "- {name: a, id: {}}\n- {name: b, id: 1}\n", "k.yaml": "- {name: a, id: .nan}\n- {name: b, id: 1}\n",
    "l.yaml": "- {name: a, id: 2026-13-45}\n- {name: b, id: 1}\n", "m.yaml": "- {name: a, color: [1, 2]}\n- {name: b, color: [1]}\n",
    "n.yaml": "- {name: a, color: [a, b, c]}\n- {name: b, color: {}}\n", "o.yaml": "binary: 7\nclasses: [a, b]\n",
    "p.yaml": "binary: true\nclasses: [a, b, c]\n", "q.yaml": "other: 1\nclasses: [a, b]\n", "r.yaml": "[" * 5000,
    "s.yaml": "? [a]\n: b\n", "t.yaml": "- {name: a, [x]: 1}\n- {name: b}\n", "u.yaml": "- {name: a, 1: 1}\n- {name: b, 2: 2}\n",
    "v.yaml": "- {name: a, id: " + "9" * 5000 + "}\n- {name: b, id: 1}\n", "w.yaml": b"- caf\xe9\n- \xff\n", "x.yaml": "- *a\n- b\n",
    "y.yaml": "- !!python/name:os.system\n- b\n", "z.yaml": "- {name: a, ignored: 7}\n- {name: b}\n", "aa.yaml": "- {name: true}\n- {name: 1.5}\n",
    "a.txt": "", "b.txt": "one\n", "c.txt": "a\na\n", "d.txt": bytes(range(256)), "e.txt": "x" * 100_000 + "\nb\n",
}  # fmt: skip


def table_cases() -> Iterator[Bad]:
    for name, text in TABLES.items():
        for command in (replaced(OWN, "--classes", name), ("eval", "--pred", "pred", "--gt", "gt", "--classes", name)):
            yield Bad("class tables", f"{command[0]} {name}", command, lambda folder, n=name, t=text: put(folder / n, t))


# Pictures


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def bad_pictures() -> Iterator[tuple[str, str, bytes, frozenset[int]]]:
    """Name, ending, bytes and right exit codes of pictures that stand in place of a sound one."""
    noise = np.random.default_rng(2).integers(0, 256, (toy.HEIGHT, toy.WIDTH, 3), np.uint8)
    image = Image.fromarray(noise)
    png, jpeg = _encoded(image, "PNG"), _encoded(image, "JPEG")
    for ending, sound in ((".png", png), (".jpg", jpeg)):
        for part in (0, 1, 8, 40, len(sound) // 2, len(sound) - 13):
            yield (
                f"{ending} cut at {part}",
                ending,
                sound[:part],
                MAYBE if (ending == ".jpg" and part > 40) or part > len(sound) - 20 else REFUSED,
            )
        for seed in range(6):
            yield f"{ending} flipped {seed}", ending, flipped(sound, seed), MAYBE
    yield "text", ".png", b"a picture, honestly\n", REFUSED
    yield "a huge header", ".png", png[:16] + b"\x7f\xff\xff\xff" * 2 + png[24:], REFUSED
    yield "a page", ".png", b"<svg xmlns='http://www.w3.org/2000/svg'/>", REFUSED
    grey = image.convert("L")
    for mode in ("1", "L", "LA", "P", "RGBA", "I;16"):
        yield (
            f"mode {mode}",
            ".png",
            _encoded(Image.fromarray(noise[..., 0].astype(np.uint16) * 255) if mode == "I;16" else image.convert(mode), "PNG"),
            MAYBE,
        )
    yield "mode F", ".tif", _encoded(grey.convert("F"), "TIFF"), MAYBE
    yield "mode CMYK", ".jpg", _encoded(image.convert("CMYK"), "JPEG"), MAYBE
    for kind, ending in (("TIFF", ".tif"), ("GIF", ".gif"), ("PNG", ".png"), ("WEBP", ".webp")):
        pages = _encoded(image, kind, save_all=True, append_images=[image.rotate(90), grey.convert("RGB")])
        yield f"many pages {kind}", ending, pages, MAYBE
        yield f"many pages {kind}, cut", ending, pages[: len(pages) // 2], MAYBE
    yield "one pixel", ".png", _encoded(image.resize((1, 1)), "PNG"), MAYBE
    yield "EXIF of rubbish", ".jpg", _encoded(image, "JPEG", exif=b"Exif\0\0MM\0*" + bytes(range(250))), MAYBE


PICTURE_PLACES = {
    "prepare images": (tuple(OWN), "pictures"),
    "prepare labels": (tuple(OWN), "labels"),
    "check labels": ((*OWN, "--check"), "labels"),
    "eval predictions": (tuple(FILES), "pred"),
    "eval truths": (tuple(FILES), "gt"),
    "predict": (tuple(PREDICT), "pictures"),
}


def picture_cases() -> Iterator[Bad]:
    for place, (command, folder_name) in PICTURE_PLACES.items():
        for name, ending, content, codes in bad_pictures():
            codes = FOUND if codes == REFUSED else codes
            left = "masks" if place == "predict" else ""  # the other pictures keep their masks, and the message says so
            yield Bad("pictures", f"{place}: {name}", command, _picture(folder_name, ending, content), codes, left)


def _picture(folder_name: str, ending: str, content: bytes) -> Make:
    def make(folder: Path) -> None:
        first = min((folder / folder_name).iterdir())
        first.unlink()
        put(first.with_suffix(ending), content)

    return make


def flipped(content: bytes, seed: int, count: int = 3) -> bytes:
    """Some bits flipped, at places that the seed draws."""
    draw, changed = random.Random(seed), bytearray(content)
    for _ in range(count):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


# Archives


def _zipped(folder: Path, extra: Callable[[zipfile.ZipFile], object] = lambda archive: None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, path.name)
        extra(archive)
    return buffer.getvalue()


def _tarred(folder: Path, kind: str = "", extra: tarfile.TarInfo | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{kind}") as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, path.name)
        if extra is not None:
            archive.addfile(extra)
    return buffer.getvalue()


def _linked(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def _patched(content: bytes, at: int, value: int, header: bytes) -> bytes:
    """Two bytes of every header of a zip changed."""
    changed, found = bytearray(content), content.find(header)
    while found >= 0:
        changed[found + at : found + at + 2] = value.to_bytes(2, "little")
        found = content.find(header, found + 4)
    return bytes(changed)


CENTRAL, LOCAL = b"PK\x01\x02", b"PK\x03\x04"
ARCHIVES: dict[str, tuple[str, Callable[[Path], bytes], frozenset[int]]] = {
    **{f"zip cut at {part}": (".zip", lambda f, p=part: _zipped(f)[: len(_zipped(f)) * p // 8], REFUSED) for part in range(8)},
    **{f"zip flipped {seed}": (".zip", lambda f, s=seed: flipped(_zipped(f), s), MAYBE) for seed in range(14)},
    **{f"tar cut at {part}": (".tar", lambda f, p=part: _tarred(f)[: 4000 * p + 700], REFUSED) for part in range(3)},
    **{f"tar flipped {seed}": (".tar", lambda f, s=seed: flipped(_tarred(f), s, 8), MAYBE) for seed in range(10)},
    **{f"tgz cut at {part}": (".tgz", lambda f, p=part: _tarred(f, "gz")[: 3000 * p], REFUSED) for part in range(4)},
    **{f"tgz flipped {seed}": (".tgz", lambda f, s=seed: flipped(_tarred(f, "gz"), s), MAYBE) for seed in range(8)},
    **{f"txz flipped {seed}": (".txz", lambda f, s=seed: flipped(_tarred(f, "xz"), s), MAYBE) for seed in range(4)},
    "zip of method 99": (".zip", lambda f: _patched(_patched(_zipped(f), 10, 99, CENTRAL), 8, 99, LOCAL), REFUSED),
    "zip of version 99": (".zip", lambda f: _patched(_zipped(f), 6, 99, CENTRAL), REFUSED),
    "zip encrypted": (".zip", lambda f: _patched(_patched(_zipped(f), 8, 1, CENTRAL), 6, 1, LOCAL), REFUSED),
    "zip whose flag lies": (".zip", lambda f: _patched(_zipped(f, lambda a: a.writestr("caf\xe9.txt", "")), 8, 0, CENTRAL), MAYBE),
    "zip that climbs": (".zip", lambda f: _zipped(f, lambda a: a.writestr("../../evil.png", "x")), MAYBE),
    "zip with a root path": (".zip", lambda f: _zipped(f, lambda a: a.writestr("/evil.png", "x")), MAYBE),
    "zip of one name twice": (".zip", lambda f: _zipped(f, lambda a: a.write(*[min(f.iterdir())] * 2)), MAYBE),
    "empty zip": (".zip", lambda f: b"PK\x05\x06" + bytes(18), REFUSED),
    "text as zip": (".zip", lambda f: b"not an archive", REFUSED),
    "text as tar": (".tar", lambda f: b"not an archive" * 99, REFUSED),
    "text as tgz": (".tgz", lambda f: b"not an archive" * 99, REFUSED),
    "zeros as tar": (".tar", lambda f: bytes(20480), REFUSED),
    "tar that climbs": (".tar", lambda f: _tarred(f, "", tarfile.TarInfo("../../evil.png")), MAYBE),
    "tar with a link out": (".tar", lambda f: _tarred(f, "", _linked("evil.png", "/etc/passwd")), MAYBE),
    "tar with a loop": (".tar", lambda f: _tarred(f, "", _linked("loop.png", "loop.png")), MAYBE),
    "tar with a hard link to nothing": (".tar", lambda f: _tarred(f, "", _linked("h.png", "no.png", tarfile.LNKTYPE)), MAYBE),
    "tar with a device": (".tar", lambda f: _tarred(f, "", _linked("zero.png", "", tarfile.CHRTYPE)), MAYBE),
    "tar with a pipe": (".tar", lambda f: _tarred(f, "", _linked("pipe.png", "", tarfile.FIFOTYPE)), MAYBE),
}  # fmt: skip


def archive_cases() -> Iterator[Bad]:
    for name, (ending, pack, codes) in ARCHIVES.items():
        for option, folder_name in (("--images", "pictures"), ("--labels", "labels")):
            yield Bad(
                "archives",
                f"{option}: {name}",
                replaced(OWN, option, f"packed{ending}"),
                lambda folder, pack=pack, ending=ending, inner=folder_name: put(folder / f"packed{ending}", pack(folder / inner)),
                codes,
            )
        yield Bad(
            "archives",
            f"--source: {name}",
            ("data", "prepare", "camvid", "--source", f"packed{ending}", "--workers", "0", "--data-root", "new"),
            lambda folder, pack=pack, ending=ending: put(folder / f"packed{ending}", pack(folder / "source")),
        )


# Files that segctl wrote

COUNTS = "runs/toy/eval/val/counts.npz"
OURS: dict[str, tuple[str, ...]] = {
    COUNTS: ("eval --counts " + COUNTS, "report runs/toy"),
    "runs/toy/eval/val/scores.json": ("report runs/toy",),
    "runs/toy/environment.json": ("report runs/toy", "eval runs/toy"),
    "runs/toy/log.jsonl": ("report runs/toy",),
    "runs/toy/run.yaml": ("report runs/toy", "eval runs/toy", "predict runs/toy pictures -o masks"),
    "runs/toy/model.safetensors": ("eval runs/toy", " ".join(DISTILL)),
    "runs/half/environment.json": (" ".join(RESUME),),
    "runs/half/log.jsonl": (" ".join(RESUME),),
    "runs/half/run.yaml": (" ".join(RESUME),),
    "runs/half/last.pt": (" ".join(RESUME),),
    "data/camvid/dataset.json": ("data check camvid", "data info camvid", "train --preset toy.yaml"),
    "data/camvid/camvid-00000-of-00001.h5": ("data check camvid", "data info camvid", "eval runs/toy"),
}
VALUES = [None, [], {}, "text", -1, 1e400, True, "x" * 9000]


def own_file_cases(world: Path) -> Iterator[Bad]:
    for name, commands in OURS.items():
        for what, content in _damaged(name, (world / name).read_bytes()):
            for command in commands:
                yield Bad(
                    f"written: {name}",
                    f"{command}: {Path(name).parent.name}/{Path(name).name} {what}",
                    tuple(command.split()),
                    lambda folder, name=name, content=content: put(folder / name, content),
                    # One broken run among others is named and left out, so that a report can be fine.
                    MAYBE,
                )


def _damaged(name: str, sound: bytes) -> Iterator[tuple[str, bytes]]:
    yield "empty", b""
    yield "cut", sound[: len(sound) // 2]
    yield "zeros", bytes(len(sound))
    yield "binary", bytes(range(256)) * 8
    for seed in range(2):
        yield f"flipped {seed}", flipped(sound, seed, 8)
    if not name.endswith((".json", ".jsonl", ".yaml")):
        yield "another zip", _another_zip()
        return
    deep = "[" * 20000
    for what, text in (("null", "null"), ("a list", "[]"), ("a number", "9" * 5000), ("deep", deep), ("a word", '"word"')):
        yield what, text.encode()
    yield "not UTF-8", sound.replace(b"a", b"\xe9", 3)
    if name.endswith(".yaml"):
        return
    lines = sound.decode().splitlines() if name.endswith(".jsonl") else [sound.decode()]
    draw = random.Random(len(name))
    for path in _sampled(draw, list(_leaves(json.loads(lines[0]))), 7):
        value = draw.choice(VALUES)
        tree = place = json.loads(lines[0])
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        yield f"{'.'.join(map(str, path))[:50]} {str(value)[:9]}", "\n".join([json.dumps(tree), *lines[1:], ""]).encode()


def _sampled(draw: random.Random, items: list[Any], count: int) -> list[Any]:
    return draw.sample(items, min(count, len(items)))


def _another_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("readme.txt", "nothing here")
    return buffer.getvalue()


def all_cases(world: Path) -> list[Bad]:
    """Every case; `world` is a sound world, for the files that segctl writes."""
    sources = (
        path_cases(),
        option_cases(),
        preset_cases(),
        table_cases(),
        picture_cases(),
        archive_cases(),
        own_file_cases(world),
    )
    return [case for source in sources for case in source]
