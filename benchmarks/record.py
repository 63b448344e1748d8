"""What every benchmark shares: figures as data, the lines it prints, and the file it keeps of them.

    python benchmarks/loader.py --save            # benchmarks/results/loader-2026-11-23.json
    python benchmarks/loader.py --save quiet      # benchmarks/results/loader-2026-11-23-quiet.json
    python benchmarks/record.py --table           # the newest result of each benchmark, as docs/benchmarks.md shows it
    python benchmarks/record.py --table camvid    # one of them

A result is one JSON file; `FIELDS` names what it holds. A fact that nobody knows is null, and `unknown` lists its name. A result
names no machine, person or folder: the words of the command that hold a path are written as PATH.
"""

import argparse
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from segctl.errors import InputError, SegctlError
from segctl.files import read_json, write_json
from segctl.runtime.cores import core_count

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"

FIELDS: dict[str, tuple[str, ...]] = {
    "benchmark": (),
    "about": (),
    "note": (),
    "date": (),
    "command": (),
    "settings": (),
    "commit": ("id", "dirty"),
    "versions": ("segctl", "python", "torch", "numpy", "opencv"),
    "machine": ("platform", "cpu", "cores", "threads", "memory_gib", "gpu"),
    "budget": ("rounds", "warm_up", "seeds", "stopping"),
    "unknown": (),
    "figures": (),
}
"""The fields of a result, and the fields within them.

benchmark   the script's name                     note      what --save was given, or null
about       one sentence: what is compared        date      of the measurement, UTC
command     what was typed                        settings  every argument with its value, defaults included
commit      of the working tree that was measured; dirty: the tree had changes that are not in the commit
machine     cores: those this process may use; memory_gib: those of its limit; gpu: null where there is none
budget      rounds that count, rounds before them that do not, seeds of the random numbers, and when the measurement stops
unknown     dotted names of the facts that are null because nobody knows them
"""

FIGURE = ("case", "rival", "value", "unit", "statistic", "spread", "ratio", "ratio_of", "ratio_spread", "more")


@dataclass(frozen=True)
class Figure:
    """One line of a result: what one rival needed in one case.

    value         in `unit`, the `statistic` of the rounds; null where only the spread is known
    spread        quartiles of the rounds, or null
    ratio         the median over the rounds of `ratio_of`, in which "this" is this rival; ratio_spread: its quartiles
    more          whatever else was measured, by a name that holds the unit
    """

    case: str
    rival: str
    value: float | None
    unit: str
    statistic: str = "median"
    spread: tuple[float, float] | None = None
    ratio: float | None = None
    ratio_of: str | None = None
    ratio_spread: tuple[float, float] | None = None
    more: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Budget:
    """How much was measured: rounds that count, rounds before them that do not, seeds, and when the measurement stops."""

    rounds: int | None
    warm_up: int | None
    seeds: list[int] | None
    stopping: str


def timed(
    case: str,
    rival: str,
    values: Sequence[float],
    unit: str,
    ratios: Sequence[float] | None = None,
    ratio_of: str | None = None,
    **more: Any,
) -> Figure:
    """The figure of a rival that was measured once a round.

    values and ratios hold one number a round. Both rivals of a ratio were measured in the same round, so that whatever else the
    machine did hits both of them.
    """
    middle, spread = _middle(values)
    ratio, ratio_spread = (None, None) if ratios is None else _middle(ratios)
    return Figure(case, rival, middle, unit, "median", spread, ratio, ratio_of, ratio_spread, more)


def left_out(case: str, rival: str, unit: str, reason: str) -> Figure:
    """The figure of a rival that cannot run here: no value, and why."""
    return Figure(case, rival, None, unit, more={"left out": reason})


def on_pretend_device() -> bool:
    """Whether the tests' pretend device stands in for a GPU in this process. It knows neither time nor memory nor kernels."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.cuda.is_available() and torch.cuda.get_device_name() == "Pretend GPU"


TRUE_ANYWHERE = ("first loss", "difference of value", "TFLOP a step", "left out")
"""What `more` may hold that does not depend on how fast or how large a device is."""


def _without_times(figure: Figure) -> Figure:
    """What the pretend device does tell: that it ran, and values."""
    kept = {name: value for name, value in figure.more.items() if name in TRUE_ANYWHERE}
    return Figure(figure.case, figure.rival, None, figure.unit, more=kept if "left out" in kept else {"ran": "untimed", **kept})


def _middle(values: Sequence[float]) -> tuple[float, tuple[float, float]]:
    low, middle, high = (float(f"{value:.5g}") for value in np.quantile(np.asarray(values, float), (0.25, 0.5, 0.75)))
    return middle, (low, high)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add --save and --results, which every benchmark has."""
    parser.add_argument("--save", nargs="?", const="", metavar="NOTE", help="save the result as JSON; NOTE ends its name")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of results; default: benchmarks/results")


