"""The frozen teacher of a pretraining run."""

from dataclasses import dataclass
from pathlib import Path

from segctl.data.shards.dataset import PreparedDataset
from segctl.files import real_path
from segctl.models.external.features import FeatureNetwork, load_features
from segctl.runs import HUB
from segctl.schema.pretrain import TIMM, PretrainSpec


@dataclass(frozen=True)
class FeatureTeacher:
    """A frozen backbone and where it came from; its fields mean what those of `segctl.teacher.load.Teacher` do."""

    model: FeatureNetwork
    path: Path
    sha256: str
    notes: tuple[str, ...] = ()
    preset: str = "features"
    given_preset: str | None = None
    is_program: bool = False
    members: tuple[()] = ()
    weights: tuple[()] = ()

    @property
    def networks(self) -> "tuple[FeatureTeacher]":
        """It has no other members."""
        return (self,)

    @property
    def source(self) -> str:
        """The value of `--teacher` that finds it again from any folder."""
        return str(self.path) if str(self.path).startswith((TIMM, HUB)) else str(real_path(self.path))

    @property
    def license(self) -> str:
        """The licence of its weights; empty where it is not known."""
        return self.model.license


def load_feature_teacher(spec: PretrainSpec, dataset: PreparedDataset) -> FeatureTeacher:
    """The frozen network of a pretraining run, on the CPU. Raises InputError where it does not exist or cannot be understood."""
    network = load_features(spec.teacher, spec.weights, dataset.bands)
    network.require_images(dataset.bands, dataset.pixel_type, f"the teacher '{spec.teacher}'", dataset.name)
    notes = network.notes
    if spec.weights == "none":
        notes = (*notes, "warning: the teacher has random weights, so a student learns little from it")
    return FeatureTeacher(network, Path(spec.teacher), network.sha256(), notes)
