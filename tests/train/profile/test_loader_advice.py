"""How many loader processes a run wants, by what a batch takes to make."""

from dataclasses import replace

import pytest

from segctl.train.profile.loader_advice import Feeding

STARVED = Feeding(made_s=1.0, waited_s=0.75, step_s=1.0, workers=1, cores=16, codec="lz4")


def test_one_worker_at_a_second_a_batch_and_steps_of_a_quarter_want_four() -> None:
    assert STARVED.wanted == 4
    assert STARVED.advice() == "about 4 suffice: --set data.workers=4"


def test_the_number_is_right_while_steps_still_live_on_batches_made_ahead() -> None:
    assert replace(STARVED, waited_s=0.0, step_s=0.25).wanted == 4
    assert replace(STARVED, waited_s=0.0, step_s=0.25).falls_behind
    assert not replace(STARVED, waited_s=0.0, step_s=0.25, workers=4).falls_behind


def test_more_are_wanted_than_there_are() -> None:
    assert replace(STARVED, made_s=0.1, workers=3).wanted == 4


@pytest.mark.parametrize(
    ("cores", "workers", "codec", "said"),
    [
        (2, 1, "lz4", "about 4 would suffice, but there are cores for 2: use --set data.workers=2"),
        (2, 2, "lz4", "about 4 would suffice, but there are cores for 2: all cores are in use"),
        (2, 2, "zstd", "about 4 would suffice, but there are cores for 2: all cores are in use; "
                       "shards packed with --codec lz4 load faster than zstd"),
    ],
)  # fmt: skip
def test_no_more_are_advised_than_there_are_cores(cores: int, workers: int, codec: str, said: str) -> None:
    assert replace(STARVED, cores=cores, workers=workers, codec=codec).advice() == said