def run(benchmark: str, about: str, arguments: argparse.Namespace, figures: Iterable[Figure], budget: Budget) -> None:
    """Measure, print each figure as soon as it is there, and save them all where --save asks for it.

    `figures` is a generator: nothing is measured before the result's name is known to be free. Wrong options and a name that is
    taken end the program with exit code 2.
    """
    path, date = None, f"{datetime.now(UTC):%Y-%m-%d}"
    if arguments.save is not None:
        if on_pretend_device():
            _refuse("--save: the pretend device measures nothing")
        path = arguments.results / f"{benchmark}-{date}{arguments.save and '-' + arguments.save}.json"
        if not re.fullmatch(r"[a-z0-9-]*", arguments.save):
            _refuse(f"--save {arguments.save}: a note has lower-case letters, digits and hyphens; give for example --save quiet")
        if path.exists():
            _refuse(f"{path.name} exists already, and results are kept; give another note, for example --save second")
    made = []
    for figure in figures:
        print(line(_without_times(figure) if on_pretend_device() else figure), flush=True)
        made.append(figure)
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {**describe(benchmark, about, arguments, made, budget), "date": date})
    print(f"saved {path.name}")


def _refuse(text: str) -> None:
    print(f"error: {text}", file=sys.stderr)
    raise SystemExit(2)


def describe(
    benchmark: str, about: str, arguments: argparse.Namespace, figures: Sequence[Figure], budget: Budget
) -> dict[str, Any]:
    """A result as `FIELDS` has it, with the facts of this machine, this commit and these packages."""
    settings = {name: value for name, value in vars(arguments).items() if name not in ("save", "results")}
    paths = {str(value) for value in vars(arguments).values() if isinstance(value, Path)}
    facts: dict[str, Any] = {"commit": _commit(), "versions": _versions(), "machine": _machine()}
    return {
        "benchmark": benchmark,
        "about": about,
        "note": arguments.save or None,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *(_nameless(one, paths) for one in sys.argv[1:])]),
        "settings": {name: _plain(value, paths) for name, value in settings.items()},
        **facts,
        "budget": asdict(budget),
        "unknown": [
            f"{group}.{name}"
            for group, found in facts.items()
            for name, value in found.items()
            if value is None and name != "gpu"
        ],
        "figures": [asdict(figure) for figure in figures],
    }


def _nameless(word: str, paths: set[str]) -> str:
    """The word, or PATH in the place of its part after `=` that holds a path."""
    head, equals, value = word.rpartition("=")
    return f"{head}{equals}PATH" if os.sep in value or value in paths else word


def _plain(value: Any, paths: set[str]) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(one, paths) for one in value]
    return _nameless(str(value), paths) if isinstance(value, str | Path) else value


def _commit() -> dict[str, Any]:
    """The commit of this checkout; a result that was saved before does not make the tree dirty."""

    def git(*words: str) -> str | None:
        try:
            found = subprocess.run(["git", *words], capture_output=True, text=True, timeout=10, check=False, cwd=FOLDER.parent)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return found.stdout.strip() if found.returncode == 0 else None

    changes = git("status", "--porcelain", "--", ".", ":!benchmarks/results")
    return {"id": git("rev-parse", "HEAD"), "dirty": None if changes is None else bool(changes)}


def _versions() -> dict[str, str]:
    import cv2
    import torch

    import segctl

    return {
        "segctl": segctl.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
    }


def _machine() -> dict[str, Any]:
    import torch

    return {
        "platform": f"{platform.system()} {platform.machine()}, {' '.join(platform.libc_ver()).strip() or 'libc unknown'}",
        "cpu": _cpu(),
        "cores": core_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": _memory_gib(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _cpu() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


def _memory_gib() -> float | None:
    """The machine's memory, or the container's limit where that is less."""
    try:
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError, AttributeError):
        return None
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8").strip()
    except OSError:
        limit = "max"
    return round(min(whole, int(limit) if limit.isdigit() else whole) / 2**30, 1)


def line(figure: Figure) -> str:
    """A figure as a benchmark prints it."""
    parts = [f"{figure.case:34} {figure.rival:20} {number(figure.value):>8} {figure.unit}{_between(figure.spread)}"]
    if figure.ratio is not None:
        parts.append(f"{number(figure.ratio)} = {figure.ratio_of}{_between(figure.ratio_spread)}")
    parts += [f"{name} {number(value)}" for name, value in figure.more.items()]
    return "   ".join(parts)


def number(value: Any) -> str:
    """Four digits; a dash for what is not known; lists with commas between their numbers."""
    if value is None:
        return "–"
    if isinstance(value, list | tuple):
        return ", ".join(number(one) for one in value)
    if isinstance(value, bool | str):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _between(spread: Sequence[float] | None) -> str:
    return "" if spread is None else f" ({number(spread[0])} to {number(spread[1])})"


