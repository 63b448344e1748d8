"""What a format of annotation files must offer: one value in one file, listed in `formats.py`."""

from collections.abc import Callable
from dataclasses import dataclass

from segctl.data.labels.annotations import AnnotationSet
from segctl.data.labels.documents import Document


def _never(document: Document) -> bool:
    return False


@dataclass(frozen=True)
class Format:
    """A format of annotation files.

    title: its name in messages.  accepts: whether a document is of this format.  read: adds a document to the set; raises
    InputError if the document as a whole does not fit.  is_weak: whether an accepted document says nothing without others of its
    kind, such as a table of names.
    """

    title: str
    accepts: Callable[[Document], bool]
    read: Callable[[Document, AnnotationSet], None]
    is_weak: Callable[[Document], bool] = _never
