"""Problems that a check finds, in a source or in a prepared dataset."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from segctl.errors import InputError

_VARYING = re.compile(r"'[^']*'|\([^)]*\)|\d[\d.×]*")
"""Parts in which two findings of one kind differ: names, file names, numbers."""


@dataclass(frozen=True)
class Finding:
    """One problem. `sample` is empty if the problem concerns the whole dataset; `hint` says what to do, if anything helps."""

    sample: str
    problem: str
    hint: str = ""


def refusal(findings: Sequence[Finding]) -> InputError:
    """The error for a source with problems: the first of them, and how many more there are."""
    first, others = findings[0], len(findings) - 1
    more = "" if not others else f" (and {others} more problem{'s' if others > 1 else ''}; `--check` lists them)"
    return InputError(first.problem + more, first.hint)


@dataclass(frozen=True)
class Kind:
    """Findings that differ only in names and numbers: their common text, their number, and the sample of the first."""

    pattern: str
    count: int
    example: str
    hint: str


def summarise(findings: Sequence[Finding]) -> list[Kind]:
    """The findings by kind, the most frequent first."""
    kinds: dict[str, list[Finding]] = {}
    for finding in findings:
        kinds.setdefault(_VARYING.sub("…", finding.problem), []).append(finding)
    alike = sorted(kinds.items(), key=lambda item: (-len(item[1]), item[0]))
    return [Kind(pattern, len(same), same[0].sample, same[0].hint) for pattern, same in alike]