def read_results(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """Every result of a folder. Raises InputError for one that is not JSON or lacks a field."""
    return [_checked(path) for path in sorted(folder.glob("*.json"))]


def _checked(path: Path) -> dict[str, Any]:
    found = read_json(path)
    missing = [name for name in FIELDS if name not in found]
    missing += [f"{group}.{name}" for group, names in FIELDS.items() for name in names if name not in found.get(group, {})]
    for index, figure in enumerate(found.get("figures", [])):
        missing += [f"figures[{index}].{name}" for name in FIGURE if name not in figure]
    if missing:
        raise InputError(f"{path.name} lacks {', '.join(missing)}; benchmarks/record.py names the fields of a result")
    result: dict[str, Any] = {**found, "file": path.name}
    return result


def newest(results: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The newest result of each benchmark and note, in the order of their names."""
    by_name = {}
    for result in sorted(results, key=lambda result: str(result["date"])):
        by_name[result["benchmark"], result["note"] or ""] = result
    return [by_name[name] for name in sorted(by_name)]


def page(results: Iterable[dict[str, Any]]) -> str:
    """The results as Markdown: for each a heading, where it was measured, and its table."""
    return "\n".join(f"### {_title(result)}\n\n{_facts(result)}\n\n{table(result)}\n" for result in results)


def _title(result: dict[str, Any]) -> str:
    return result["benchmark"] + (f", {result['note']}" if result["note"] else "")


def _facts(result: dict[str, Any]) -> str:
    machine, commit, torch = result["machine"], result["commit"], result["versions"]["torch"]
    where = [
        f"CPU {machine['cpu'] or 'unknown'}",
        f"{machine['cores']} cores",
        f"{number(machine['memory_gib'])} GiB",
        machine["gpu"] or "no GPU",
        "torch unknown" if torch is None else f"torch {torch}",
    ]
    tree = " with changes" if commit["dirty"] else ""
    words = [result["about"], f"Budget: {result['budget']['stopping'] or 'unknown'}."]
    if result["command"]:
        words.append(f"Command: `{result['command']}`.")
    words.append(
        f"Measured on {result['date']} at commit {commit['id'][:7] if commit['id'] else 'unknown'}{tree}: {', '.join(where)}."
    )
    return " ".join([*words, f"File: `benchmarks/results/{result['file']}`."])


def table(result: dict[str, Any]) -> str:
    """The figures of a result as a Markdown table; a column that would be empty is left out."""
    figures = result["figures"]
    more = list(dict.fromkeys(name for figure in figures for name in figure["more"]))
    kinds = {f"{figure['statistic']}, {figure['unit']}" for figure in figures}
    ratios = {figure["ratio_of"] for figure in figures} - {None}
    one_kind, one_ratio = len(kinds) == 1, len(ratios) == 1

    def value(figure: dict[str, Any]) -> str:
        shown = number(figure["value"]) + _between(figure["spread"])
        return shown if one_kind or shown == "–" else f"{shown} {figure['unit']}"

    def ratio(figure: dict[str, Any]) -> str:
        shown = number(figure["ratio"]) + _between(figure["ratio_spread"])
        return shown if one_ratio or figure["ratio_of"] is None else f"{shown} = {figure['ratio_of']}"

    columns = [("case", [figure["case"] for figure in figures]), ("rival", [figure["rival"] for figure in figures])]
    columns.append((kinds.pop() if one_kind else "value", [value(figure) for figure in figures]))
    columns.append((ratios.pop() if one_ratio else "ratio", [ratio(figure) for figure in figures]))
    columns += [(name, [number(figure["more"].get(name)) for figure in figures]) for name in more]
    shown = [(name, cells) for name, cells in columns if any(cell not in ("", "–") for cell in cells)]
    rows = [[name for name, _ in shown], ["---"] * len(shown), *zip(*(cells for _, cells in shown), strict=True)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--table",
        nargs="?",
        const="",
        required=True,
        metavar="BENCHMARK",
        help="print the newest results, or those of one benchmark",
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of results; default: benchmarks/results")
    arguments = parser.parse_args()
    try:
        results = newest(read_results(arguments.results))
    except SegctlError as error:
        _refuse(str(error))
    if not arguments.table:
        print(page(results), end="")
        return
    chosen = [result for result in results if result["benchmark"] == arguments.table]
    if not chosen:
        _refuse(f"no result of '{arguments.table}'; there are {', '.join(dict.fromkeys(one['benchmark'] for one in results))}")
    print("\n\n".join(table(result) for result in chosen))


if __name__ == "__main__":
    main()
