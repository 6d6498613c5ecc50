"""`--gpus-per-trial auto`: how many trials share a GPU, by figures of a device, and how they are
come by, on the CPU.
"""

import pytest

from mmm.training.config import FeaturesKey
from search.ledger.spec import trials_of_gpu
from search.plan.checks import check
from search.plan.gpu_share import (
    MOST,
    Measured,
    is_worth_it,
    job_of,
    limit,
    measure,
    most_that_fit,
    to_try,
)
from search.plan.rehearsal import Case, Device, Job, Rehearsed, Taken
from tests.conftest import Corpus
from tests.sweep_parts import small_spec, write_space

GB = 10**9


@pytest.mark.parametrize(
    ("total", "largest", "number"),
    [(80 * GB, 2 * GB, 16), (80 * GB, 19 * GB, 3), (24 * GB, 19 * GB, 1), (16 * GB, 19 * GB, 1)],
)
def test_as_many_share_a_gpu_as_find_room_with_a_margin(
    total: int, largest: int, number: int
) -> None:
    assert most_that_fit(total, largest) == number


def test_every_share_has_room_for_its_trials() -> None:
    key = FeaturesKey("hidden_state", 1)
    alone = Rehearsed(
        Device("H200", 141 * GB), (Taken(Case({"architecture": "x"}, key, "bf16"), 1, 0.5, GB),)
    )
    for number in range(1, MOST + 1):
        share = Measured({1: alone}, MOST, number).gpus_per_trial
        assert trials_of_gpu(share) == number
        assert share * number <= 1


def test_twice_as_many_are_tried_and_the_most() -> None:
    assert [to_try(most) for most in (1, 2, 3, 4, 11, 16)] == [
        [],
        [2],
        [2, 3],
        [2, 4],
        [2, 4, 8, 11],
        [2, 4, 8, 16],
    ]


def test_a_busy_device_gains_nothing_by_sharing() -> None:
    assert is_worth_it(1 / 5.3, 1 / 6.3)  # epochs a second of 1 and 2 mixers on an H200
    assert is_worth_it(1 / 6.3, 1 / 7.3)  # of 2 and 4
    assert not is_worth_it(1.0, 0.97)


def test_no_more_share_a_gpu_than_there_are_trials_and_cores_for() -> None:
    assert limit(40, 1, 64) == MOST
    assert limit(40, 1, 6) == 6
    assert limit(5, 2, 64) == 3
    assert limit(1, 8, 64) == 1
    assert limit(40, 8, 4) == 1


SPACE = """
def suggest(trial):
    return {
        "architecture": trial.suggest_categorical(
            "architecture", ["vanilla_concat", "cross_attention"]
        ),
        "context": trial.suggest_int("context", 1, 3),
        "batch_size": trial.suggest_categorical("batch_size", [2, 4, 8]),
        "classifier_hidden": 12,
    }
"""


@pytest.fixture(scope="module")
def job(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Job:
    space = write_space(tmp_path_factory.mktemp("space") / "space.py", SPACE)
    return job_of(check(small_spec(corpus, space=space, packs=1)), device="cpu")


def test_the_smallest_and_the_largest_of_each_system_are_measured(job: Job) -> None:
    found = [
        (case.settings["architecture"], case.settings["context"], case.settings["batch_size"])
        for case in job.cases
    ]
    assert sorted(found) == [
        ("cross_attention", 1, 2),
        ("cross_attention", 3, 8),
        ("vanilla_concat", 1, 2),
        ("vanilla_concat", 3, 8),
    ]
    assert Job.from_json(job.as_json()) == job


@pytest.mark.slow
def test_trials_are_measured_alone_and_together_in_processes_of_their_own(job: Job) -> None:
    found = measure(job, 2)
    assert set(found.rehearsed) == {1, 2}
    for number, rehearsed in found.rehearsed.items():
        for case, one in zip(job.cases, rehearsed.taken, strict=True):
            assert (one.case, one.together) == (case, number)
            assert one.epoch_s > 0
            assert one.peak_bytes >= 0
    assert found.most_that_fit == 2
    assert str(found).startswith("measured on the CPU: 4 settings, the smallest and the largest of")
    assert str(found).endswith(f"; so --gpus-per-trial {found.gpus_per_trial:g}")
