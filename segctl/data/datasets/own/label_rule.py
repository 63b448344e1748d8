"""How a label map of a person's own data is read: by ids, by colours, or by a palette's."""

from dataclasses import dataclass

import numpy as np

from segctl.data.classes import ClassTable
from segctl.data.datasets.pairs import (
    ColorMap,
    IdMap,
    Label,
    PictureFile,
    Unknown,
)
from segctl.data.files.pictures import Decoded
from segctl.errors import InputError
from segctl.ignored import IGNORED


@dataclass(frozen=True)
class OwnRule:
    """Index maps by `ids` and masks by `colors`; None if the class table has no ids or no colours.

    listed: the ids and the colours of its rows, so that a palette can be compared with both.
    """

    ids: IdMap | None
    colors: ColorMap | None
    listed: ClassTable

    def train_ids(self, what: object, found: Decoded) -> tuple[np.ndarray, Unknown]:
        """A decoded label -> train ids uint8 (H, W), 255 ignored; and what the class table does not name.

        Raises InputError that names the file `what` if it does not fit the table, or if ids and colours say different things.
        """
        if self.colors is not None and (self.ids is None or found.array.ndim == 3):
            colors = self.colors
            if found.array.ndim == 2:
                advice = f"{colors.advice}; if the values are class ids, give the table a column `id`"
                colors = ColorMap(colors.colors, advice)
            return colors.train_ids(what, found.colors())
        if self.ids is None:
            raise RuntimeError("a class table reads ids or colours; the picture's modes let nothing else through")
        if found.mode in ("P", "1"):
            return self._palette_train_ids(what, found, self.ids)
        return self.ids.train_ids(what, found.array)

    def _palette_train_ids(self, what: object, found: Decoded, ids: IdMap) -> tuple[np.ndarray, Unknown]:
        """The same for values that have colours: a palette's, or black and white.

        Such values are ids, unless they are no ids of the table and their colours are: programs that reduce a mask to a palette
        number its colours as they like. Black and white, and palettes of grey, may stand for the ids 0 and 255 in that way.
        """
        palette = np.array([[0, 0, 0], [255, 255, 255]], np.uint8) if found.palette is None else found.palette
        used = np.unique(found.array)
        by_id = np.frombuffer(ids.train, np.uint8)[used]
        are_ids = bool(np.frombuffer(ids.known, bool)[used].all())
        by_color = None if self._is_ramp(palette) else self._by_color(palette[used])
        if by_color is None or (are_ids and np.array_equal(by_id, by_color)):
            return ids.train_ids(what, found.array)
        if are_ids:
            value = int(used[np.flatnonzero(by_id != by_color)[0]])
            color = ",".join(map(str, palette[value].tolist()))
            raise InputError(
                f"{what} can be read in two ways: its value {value} is the id of one class, and its colour {color} is another's",
                "leave out the column of the class table that the labels do not follow: `color` or `id`",
            )
        table = np.full(256, IGNORED, np.uint8)
        table[used] = by_color
        return table[found.array], Unknown()

    @staticmethod
    def _is_ramp(palette: np.ndarray) -> bool:
        """Whether each value has the grey of its own number, so that the palette says nothing: uint8 (n, 3)."""
        return bool((palette == np.arange(len(palette))[:, None]).all())

    def _by_color(self, colors: np.ndarray) -> np.ndarray | None:
        """uint8 (n, 3) -> train ids uint8 (n,) by the table's colours, or greys by its ids; None if one is not in the table."""
        if self.colors is not None:
            known = dict(self.colors.colors)
            found = [known.get((red, green, blue)) for red, green, blue in colors.tolist()]
        else:
            by_id = {row.raw_id: row.train_id for row in self.listed.rows}
            found = [by_id.get(red) if red == green == blue else None for red, green, blue in colors.tolist()]
        return None if None in found else np.array(found, np.uint8)


@dataclass(frozen=True)
class OwnLabel(PictureFile):
    """A label file of a person's own data, read as its content and the class table say."""

    rule: OwnRule

    def decode(self) -> Label:
        decoded = self.picture.decode()
        array, unknown = self.rule.train_ids(self.picture, decoded)
        return Label(array, decoded.sha256, len(decoded.content), unknown)
