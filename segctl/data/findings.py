"""What a check finds, in a source or in a prepared dataset."""

from collections.abc import Sequence
from dataclasses import dataclass

from segctl.errors import InputError


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
