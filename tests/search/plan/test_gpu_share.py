"""`--gpus-per-trial auto`: how many trials share a GPU, by figures of a device, and how they are
come by, on the CPU.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mmm.training.config import FeaturesKey
from search.cli.sweeps import in_this_process
from search.engine.pack_sizes import PackSizes
from search.ledger.spec import AUTO, trials_of_gpu
from search.plan.checks import check
from search.plan.gpu_cases import job_of
from search.plan.gpu_share import (
    MOST,
    Share,
    decide,
    limit,
    measure,
    measure_there,
    most_that_fit,
    to_try,
    with_share,
)
from search.plan.rehearsal import Case, Device, DoesNotFit, Job, Rehearsed, Taken
from tests.conftest import Corpus
from tests.sweep_parts import small_spec, write_space

GB = 10**9
MIXER = Case({"architecture": "mlp_mixer"}, FeaturesKey("hidden_state", 1), "bf16")


def rehearsed(number: int, epochs_per_s: float, peak_gb: float = 1.0) -> Rehearsed:
    """Of one case on an H200: so many epochs a second of all at a time together."""
    taken = Taken(MIXER, number, 1 / epochs_per_s, int(peak_gb * GB))
    return Rehearsed(Device("NVIDIA H200", 141 * GB), (taken,))


def decided(epochs_per_s: dict[int, float], peak_gb: float = 1.0, most: int = MOST) -> Share:
    """What follows from figures; beyond them there is no room."""

    def again(number: int) -> Rehearsed:
        if number not in epochs_per_s:
            raise DoesNotFit("CUDA out of memory")
        return rehearsed(number, epochs_per_s[number])

    return decide(rehearsed(1, epochs_per_s[1], peak_gb), again, most)


@pytest.mark.parametrize(
    ("total", "largest", "number"),
    [(80 * GB, 2 * GB, 16), (80 * GB, 19 * GB, 3), (24 * GB, 19 * GB, 1), (16 * GB, 19 * GB, 1)],
)
def test_as_many_share_a_gpu_as_find_room_with_a_margin(
    total: int, largest: int, number: int
) -> None:
    assert most_that_fit(total, largest, MOST) == number


def test_as_many_share_a_gpu_as_make_it_faster() -> None:
    # Mixers at published sizes on an H200, the last figure made up.
    found = decided({1: 5.3, 2: 6.3, 4: 7.3, 8: 7.4})
    assert found.gpus_per_trial == 0.25
    assert str(found) == (
        "measured on NVIDIA H200 (141.0 GB): the smallest and the largest settings of each system,"
        " 1 in all, take 0.19 to 0.19 s an epoch and at most 1.0 GB (mlp_mixer); there is room and"
        " work for 16 at a time; times as fast as one at a time: 2 1.19, 4 1.38, 8 1.40; so"
        " --gpus-per-trial 0.25"
    )
    assert decided({1: 5.3, 2: 5.1, 4: 9.0}).gpus_per_trial == 1
    assert decided({1: 5.3, 2: 9, 3: 13}, peak_gb=35).gpus_per_trial == 0.3333
    assert decided({1: 5.3, 2: 9}, most=2).gpus_per_trial == 0.5


def test_what_has_no_room_together_does_not_share() -> None:
    found = decided({1: 5.3, 2: 9})
    assert found.gpus_per_trial == 0.5
    assert "; 4 at a time failed (CUDA out of memory); so --gpus-per-trial 0.5" in str(found)
    assert decided({1: 5.3}).gpus_per_trial == 1
    assert decided({1: 5.3, 2: 9, 4: 18}, peak_gb=80).most_that_fit == 1
    share = Share(1, {}, 1)
    assert str(share) == (
        "measured: the largest trials do not find room on the GPU in whole batches, even alone; so"
        " --gpus-per-trial 1"
    )


def test_every_share_has_room_for_its_trials() -> None:
    for number in range(1, MOST + 1):
        share = Share(number, {}, MOST).gpus_per_trial
        assert trials_of_gpu(share) == number
        assert share * number <= 1


def test_workers_are_as_many_as_find_room_here(corpus: Corpus) -> None:
    spec, share = small_spec(corpus), Share(4, {}, 4)
    for workers, num_gpus, number in ((None, 2, 8), (3, 2, 3), (20, 2, 8)):
        found = with_share(spec, share, workers, num_gpus)
        assert (found.gpus_per_trial, found.workers) == (0.25, number)
    there = with_share(small_spec(corpus, workers=20), share, 20, None)
    assert (there.gpus_per_trial, there.workers) == (0.25, 20)


@pytest.mark.parametrize(
    ("options", "packs"),
    [
        ({"packs": 1}, (1, 1)),
        ({"packs": 8}, (8, 1)),
        ({"packs": None}, (1, 25)),  # of an eighth of the trials at most
        ({"max_memory_mb": 100.0}, (1, 1)),
    ],
)
def test_packs_are_measured_as_workers_train_them(
    corpus: Corpus, options: dict[str, Any], packs: tuple[int, int]
) -> None:
    spec = small_spec(corpus, trials=200, gpus_per_trial=1.0, **options)
    assert PackSizes(spec).at_first({"architecture": "mlp_mixer"}) == packs
    assert PackSizes(spec).at_first({"architecture": "own.py:Own", "in_packs": False}) == (1, 1)


def test_twice_as_many_are_tried_and_the_most() -> None:
    assert [to_try(most) for most in (1, 2, 3, 4, 11, 16)] == [
        [],
        [2],
        [2, 3],
        [2, 4],
        [2, 4, 8, 11],
        [2, 4, 8, 16],
    ]


def test_no_more_share_a_gpu_than_there_are_trials_and_cores_for() -> None:
    assert limit(40, 1, 64) == MOST
    assert limit(40, 1, 6) == 6
    assert limit(5, 2, 64) == 3
    assert limit(1, 8, 64) == 1
    assert limit(40, 8, 4) == 1


def test_a_trial_in_this_process_has_the_gpu_to_itself() -> None:
    given = in_this_process({"gpus_per_trial": AUTO, "workers": 1})
    assert given == {"gpus_per_trial": 1.0, "workers": 1, "address": None, "ship": False}


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
def test_trials_are_measured_alone_and_together_in_processes_of_their_own(
    corpus: Corpus, job: Job, tmp_path: Path
) -> None:
    job = replace(job, cases=(replace(job.cases[0], largest_pack=2), job.cases[1]))
    # As on a node of a cluster, with two cores for each GPU and features at a URL.
    job = replace(job, features="/nowhere")
    found = measure_there(job, MOST, corpus.features_dir.as_uri(), str(tmp_path), 2.0)
    assert set(found.rehearsed) == {1, 2}
    for number, trained in found.rehearsed.items():
        assert trained.device == Device("the CPU", None)
        for case, one in zip(job.cases, trained.taken, strict=True):
            assert (one.case.settings, one.together) == (case.settings, number)
            assert one.case.pack in (1, case.largest_pack)
            assert one.case.num_passes >= 1
            assert one.epoch_s > 0
            assert one.peak_bytes >= 0
    assert (found.most_that_fit, found.fault) == (2, "")
    assert str(found).startswith("measured on the CPU: the smallest and the largest settings of")
    assert str(found).endswith(f"; so --gpus-per-trial {found.gpus_per_trial:g}")


@pytest.mark.slow
def test_what_cannot_be_trained_alone_is_said(job: Job) -> None:
    with pytest.raises(ValueError, match=r"^--gpus-per-trial auto: .*/nowhere"):
        measure(replace(job, features="/nowhere"), 2)
