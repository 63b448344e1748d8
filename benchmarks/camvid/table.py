"""Writes the tables of the CamVid benchmarks into docs/camvid-benchmark.md, from the results that are there.

    python benchmarks/camvid/table.py            # replaces what lies between the page's markers
    python benchmarks/camvid/table.py --print    # prints it

Every plan beside this file has a section as soon as one of its runs has a result.

A difference is the mean over the seeds of a run less its partner of the same seed: `none` for a method, CE on hard labels for a
loss. It stands with its 95 % interval (Student's t over seeds), and in bold where the interval excludes 0. One seed has none.
"""

import argparse
import math
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from plan import HERE, PLANS, RESULTS, Plan, planned_runs, read_plan
from scipy.special import stdtrit

from segctl.errors import SegctlError
from segctl.files import read_json, write_text

PAGE = HERE.parent.parent / "docs" / "camvid-benchmark.md"
BEGIN, END = "<!-- python benchmarks/camvid/table.py -->", "<!-- end of the tables -->"
SCORES = ("mIoU_D", "mIoU_I", "mIoU_C", "mIoU_I_q5", "mIoU_C_q5", "ECE_D", "SCE_D", "mBIoU_D")
COMPARED = ("mIoU_D", "mIoU_I", "mIoU_C", "mIoU_C_q5", "mBIoU_D")
REFERENCE = ("ce", "hard")

Result = dict[str, Any]
Value = Callable[[Result], float | None]


def read_all(folder: Path, plan: Plan) -> list[Result]:
    """The results of the plan, sorted by name."""
    found = [read_json(path) for path in sorted(folder.glob("*.json"))]
    return [one for one in found if one.get("plan") == plan.name]


def page(plan: Plan, results: Sequence[Result], file: str) -> str:
    """The section of a plan. file: the name of the plan's file."""
    runs = [one for one in results if "table" in one]
    parts = [_rules(plan, runs, file), _teachers(results)]
    for student in plan.students:
        mine = [one for one in runs if one["student"] == student]
        parts += _methods(plan, student, [one for one in mine if one["table"] == "methods"])
        parts += _longer(student, mine)
    parts += _losses([one for one in runs if one["table"] == "losses"])
    parts += _variants(plan, [one for one in runs if plan.variants is not None and one["student"] == plan.variants.student])
    parts += _exports(results)
    return "\n\n".join(part for part in parts if part) + "\n"


def _rules(plan: Plan, runs: Sequence[Result], file: str) -> str:
    spent = sum(float(one["seconds"]) for one in runs) / 3600
    lines = [f"- {rule}" for rule in plan.rules]
    seeds = ", ".join(f"{method} {count}" for method, count in plan.methods.items())
    if plan.variants is not None:
        seeds = ", ".join(filter(None, [seeds, *(f"{name} {plan.variants.seeds}" for name in plan.variants.changes)]))
    lines.append(
        f"- Budget: {plan.budget.hours:g} hours of {plan.budget.cores} cores; students run {plan.steps} steps; seeds: {seeds}."
    )
    planned = len(planned_runs(plan, Path(), weights=None))
    lines.append(f"- Done: {len(runs)} of {planned} runs; they took {spent:.2f} core hours.")
    return "\n".join([f"Fixed before the first run (`benchmarks/camvid/{file}`):", "", *lines])


def _teachers(results: Sequence[Result]) -> str:
    """A line about each teacher; with several, which students learnt from which."""
    found = [one for one in results if "history" in one]
    if len(found) == 1:
        return f"Teacher: {_teacher(found[0])}"
    return "\n\n".join(
        f"Teacher {one['sha256'][:8]}: {_teacher(one)} Its students: {_students(one['sha256'], results)}." for one in found
    )


def _teacher(result: Result) -> str:
    history = ", ".join(f"{value:.2f} after {steps:,}" for steps, value in result["history"])
    cost = result["cost"] or {}
    return (
        f"{result['parameters'] / 1e6:.2f} M parameters, {cost.get('gflop', math.nan):.2f} GFLOP, "
        f"weights {result['weights']}; mIoU_D on val by steps: {history}."
    )


def _students(teacher: str, results: Sequence[Result]) -> str:
    """The runs that learnt from a teacher, by its SHA-256: student, method and seeds."""
    seeds: dict[str, list[str]] = {}
    for one in results:
        if one.get("teacher_sha256") == teacher:
            longer = " longer" if one["table"] == "longer" else ""
            seeds.setdefault(f"{one['student']} {one['method']}{longer}", []).append(str(one["seed"]))
    return "; ".join(f"{name} {', '.join(found)}" for name, found in seeds.items())


