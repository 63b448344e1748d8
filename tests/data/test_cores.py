import os

from segctl.data.cores import core_count


def test_there_is_at_least_one_core_and_no_more_than_the_machine_has():
    assert 1 <= core_count() <= (os.cpu_count() or 1)
