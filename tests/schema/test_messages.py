"""Faults in a preset in plain words."""

import re

import pytest

from segctl.errors import PresetError
from segctl.schema.load import load_preset

FAULTS = [
    ("camvid-psp18", "labels.epsilon=0.2", "'hard' has no such key, wanted labels.kind 'smoothed' or 'boundary'"),
    ("shapes-teacher", "labels.kind=smoothed", "'smoothed' has no such key, wanted labels.kind 'boundary'"),
    ("camvid-psp18", "optim.momentum=0.8", "'adamw' has no such key, wanted optim.kind 'sgd'"),
    ("camvid-psp18", "loss.0.gamma=3", "'cross_entropy' has no such key, wanted loss.0.kind 'focal' or 'jdt'"),
]


@pytest.mark.parametrize(("preset", "override", "words"), FAULTS)
def test_a_key_of_another_kind_names_that_kind_and_a_line_that_works(preset: str, override: str, words: str) -> None:
    with pytest.raises(PresetError) as caught:
        load_preset(preset, [override])
    fault = str(caught.value.faults[0])
    assert words in fault
    printed = re.search(r"--set '(.*)'$", fault)
    assert printed is not None
    load_preset(preset, [printed[1]])


def test_a_key_of_no_kind_lists_the_keys_there_are() -> None:
    with pytest.raises(PresetError, match=r"labels\.foo: unknown key, wanted one of kind, epsilon, kernel_size"):
        load_preset("shapes-teacher", ["labels.foo=1"])
