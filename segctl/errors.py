"""Every error segctl raises on purpose.

    SegctlError            the run failed                                   exit 1
    ├── InputError         the command, preset or input is wrong            exit 2
    │   ├── PresetError    one or more faults in a preset, all at once      exit 2
    │   └── ArgumentError  a wrong argument in Python; a ValueError too     exit 2
    ├── CheckError         a check found problems                           exit 3
    ├── StoppedError       a person or the system stopped the run           exit 130 (Ctrl-C), 143 (SIGTERM)
    ├── PeerError          another process of the run failed, and says why  exit as that one
    └── ProcessError       a process that this one started failed           exit as that one

Only a SegctlError becomes a sentence at the command line's error door; anything else is a bug and keeps its traceback.
A message says what is wrong, where, what was found and what was wanted; `hint` says what to do next.
"""

import errno
import re
from dataclasses import dataclass
from difflib import get_close_matches


class SegctlError(Exception):
    """The run failed for a reason we can name."""

    exit_code: int = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class InputError(SegctlError):
    """The command, preset or input is wrong; nothing was written."""

    exit_code = 2


@dataclass(frozen=True)
class Fault:
    """One thing wrong in a preset: `path` is dotted (`loss.0.weight`)."""

    path: str
    problem: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


class PresetError(InputError):
    """A preset has faults; all of them are listed."""

    def __init__(self, where: str, faults: list[Fault], hint: str = "") -> None:
        self.faults = faults
        count = "one fault" if len(faults) == 1 else f"{len(faults)} faults"
        super().__init__("\n".join([f"{where} has {count}", *(f"  {fault}" for fault in faults)]), hint)

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class ArgumentError(InputError, ValueError):
    """A function or class of the Python API got a wrong argument: a value, a shape or a type.

    It is a ValueError for callers in Python; the command line words it as it words every InputError.
    """


class CheckError(SegctlError):
    """A check ran to its end and found problems."""

    exit_code = 3


class StoppedError(SegctlError):
    """A signal stopped the run between two steps; `number` is the signal's (2 Ctrl-C, 15 SIGTERM)."""

    def __init__(self, number: int, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.exit_code = 128 + number


class PeerError(SegctlError):
    """Another process of this run has failed: it says why, or the system ended it. detail: what this process has seen of it."""

    def __init__(self, exit_code: int = 1, detail: str = "") -> None:
        super().__init__("another process of this run has failed", "see its own message; if it left none, the system killed it")
        self.exit_code, self.detail = exit_code, detail


class ProcessError(SegctlError):
    """A process that this one started has failed: in its own words, with its exit code and, for a bug, its traceback."""

    def __init__(self, message: str, hint: str = "", exit_code: int = 1, trace: str = "") -> None:
        super().__init__(message, hint)
        self.exit_code, self.trace = exit_code, trace


def did_you_mean(got: str, known: list[str], floor: float = 0.6) -> str:
    """`, did you mean 'x'?` when one known word is close enough (`floor`, 0 to 1) to be a help, else an empty string."""
    same = [word for word in known if word.lower() == got.lower()]
    close = same or get_close_matches(got, known, n=1, cutoff=floor)
    return f", did you mean '{close[0]}'?" if close else ""


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or the name of its type where it has no text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


NEWLINE = "\n"


def printable(text: str, keep: str = "") -> str:
    """Text in which characters that steer a terminal, or turn the direction of writing, are spelled out, such as `\\x1b`.

    Names of files and classes come from strangers: an escape code in one could change a terminal's title, or hide a line.
    keep: characters that stay, such as NEWLINE between the sentences of a message.
    """
    return _UNPRINTABLE.sub(lambda found: found[0] if found[0] in keep else _spelled_out(found[0]), text)


def _spelled_out(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
HINTS = {
    errno.ENOENT: "check the path",
    errno.EEXIST: "one of its parents is a file: give another path",
    errno.EACCES: "give a path that this user may read or write",
    errno.EPERM: "give a path that this user may read or write",
    errno.EROFS: "give a path on a disk that can be written",
    errno.EISDIR: "give a file, not a folder",
    errno.ENOTDIR: "one of its parents is a file: give another path",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ELOOP: "it is a link that leads back to itself: give another path",
    errno.EMFILE: "raise the limit of open files (`ulimit -n 4096`), or use fewer workers",
}


def os_error_in_words(error: OSError) -> SegctlError:
    """The sentence for what the operating system refused: the path, its reason, and what to do.

    A full disk is exit code 1, because the same command works once there is room; anything else is wrong input, exit code 2.
    """
    path = error.filename2 or error.filename
    where = "" if path is None else f"'{path}': "
    reason = error.strerror or str(error) or type(error).__name__
    if error.errno in FULL:
        return SegctlError(f"{where}{reason}", "free disk space or choose another folder, then run the same command again")
    return InputError(f"{where}{reason}", HINTS.get(error.errno or 0, ""))
