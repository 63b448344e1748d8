import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segctl.data.pictures import Picture
from segctl.errors import InputError

INDEX = np.arange(48, dtype=np.uint8).reshape(6, 8)


def label_file(path: Path) -> Picture:
    return Picture("street", "label", path, "trainannot/street.png", "L")


def image_file(path: Path) -> Picture:
    return Picture("street", "image", path, "train/street.png", "RGB")


def refusal(picture: Picture) -> str:
    with pytest.raises(InputError) as caught:
        picture.decode()
    assert caught.value.exit_code == 2
    return caught.value.message


def test_a_label_keeps_its_ids_and_the_file_its_hash(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(INDEX).save(path)
    decoded = label_file(path).decode()
    assert decoded.array.tolist() == INDEX.tolist()
    assert decoded.sha256 == label_file(path).digest() == hashlib.sha256(path.read_bytes()).hexdigest()
    assert decoded.content == path.read_bytes()
    assert label_file(path).size() == (6, 8)


def test_a_palette_keeps_its_indices_where_a_palette_is_meant(tmp_path):
    path = tmp_path / "a.png"
    palette = Image.fromarray(INDEX).convert("P")
    palette.putdata(INDEX.ravel().tolist())
    palette.putpalette([value for index in range(256) for value in (255 - index, index, 7)])
    palette.save(path)
    picture = Picture("street", "label", path, "trainannot/street.png", "P")
    assert picture.decode().array.tolist() == INDEX.tolist()


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("RGB", "RGB"),
        ("RGBA", "RGB with transparency"),
        ("P", "a palette picture"),
        ("LA", "grey with transparency"),
        ("1", "black and white"),
        ("I;16", "16 bits deep"),
    ],
)
def test_a_label_that_is_no_index_map_is_refused(tmp_path, mode, words):
    path = tmp_path / "a.png"
    picture = Image.fromarray(INDEX.astype(np.uint16)) if mode == "I;16" else Image.fromarray(INDEX).convert(mode)
    picture.save(path)
    wanted = "wanted an index map (8-bit grey, each value a class id)"
    assert refusal(label_file(path)) == f"the label of sample 'street' (trainannot/street.png) is {words}, {wanted}"


def test_an_image_must_be_rgb(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(INDEX).save(path)
    assert refusal(image_file(path)) == "the image of sample 'street' (train/street.png) is 8-bit grey, wanted RGB"


def test_a_truncated_picture_is_refused(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-600])
    assert refusal(image_file(path)) == "the image of sample 'street' (train/street.png) cannot be read: it is cut short"


def test_a_damaged_picture_is_refused(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)).save(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    assert refusal(image_file(path)).startswith("the image of sample 'street' (train/street.png) cannot be read: it is damaged")


def test_a_text_file_is_not_a_picture(tmp_path):
    path = tmp_path / "a.png"
    path.write_text("<html>please log in</html>")
    message = "the label of sample 'street' (trainannot/street.png) cannot be read: it is not a picture"
    assert refusal(label_file(path)) == message
    with pytest.raises(InputError, match="it is not a picture"):
        label_file(path).size()


def test_a_missing_picture_is_named(tmp_path):
    message = "the label of sample 'street' (trainannot/street.png) cannot be read: No such file or directory"
    assert refusal(label_file(tmp_path / "a.png")) == message
    with pytest.raises(InputError, match="No such file"):
        label_file(tmp_path / "a.png").digest()
