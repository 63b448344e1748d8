import os

from segctl.runtime.cores import core_count, default_workers


def test_there_is_at_least_one_core_and_no_more_than_the_machine_has():
    assert 1 <= core_count() <= (os.cpu_count() or 1)


def test_workers_are_a_share_of_the_cores():
    assert default_workers(10**6) == 1
    assert 1 <= default_workers() <= 8