def _methods(plan: Plan, student: str, runs: Sequence[Result]) -> list[str]:
    if not runs:
        return []
    order = [method for method in plan.methods if any(one["method"] == method for one in runs)]
    groups = {method: [one for one in runs if one["method"] == method] for method in order}
    first = runs[0]
    cost = first["cost"] or {}
    about = (
        f"{first['parameters'] / 1e6:.2f} M parameters, {cost.get('gflop', math.nan):.2f} GFLOP; "
        f"initial weights {first['weights']}; {first['steps']} steps."
    )
    costs = [
        ("s/step", lambda one: one["seconds_per_step"]),
        ("peak MB", lambda one: one["peak_memory_mb"]),
    ]  # fmt: skip
    scores = [
        [
            method,
            str(len(group)),
            *(_mean(group, _score(name)) for name in SCORES),
            *(_mean(group, value, spread=False) for _, value in costs),
        ]
        for method, group in groups.items()
    ]
    parts = [f"### Student {student}", about, _table(["method", "seeds", *SCORES, *(name for name, _ in costs)], scores)]
    base = groups.get("none", [])
    gains = [
        [method, *(_difference(group, base, _score(name)) for name in COMPARED)]
        for method, group in groups.items()
        if method != "none"
    ]
    if base and gains:
        small = plan.smallest_classes
        classes = [
            [method, *(_difference(group, base, _class(name)) for name in small)]
            for method, group in groups.items()
            if method != "none"
        ]
        parts += ["Gain over `none`, paired by seed, in points, with its 95 % interval:", _table(["method", *COMPARED], gains)]
        if small:
            parts += [
                "IoU_D of the classes with the fewest pixels of the training split, the same way:",
                _table(["method", *small], classes),
            ]
    return parts


def _longer(student: str, runs: Sequence[Result]) -> list[str]:
    rows = []
    for one in (run for run in runs if run["table"] == "longer"):
        short = [
            other
            for other in runs
            if other["table"] == "methods" and (other["method"], other["seed"]) == (one["method"], one["seed"])
        ]
        before = short[0]["scores"]["mIoU_D"] if short else None
        after = one["scores"]["mIoU_D"]
        rows.append(
            [
                one["method"],
                str(one["seed"]),
                _number(before),
                _number(after),
                "–" if before is None else f"{after - before:+.2f}",
            ]
        )
    heading = ["method", "seed", "mIoU_D", "after half as many steps more", "difference"]
    return [f"How far {student} is from converged:", _table(heading, rows)] if rows else []


def _losses(runs: Sequence[Result]) -> list[str]:
    if not runs:
        return []
    base = [one for one in runs if (one["loss"], one["labels"]) == REFERENCE]
    kinds = list(dict.fromkeys((one["labels"], one["loss"]) for one in runs))
    rows, gains = [], []
    for labels, loss in kinds:
        group = [one for one in runs if (one["labels"], one["loss"]) == (labels, loss)]
        rows.append([loss, labels, str(len(group)), *(_mean(group, _score(name)) for name in SCORES)])
        if (loss, labels) != REFERENCE:
            gains.append([loss, labels, *(_difference(group, base, _score(name)) for name in COMPARED)])
    parts = ["### Losses, undistilled", _table(["loss", "labels", "seeds", *SCORES], rows)]
    return (
        [*parts, "Difference to CE on hard labels, paired by seed:", _table(["loss", "labels", *COMPARED], gains)]
        if base and gains
        else parts
    )


def _variants(plan: Plan, runs: Sequence[Result]) -> list[str]:
    """runs: of the student of the variants, with its methods."""
    if plan.variants is None or not any(one["table"] == "variants" for one in runs):
        return []
    groups = {name: [one for one in runs if one["variant"] == name] for name in plan.variants.changes}
    others = list(groups)
    if base := [one for one in runs if (one["table"], one["method"]) == ("methods", "none")]:
        first = "none"
    else:
        first, *others = groups
        base = groups[first]
    rows = [[name, str(len(group)), *(_mean(group, _score(score)) for score in SCORES)] for name, group in groups.items()]
    gains = [[name, *(_difference(groups[name], base, _score(score)) for score in COMPARED)] for name in others]
    what = "; ".join(
        f"{name}: {', '.join(f'`{one}`' for one in changes)}" for name, changes in plan.variants.changes.items() if changes
    )
    parts = [
        "### Settings, undistilled",
        what + ".",
        _table(["settings", "seeds", *SCORES], rows),
        f"Difference to `{first}`, paired by seed:",
        _table(["settings", *COMPARED], gains),
    ]
    if plan.variants.ceiling is None or not groups[plan.variants.ceiling]:
        return parts
    methods = [name for name in plan.methods if name != "none"]
    ways = {name: [one for one in runs if (one["table"], one["method"]) == ("methods", name)] for name in methods}
    ways |= {name: groups[name] for name in others if name != plan.variants.ceiling}
    shares = [
        [name, *(_share(group, base, groups[plan.variants.ceiling], _score(score)) for score in COMPARED)]
        for name, group in ways.items()
        if group
    ]
    said = f"Share of the way from `{first}` to `{plan.variants.ceiling}`, means over the seeds that all three have, in percent:"
    return [*parts, said, _table(["run", *COMPARED], shares)]


