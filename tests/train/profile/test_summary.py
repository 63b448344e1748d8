"""Which steps a profile looks at, and what it says of them."""

from dataclasses import replace

import pytest

from segctl.errors import InputError
from segctl.train.profile.loader_advice import Feeding
from segctl.train.profile.summary import Profile, Window, advice, plan_window

FED = Feeding(made_s=0.1, waited_s=0.0, step_s=1.0, workers=2, cores=8, codec="lz4")
PROFILE = Profile(
    device="cpu", precision="fp32", batch_size=8, processes=1, window=Window(13, 10, 3),
    phases={"data": 0.01, "copy": 0.01, "student": 0.3, "loss": 0.08, "backward": 0.5, "optimiser": 0.08, "other": 0.02},
    step_s=1.0, fastest_step_s=0.9, slowest_step_s=1.2, peak_mb={"student": 9.5, "backward": 1234.0}, feeding=FED, busy_s=None,
)  # fmt: skip


@pytest.mark.parametrize(
    ("left", "workers", "window"),
    [
        (1000, 0, Window(5, 10, 3)),
        (1000, 8, Window(37, 10, 3)),  # of 16 batches made ahead none is left when the clock starts, unless the loader keeps up
        (30, 8, Window(17, 10, 3)),
        (12, 8, Window(4, 5, 3)),
        (3, 0, Window(1, 1, 1)),
    ],
)
def test_a_shorter_run_gives_fewer_steps_of_each_kind(left: int, workers: int, window: Window) -> None:
    assert plan_window(left, workers) == window
    assert window.total <= left


def test_fewer_than_three_steps_are_too_few() -> None:
    with pytest.raises(InputError) as error:
        plan_window(2, 0)
    assert error.value.message == ("--profile needs at least 3 steps (one to warm up, one to time, one to trace), and 2 are left")


def test_the_table_shows_every_phase_and_their_sum() -> None:
    rows = PROFILE.rows()
    assert rows[2] == ["student forward", "300.0", "30.0 %", "9.5"]
    assert rows[-1] == ["step", "1000.0", "100.0 %", "1,234"]
    assert sum(float(row[1]) for row in rows[:-1]) == pytest.approx(1000.0)
    assert "| student forward | 300.0 | 30.0 % | 9.5 |" in PROFILE.markdown()


def spent(**phases: float) -> Profile:
    """The rest of a second is the student's."""
    return replace(PROFILE, phases={**phases, "student": 1 - sum(phases.values())})


STARVED = replace(FED, waited_s=0.41, made_s=1.2)


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        (replace(spent(data=0.41), feeding=STARVED),
         "41 % of a step is waiting for data with 2 loader workers; about 3 suffice: --set data.workers=3"),
        (replace(PROFILE, feeding=replace(FED, made_s=6.0)),
         "2 loader workers are too slow, which batches made in advance still hide; about 6 suffice: --set data.workers=6"),
        (replace(spent(peers=0.2), processes=3),
         "20 % of a step is waiting for other processes: a train.batch_size that is a multiple of 3 gives all the same work"),
        (replace(spent(peers=0.2), processes=4),
         "20 % of a step is waiting for other processes: one of them is slower; check what else runs on its machine"),
        (replace(PROFILE, busy_s=0.6),
         "the GPU is idle in 40 % of a step, because its kernels are shorter than it takes to start them: "
         "try train.compile=true, a larger train.batch_size or a smaller train.accumulate"),
        (spent(teacher=0.5),
         "50 % of a step is teacher forward: "
         "try train.precision=bf16 (if the device has it) or teacher.cache=true (if views never change) or a smaller teacher"),
        (replace(spent(teacher=0.5), precision="bf16"),
         "50 % of a step is teacher forward: try teacher.cache=true (if views never change) or a smaller teacher"),
        (spent(loss=0.4), "40 % of a step is loss and distillation terms: try a cheaper --method or a smaller data.crop; "
                          "the trace names the operations"),
        (spent(other=0.15), "15 % of a step is other: Python code around the networks; try a larger train.batch_size"),
        (PROFILE, "nothing waits: the student's forward and backward take 80 % of a step; "
                  "try train.precision=bf16 (if the device has it) or a smaller data.crop"),
        (replace(PROFILE, precision="bf16", busy_s=0.97),
         "nothing waits: the student's forward and backward take 80 % of a step; try a smaller data.crop"),
    ],
)  # fmt: skip
def test_one_sentence_says_what_to_act_on(profile: Profile, said: str) -> None:
    assert advice(profile) == said


def test_the_file_for_programs_has_shares_and_the_advice() -> None:
    content = PROFILE.content()
    assert content["phases"]["backward"] == {"seconds": 0.5, "share": 0.5, "peak_mb": 1234.0}
    assert content["images_per_s"] == 8.0
    assert content["window"] == {"warmup": 13, "timed": 10, "traced": 3}
    assert content["advice"] == advice(PROFILE)
