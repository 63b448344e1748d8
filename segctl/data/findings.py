"""What a check finds, in a source or in a prepared dataset."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from segctl.errors import InputError

_VARYING = re.compile(r"'[^']*'|\([^)]*\)|\d[\d.×]*")
"""What tells two findings of a kind apart: names, file names, numbers."""


@dataclass(frozen=True)
class Finding:
    """One problem. `sample` is empty where the problem is of the dataset as a whole; `hint` says what to do, where one can."""

    sample: str
    problem: str
    hint: str = ""


def refuse(findings: Sequence[Finding]) -> None:
    """Raise InputError with the first finding, if there is one."""
    if not findings:
        return
    first, others = findings[0], len(findings) - 1
    more = "" if not others else f" (and {others} more problem{'s' if others > 1 else ''}; `--check` lists them)"
    raise InputError(first.problem + more, first.hint)


@dataclass(frozen=True)
class Kind:
    """Findings that differ only in names and numbers: what they have in common, how many they are, and the first one's sample."""

    pattern: str
    count: int
    example: str
    hint: str


def summarise(findings: Sequence[Finding]) -> list[Kind]:
    """The findings by kind, the commonest first."""
    kinds: dict[str, list[Finding]] = {}
    for finding in findings:
        kinds.setdefault(_VARYING.sub("…", finding.problem), []).append(finding)
    alike = sorted(kinds.items(), key=lambda item: (-len(item[1]), item[0]))
    return [Kind(pattern, len(same), same[0].sample, same[0].hint) for pattern, same in alike]