def _share(group: Sequence[Result], base: Sequence[Result], ceiling: Sequence[Result], value: Value) -> str:
    """100 · (group - base) / (ceiling - base), each the mean over the seeds that all three have."""
    seeds = set.intersection(*({one["seed"] for one in some} for some in (group, base, ceiling)))
    found = [[value(one) for one in some if one["seed"] in seeds] for some in (group, base, ceiling)]
    if not seeds or any(number is None for numbers in found for number in numbers):
        return "–"
    mine, low, high = (statistics.fmean(number for number in numbers if number is not None) for numbers in found)
    return "–" if high == low else f"{100 * (mine - low) / (high - low):.0f}"


def _exports(results: Sequence[Result]) -> list[str]:
    rows = []
    for one in (one for one in results if one["name"].startswith("export-")):
        for form, facts in one["forms"].items():
            parity = facts["parity"] or {}
            rows.append(
                [
                    one["of"],
                    form,
                    f"{facts['bytes'] / 1e6:.2f}",
                    _number(parity.get("mIoU_D_of_run")),
                    _number(parity.get("mIoU_D")),
                    _number(parity.get("percent_of_pixels")),
                ]
            )
    if not rows:
        return []
    times = [
        [one["of"], _form(row, one["forms"]), _number(row["median_ms"]), _number(row["p90_ms"]), _number(row["peak_mb"])]
        for one in results
        if one["name"].startswith("export-")
        for row in one["latency"]
    ]
    heading = ["run", "file", "MB", "mIoU_D of the run", "of the file", "% of pixels differ"]
    return [
        "### Exported",
        _table(heading, rows),
        "Latency of one image on one thread:",
        _table(["run", "form", "median ms", "90 % ms", "peak MB"], times),
    ]


def _form(row: Result, forms: dict[str, Result]) -> str:
    """`torch`, or which of the two exported files was timed, told by its size."""
    exact = {form for form, made in forms.items() if row["form"] == "onnx" and round(1e6 * row["file_mb"]) == made["bytes"]}
    return " ".join([row["form"], *exact])


def _score(name: str) -> Value:
    return lambda one: one["scores"].get(name)


def _class(name: str) -> Value:
    return lambda one: next((row["IoU_D"] for row in one["per_class"] if row["class"] == name), None)


def _mean(group: Sequence[Result], value: Value, *, spread: bool = True) -> str:
    """Mean ± standard deviation over the seeds."""
    found = [number for one in group if (number := value(one)) is not None]
    if not found:
        return "–"
    about = f" ± {statistics.stdev(found):.2f}" if spread and len(found) > 1 else ""
    return f"{_number(statistics.fmean(found))}{about}"


def _difference(group: Sequence[Result], base: Sequence[Result], value: Value) -> str:
    """The mean of the differences of equal seeds with Student's 95 % interval, in bold where it excludes 0."""
    partners = {one["seed"]: value(one) for one in base}
    pairs = [(value(one), partners.get(one["seed"])) for one in group]
    points = [mine - theirs for mine, theirs in pairs if mine is not None and theirs is not None]
    if not points:
        return "–"
    mean = statistics.fmean(points)
    if len(points) < 2:
        return f"{mean:+.2f}"
    half = float(stdtrit(len(points) - 1, 0.975)) * statistics.stdev(points) / math.sqrt(len(points))
    text = f"{mean:+.2f} [{mean - half:+.2f}, {mean + half:+.2f}]"
    return f"**{text}**" if mean - half > 0 or mean + half < 0 else text


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.2f}"


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def sections(plans: Sequence[Path], results: Path) -> str:
    """The text between the markers: a section for each plan with results, and the names of the others."""
    written, waiting = [], []
    for path in plans:
        plan = read_plan(path)
        found = read_all(results / plan.name, plan)
        if found:
            written.append(f"## {plan.title}\n\n{page(plan, found, path.name)}")
        else:
            waiting.append(f"`{path.name}` ({plan.title})")
    if waiting:
        written.append(f"Planned, and without results yet: {'; '.join(waiting)}.\n")
    return "\n".join(written)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=Path, nargs="+", default=PLANS, help="default: every plan beside this file")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of the results of all plans")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--print", action="store_true", help="print the tables instead of writing them into the page")
    given = parser.parse_args()
    try:
        text = sections(given.plan, given.results)
        if given.print:
            print(text, end="")
            return
        before, _, rest = given.page.read_text(encoding="utf-8").partition(BEGIN)
        _, found, after = rest.partition(END)
        if not found:
            raise SegctlError(f"'{given.page}' lacks the markers '{BEGIN}' and '{END}'", "put them where the tables belong")
        write_text(given.page, f"{before}{BEGIN}\n\n{text}\n{END}{after}")
    except SegctlError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
