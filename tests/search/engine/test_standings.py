"""What is kept up with trials, against the same looked up among all of them."""

import numpy as np
import pytest

from search.engine.asha import rung_scores
from search.engine.standings import Keepers, Standings
from search.ledger.trial import Trial, Trials
from tests.sweep_parts import METRIC, epoch_entry, trial_with

RUNGS = (1, 3, 9)


def leader(trials: dict[int, Trial], rung: int) -> int | None:
    """By a look at each trial."""
    scores = rung_scores(
        {number: one for number, one in trials.items() if one.state != "failed"}, rung, METRIC
    )
    return max(scores, key=lambda number: (scores[number], -number), default=None)


@pytest.mark.parametrize("does_tell", [True, False])
def test_standings_are_those_of_a_look_at_each_trial(does_tell: bool) -> None:
    """Trials report, fail, end, and begin again; scores are few, so that many are equal."""
    rng = np.random.default_rng(0)
    trials: dict[int, Trial] = Trials() if does_tell else {}
    standings = Standings(trials, RUNGS, METRIC)
    leaders = set()
    for step in range(1500):
        number = int(rng.integers(min(len(trials) + 1, 40)))
        if number not in trials:
            trials[number] = trial_with(number, {})
        trial = trials[number]
        if rng.random() < 0.02:
            trial.state = "failed"
        elif rng.random() < 0.02:
            trial.epochs = []
        elif trial.state == "running" and trial.epoch < 9:
            trial.add_epoch(epoch_entry(trial.epoch + 1, int(rng.integers(10)) / 10))
        if isinstance(trials, Trials):
            trials.touch(number)
        if step % 3:
            continue
        for rung in RUNGS:
            reached = [n for n in sorted(trials) if trials[n].epoch >= rung]
            assert list(standings.reached(rung)) == reached
            assert standings.leader(rung) == leader(trials, rung)
            leaders.add(leader(trials, rung))
    assert len(leaders) > 5


def test_the_weights_of_the_best_ended_trials_are_kept() -> None:
    rng = np.random.default_rng(0)
    known = [trial_with(number, {1: 0.5}, state="pruned") for number in range(2)]
    running = trial_with(2, {1: 0.9})
    keepers, there, ended = Keepers([*known, running], METRIC, 3), {0, 1}, [*known]
    for number in range(3, 100):
        scores = {1: int(rng.integers(20)) / 20} if rng.random() < 0.9 else {}
        state = "failed" if rng.random() < 0.2 else "complete"
        ended.append(trial_with(number, scores, state=state))
        if scores:
            there.add(number)
        dropped = keepers.add(ended[-1])
        assert dropped is None or dropped in there
        there.discard(-1 if dropped is None else dropped)
        ranked = sorted(
            (one.state == "failed", -one.best(METRIC)[1], one.number)  # type: ignore[index]
            for one in ended
            if one.epochs
        )
        assert there == {n for _, _, n in ranked[:3]}


def test_trials_know_which_of_them_were_touched() -> None:
    trials = Trials({0: trial_with(0, {})})
    assert trials.touched == [0]
    for number in (1, 1, 0, 0, 1):
        trials[number] = trial_with(number, {})
        trials.touch(number)
    assert trials.touched == [0, 1, 0, 1]
