"""When the outbox looks at the ledger again: soon, and where training needs every core, so late
that it takes a hundredth of one.
"""

import os
import time

import pytest

from search.tracking.outbox import Outbox, pause_s_after


@pytest.mark.parametrize("used_s", [0.05, 0.2, 0.5])
@pytest.mark.parametrize(("load", "num_cores"), [(2.0, 2), (9.5, 2), (64.0, 64)])
def test_while_every_core_is_busy_it_takes_a_hundredth_of_one(
    used_s: float, load: float, num_cores: int
) -> None:
    pause_s = pause_s_after(used_s, load, num_cores)
    assert 0.005 < used_s / (used_s + pause_s) < 0.01


@pytest.mark.parametrize("used_s", [0.0, 1.0, 60.0])
@pytest.mark.parametrize(("load", "num_cores"), [(0.0, 1), (1.99, 2), (63.0, 64)])
def test_where_a_core_is_free_it_only_waits_for_its_next_look(
    used_s: float, load: float, num_cores: int
) -> None:
    assert pause_s_after(used_s, load, num_cores) == 1.0


def test_it_looks_every_minute_however_long_the_sending_took() -> None:
    # Making MLflow's tables and sending a large sweep again may take minutes.
    assert pause_s_after(300.0, 16.0, 2) == 60.0


def test_where_there_was_nothing_to_send_it_looks_again_after_a_second() -> None:
    assert pause_s_after(0.001, 16.0, 2) == 1.0


def test_without_a_sweep_to_follow_it_ends_with_its_block() -> None:
    with pytest.raises(ValueError, match="refused"), Outbox() as outbox:
        process = outbox._process
        assert process.poll() is None
        raise ValueError("refused")
    assert process.poll() is not None


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="needs Linux's idle scheduling")
def test_it_runs_where_a_core_is_idle() -> None:
    with Outbox() as outbox:
        deadline = time.monotonic() + 20
        while os.sched_getscheduler(outbox._process.pid) != os.SCHED_IDLE:
            assert time.monotonic() < deadline
            time.sleep(0.05)
