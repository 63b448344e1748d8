"""YAML is what it looks like: a typo becomes a fault, never another value."""

import pytest
import yaml

from segctl.errors import InputError, PresetError
from segctl.schema.load import load_preset
from segctl.schema.yaml import load_yaml

PLAIN = {
    "true": True, "False": False, "yes": "yes", "off": "off", "1:30": "1:30", "2024-02-30": "2024-02-30", "null": None, "~": None,
    "7": 7, "-7": -7, "010": "010", "0x1f": 31, "1e4": 1e4, "1e-4": 1e-4, ".5": 0.5, "1.": 1.0, "[1, 2.5]": [1, 2.5],
    "resnet18d": "resnet18d",
}  # fmt: skip
UNREADABLE = ["!!int abc", "{[1]: 2}", "? [a]\n: 1", "!!python/object/apply:os.system [id]", "!!timestamp x", "a: !!float []"]
OTHER_NUMBERS = [
    "train.steps=yes", "train.steps=1:30", "data.flip=true", "optim.lr=true", "train.seed=99999999999999999999", "optim.lr=1e300",
    "data.crop=[1000000,1000000]", "data.workers=100000", "data.scale=[true,2]",
]  # fmt: skip


@pytest.mark.parametrize("text", PLAIN)
def test_plain_words_are_read_as_yaml_1_2_reads_them(text: str) -> None:
    found = load_yaml(text)
    assert found == PLAIN[text]
    assert type(found) is type(PLAIN[text])


@pytest.mark.parametrize(
    "text", ["!!int abc", "{[1]: 2}", "? [a]\n: 1", "!!python/object/apply:os.system [id]", "!!timestamp x", "a: !!float []"]
)
def test_what_cannot_be_read_is_a_yaml_error(text: str) -> None:
    with pytest.raises(yaml.YAMLError):
        load_yaml(text)


def test_a_number_of_5000_digits_is_text_and_refused_as_such() -> None:
    assert load_yaml("9" * 5000) == "9" * 5000


@pytest.mark.parametrize("override", OTHER_NUMBERS)
def test_a_value_that_would_pass_for_another_number_is_refused(override: str) -> None:
    with pytest.raises(PresetError):
        load_preset("camvid-psp18", [override])


@pytest.mark.parametrize("override", ["loss.².weight=1", "loss.99999999999999999999.weight=1", "data.crop.x=1"])
def test_a_path_that_leads_nowhere_is_refused(override: str) -> None:
    with pytest.raises(InputError, match="there is nothing at"):
        load_preset("camvid-psp18", [override])
