"""How a label map of a person's own data is read: by ids, by colours, or by a palette's."""

from dataclasses import dataclass

import numpy as np

from segctl.data.classes import ClassRow, ClassTable
from segctl.data.datasets.pairs import (
    ColorMap,
    IdMap,
    Label,
    PictureFile,
    Unknown,
)
from segctl.data.files.pictures import BLACK_AND_WHITE, Decoded
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
        array = found.array
        if found.mode in ("P", "1"):
            array = self.ids_of_palette(what, array, BLACK_AND_WHITE if found.palette is None else found.palette)
        return self.ids.train_ids(what, array)

    def ids_of_palette(self, what: object, values: np.ndarray, palette: np.ndarray) -> np.ndarray:
        """Values uint8 (H, W) that have colours, a palette's uint8 (n, 3) or black and white -> raw ids uint8 (H, W).

        Such values are ids, unless they are not ids of the table and their colours are: programs that reduce a mask to a palette
        number its colours as they like. Black and white, and palettes of grey, may stand for the ids 0 and 255 in that way.
        Of a table without ids the colours decide where it lists them all, and the result then is train ids, 255 ignored.
        Raises InputError that names the file `what` if ids and colours say different things.
        """
        used = np.unique(values)
        rows = None if self._is_ramp(palette) else self._rows_of(palette[used])
        if rows is None:
            return values
        table = np.full(256, IGNORED, np.uint8)
        if self.ids is None:
            table[used] = [row.train_id for row in rows]
            return np.asarray(table[values])
        by_id, by_color = np.frombuffer(self.ids.train, np.uint8)[used], np.array([row.train_id for row in rows], np.uint8)
        if not np.frombuffer(self.ids.known, bool)[used].all():
            table[used] = [IGNORED if row.raw_id is None else row.raw_id for row in rows]
            return np.asarray(table[values])
        if not np.array_equal(by_id, by_color):
            value = int(used[np.flatnonzero(by_id != by_color)[0]])
            color = ",".join(map(str, palette[value].tolist()))
            raise InputError(
                f"{what} can be read in two ways: its value {value} is the id of one class, and its colour {color} is another's",
                "leave out the column of the class table that the labels do not follow: `color` or `id`",
            )
        return values

    @staticmethod
    def _is_ramp(palette: np.ndarray) -> bool:
        """Whether each value has the grey of its own number, so that the palette says nothing: uint8 (n, 3)."""
        return bool((palette == np.arange(len(palette))[:, None]).all())

    def _rows_of(self, colors: np.ndarray) -> list[ClassRow] | None:
        """uint8 (n, 3) -> the rows of these colours, or of greys by their ids; None if one is not in the table."""
        if self.colors is not None:
            known = dict(self.colors.colors)  # a row without a colour has one of ours, which may be another row's
            by_color = {row.color: row for row in self.listed.rows if known.get(row.color) == row.train_id}
            found = [by_color.get((red, green, blue)) for red, green, blue in colors.tolist()]
        else:
            by_id = {row.raw_id: row for row in self.listed.rows}
            found = [by_id.get(red) if red == green == blue else None for red, green, blue in colors.tolist()]
        rows = [row for row in found if row is not None]
        return rows if len(rows) == len(found) else None


@dataclass(frozen=True)
class OwnLabel(PictureFile):
    """A label file of a person's own data, read as its content and the class table say."""

    rule: OwnRule

    def decode(self) -> Label:
        decoded = self.picture.decode()
        array, unknown = self.rule.train_ids(self.picture, decoded)
        return Label(array, decoded.sha256, len(decoded.content), unknown)
