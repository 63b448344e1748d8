"""Several --labels: the label maps of several raters, from the folders to the batches."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from own_files import save
from PIL import Image

from segctl.data.batches.loader import training_batches
from segctl.data.datasets.own.given import own_files
from segctl.data.datasets.own.open import open_own
from segctl.data.inspect.check import check
from segctl.data.prepare import prepare_source
from segctl.data.shards.dataset import PreparedDataset, open_dataset
from segctl.errors import InputError
from segctl.schema.data import DataSpec

NAMES = [f"p{index}" for index in range(6)]


def rated(root: Path, raters: int = 3) -> list[Path]:
    """images/, classes.txt and a folder of label maps for each rater; pixel (0, 0) of the last rater is ignored (255)."""
    random = np.random.default_rng(0)
    for name in NAMES:
        save(Image.fromarray(random.integers(0, 256, (24, 32, 3)).astype(np.uint8)), root / "images" / f"{name}.png")
        for rater in range(raters):
            ids = random.integers(0, 2, (24, 32)).astype(np.uint8)
            ids[0, 0] = 255 if rater == raters - 1 else 1
            save(Image.fromarray(ids), root / f"rater{rater}" / f"{name}.png")
    (root / "classes.txt").write_text("sane\nill\n")
    return [root / f"rater{rater}" for rater in range(raters)]


def opened(root: Path, folders: list[Path], **how: str):
    own = own_files(root / "images", folders, root / "classes.txt", ("val=0.34",), 0, **how)
    assert own is not None
    return open_own("mine", own)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PreparedDataset]:
    root = tmp_path_factory.mktemp("rated")
    return root, prepare_source(opened(root, rated(root)), root / "data", workers=0)


def maps_of(root: Path, name: str) -> np.ndarray:
    return np.stack([np.array(Image.open(root / f"rater{rater}" / f"{name}.png")) for rater in range(3)])


def test_every_raters_map_comes_back_and_the_label_is_the_majority(packed: tuple[Path, PreparedDataset]) -> None:
    root, dataset = packed
    for name in NAMES:
        maps = maps_of(root, name)
        assert np.array_equal(dataset.raters_of(name).table()[dataset.votes(name)].transpose(2, 0, 1), maps)
        assert np.array_equal(dataset.label(name), (np.where(maps == 255, 0, maps).sum(0) >= 2).astype(np.uint8))
    assert dataset.has_raters("val")
    assert check(root / "data", "mine") == []
    assert prepare_source(opened(root, rated(root)), root / "data", workers=0).provenance.created == dataset.provenance.created


def test_batches_have_the_view_of_every_raters_map(packed: tuple[Path, PreparedDataset]) -> None:
    """With the image's own size and no scaling, a view is the picture, perhaps mirrored."""
    root, dataset = packed
    view = DataSpec(dataset="mine", crop=(24, 32), scale=(1, 1), flip=0.5)
    stream = {"view": view, "batch_size": 2, "seed": 1, "first_step": 0, "last_step": 4, "workers": 0}
    plain, rated_ = (list(training_batches(dataset, "train", raters=raters, **stream)) for raters in (False, True))
    for one, other in zip(plain, rated_, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)
        assert one.ratings is None
        for row, name in enumerate(other.names):
            flipped = not np.array_equal(other.images[row].numpy(), dataset.image(name))
            wanted = maps_of(root, name)[..., ::-1] if flipped else maps_of(root, name)
            assert np.array_equal(other.ratings.labels[row].numpy(), wanted)
            assert other.ratings.weights[row].tolist() == pytest.approx(dataset.raters_of(name).weights)


def test_padding_and_hidden_labels_have_no_answers(packed: tuple[Path, PreparedDataset]) -> None:
    _, dataset = packed
    view = DataSpec(dataset="mine", crop=(48, 64), scale=(1, 1), flip=0)
    (batch,) = training_batches(
        dataset, "train", view=view, batch_size=2, seed=1, first_step=0, last_step=1, workers=0, raters=True
    )
    assert (batch.ratings.labels[:, :, :12] == 255).all()
    assert ((batch.ratings.labels != 255).any(1) == (batch.labels != 255)).all()


def test_votes_of_other_pixels_are_found(packed: tuple[Path, PreparedDataset]) -> None:
    root, dataset = packed
    index = root / "data" / "mine" / "dataset.json"
    assert '"ballots"' in index.read_text()
    record = dataset.samples["p0"]
    turned = dataclasses.replace(record.raters, ballots=record.raters.ballots[::-1])
    assert not np.array_equal(turned.table(), record.raters.table())


def test_a_rater_may_lack_a_picture_but_not_have_one_more(tmp_path: Path) -> None:
    folders = rated(tmp_path)
    (folders[1] / "p0.png").unlink()
    source = opened(tmp_path, folders)
    assert "1 of 6 pictures have fewer than 3 raters" in source.notes
    assert source.samples.read("p0").votes.record.table().shape[1] == 2
    save(Image.new("L", (32, 24)), folders[1] / "q.png")
    assert [str(one) for one in opened(tmp_path, folders).problems if "but no image" in str(one)]


def test_maps_of_another_size_are_refused(tmp_path: Path) -> None:
    folders = rated(tmp_path)
    save(Image.new("L", (31, 24)), folders[2] / "p3.png")
    with pytest.raises(InputError, match=r"is 31×24 pixels, wanted 32×24 as the first rater's"):
        opened(tmp_path, folders).samples.read("p3")


def test_what_does_not_go_with_several_raters_is_refused(tmp_path: Path) -> None:
    folders = rated(tmp_path)
    with pytest.raises(InputError, match="twice, wanted other files for each rater"):
        opened(tmp_path, [folders[0], folders[1], folders[1]])
    with pytest.raises(InputError, match="--format is 'coco', but several --labels are label maps"):
        opened(tmp_path, folders, format="coco")
    with pytest.raises(InputError, match="--unannotated is 'ignore', but several --labels"):
        opened(tmp_path, folders, unannotated="ignore")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no label maps"):
        opened(tmp_path, [*folders, tmp_path / "empty"])


def test_a_dataset_with_single_label_maps_has_no_raters(tmp_path: Path) -> None:
    folders = rated(tmp_path, 1)
    dataset = prepare_source(opened(tmp_path, folders), tmp_path / "data", workers=0)
    assert '"raters"' not in (tmp_path / "data/mine/dataset.json").read_text()
    assert not open_dataset(tmp_path / "data", "mine").has_raters("val")
    view = DataSpec(dataset="mine", crop=(24, 32))
    with pytest.raises(InputError, match="has one label map, wanted those of several raters"):
        training_batches(dataset, "train", view=view, batch_size=2, seed=1, first_step=0, last_step=1, workers=0, raters=True)
