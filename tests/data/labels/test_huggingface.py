"""Datasets of Hugging Face that were saved on the disk."""

import io

import numpy as np
import pytest
from own_files import draw_ids, train_ids
from PIL import Image

from segctl.data.datasets.own.given import OwnFiles, own_files
from segctl.data.datasets.own.open import open_own
from segctl.data.prepare import prepare_source
from segctl.errors import InputError

datasets = pytest.importorskip("datasets", reason="needs the extra hf")
if not hasattr(datasets, "load_from_disk"):  # the tests' own folder `datasets` passes for a package
    pytest.skip("needs the extra hf", allow_module_level=True)
CSV = "name,id,ignored\nroad,1,\ncrack,3,\nglare,9,yes\n"


def png(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


def saved(folder, names=("image", "label"), splits=("train", "validation")):
    """A saved dataset of 3 and 2 rows, and a class table."""
    parts = {}
    for number, split in enumerate(splits):
        rows = range(10 * number, 10 * number + 3 - number)
        images = [{"bytes": png(np.full((12, 20, 3), row, np.uint8)), "path": None} for row in rows]
        labels = [{"bytes": png(draw_ids(row)), "path": None} for row in rows]
        features = datasets.Features({names[0]: datasets.Image(), names[1]: datasets.Image()})
        parts[split] = datasets.Dataset.from_dict({names[0]: images, names[1]: labels}, features=features)
    datasets.DatasetDict(parts).save_to_disk(str(folder / "rooms"))
    (folder / "classes.csv").write_text(CSV)
    return folder / "rooms", folder / "classes.csv"


def test_images_and_label_maps_are_those_that_were_saved(tmp_path):
    folder, classes = saved(tmp_path)
    own = own_files(folder, None, classes, (), 0)  # one folder holds both
    dataset = prepare_source(open_own("rooms", own), tmp_path / "data", workers=2)
    assert dataset.splits == {"train": ["train-0", "train-1", "train-2"], "validation": ["validation-0", "validation-1"]}
    assert np.array_equal(dataset.label("validation-1"), train_ids(draw_ids(11)))
    assert (dataset.image("train-2") == 2).all()
    note = "labels are a dataset of Hugging Face ('rooms'): images in 'image', label maps in 'label'"
    assert note in dataset.provenance.notes


def test_one_split_alone_is_read_too(tmp_path):
    folder, classes = saved(tmp_path, splits=("train",))
    source = open_own("rooms", OwnFiles(folder / "train", folder / "train", classes, splits=("val=0.5",)))
    assert source.problems == ()
    assert len(source.splits["train"]) + len(source.splits["val"]) == 3


def test_columns_that_leave_a_choice_are_refused(tmp_path):
    folder, classes = saved(tmp_path, names=("first", "second"))
    with pytest.raises(InputError, match="has the columns 'first', 'second', wanted one of images and one of label maps"):
        open_own("rooms", OwnFiles(folder, folder, classes))


def test_what_cannot_be_read_is_one_sentence(tmp_path):
    folder, classes = saved(tmp_path)
    with pytest.raises(InputError, match="--classes is missing"):
        open_own("rooms", OwnFiles(folder, folder))
    with pytest.raises(InputError, match="--unannotated is 'ignore', but a dataset of Hugging Face has label maps"):
        open_own("rooms", OwnFiles(folder, folder, classes, unannotated="ignore"))
    with pytest.raises(InputError, match="is not a dataset that `save_to_disk` of Hugging Face wrote"):
        open_own("rooms", OwnFiles(tmp_path, tmp_path, classes, format="hf"))
    (tmp_path / "cut").mkdir()
    cut, _ = saved(tmp_path / "cut")
    arrow = next((cut / "train").glob("*.arrow"))
    arrow.write_bytes(arrow.read_bytes()[:100])
    with pytest.raises(InputError, match="cannot be read"):
        open_own("rooms", OwnFiles(cut, cut, classes))
    (folder / "dataset_dict.json").write_text('{"splits": ["../train"]}')
    with pytest.raises(InputError, match=r"names the split '\.\./train', a path that leads outside the folder"):
        open_own("rooms", OwnFiles(folder, folder, classes))
