"""Import paths that other people's code relies on, whatever moves inside a room."""

from importlib import import_module

import pytest

PATHS = [
    "segctl.losses.jdt.JDTLoss",
    "segctl.losses.labels.boundary_smooth",
    "segctl.losses.labels.smooth",
    "segctl.losses.labels.average_raters",
    "segctl.losses.JDTLoss",
    "segctl.losses.CrossEntropyLoss",
    "segctl.losses.build_loss",
    "segctl.losses.build_losses",
    "segctl.losses.build_labels",
    "segctl.distillers.kd.pixel_kl",
    "segctl.distillers.skd.pairwise_similarity",
    "segctl.distillers.ifvd.intra_class_variation",
    "segctl.distillers.cwd.channel_divergence",
    "segctl.distillers.cirkd.cross_image_similarity",
    "segctl.distillers.dist.relation_distance",
    "segctl.distillers.maskd.masked_distance",
    "segctl.distillers.at.attention_distance",
    "segctl.distillers.fitnet.hint_distance",
    "segctl.distillers.dsd.pixel_similarity",
    "segctl.distillers.dsd.category_similarity",
    "segctl.distillers.newer.dkd.decoupled_divergence",
    "segctl.distillers.newer.lskd.standardised",
    "segctl.distillers.newer.mgd.reconstruction_distance",
    "segctl.distillers.newer.afdcd.omni_contrast",
    "segctl.distillers.newer.cirkd_channels.cross_channel_similarity",
    "segctl.distillers.build_distiller",
    "segctl.distillers.build_term",
    "segctl.models.load",
    "segctl.models.build_model",
    "segctl.metrics.counts.count",
]


@pytest.mark.parametrize("path", PATHS)
def test_it_is_where_it_was(path: str) -> None:
    module, _, name = path.rpartition(".")
    assert callable(getattr(import_module(module), name))
