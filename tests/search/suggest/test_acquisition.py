"""What the model-based sampler proposes, without a ledger or Ray."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from optuna import Trial as Suggester
from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)

from search.ledger.records import Prior
from search.ledger.trial import Trial
from search.space.sampling import Draw, parameters_of
from search.suggest.acquisition import NUM_LED, NUM_STARTUP, Proposer, log_expected_improvement
from search.suggest.curve_model import Belief
from spaces import SPACES, Space
from tests.sweep_parts import METRIC, epoch_entry

RUNGS = (3, 9)  # the last epoch is one


def suggest_two(trial: Suggester) -> dict[str, Any]:
    kind = trial.suggest_categorical("kind", ["plain", "deep"])
    settings = {"kind": kind, "rate": trial.suggest_float("rate", 1e-4, 1e-1, log=True)}
    if kind == "deep":
        settings["blocks"] = trial.suggest_int("blocks", 1, 4)
    return settings


SPACE = Space(suggest_two)


def ended(
    number: int,
    params: dict[str, Any],
    score: float,
    seconds: float = 1.0,
    epochs: int = 9,
    state: Any = "complete",
) -> Trial:
    distributions: dict[str, Any] = {
        "kind": CategoricalDistribution(["plain", "deep"]),
        "rate": FloatDistribution(1e-4, 1e-1, log=True),
    }
    if params["kind"] == "deep":
        distributions["blocks"] = IntDistribution(1, 4)
    entries = [
        replace(epoch_entry(epoch, score), alone_seconds=seconds) for epoch in range(1, epochs + 1)
    ]
    texts = {name: distribution_to_json(found) for name, found in distributions.items()}
    return Trial(
        number, params, texts, {"architecture": params["kind"]}, 0.0, state, epochs=entries
    )


def peaked(number: int, rng: np.random.Generator, cost: float = 1.0, gain: float = 0.1) -> Trial:
    """A trial whose score is highest at a rate of 1e-2, and by `gain` higher for `deep`, which
    costs `cost` seconds.
    """
    draw = Draw(rng)
    suggest_two(draw)  # type: ignore[arg-type]
    is_deep = draw.params["kind"] == "deep"
    score = (
        0.5
        - 0.1 * (math.log10(draw.params["rate"]) + 2) ** 2
        + (gain if is_deep else 0.0)
        + 0.01 * rng.standard_normal()
    )
    return ended(number, draw.params, score, seconds=cost if is_deep else 1.0)


def proposer_of(cost_weight: float = 0.0, priors: Sequence[Prior] = ()) -> Proposer:
    return Proposer(SPACE, Belief(parameters_of(SPACE), METRIC, RUNGS, priors), cost_weight)


def proposed(proposer: Proposer, trials: dict[int, Trial], count: int) -> list[dict[str, Any]]:
    """What is proposed, with other random numbers each time, where it is not left to chance."""
    proposals = (proposer.propose(trials, np.random.default_rng(seed)) for seed in range(3 * count))
    return [proposal for proposal in proposals if proposal is not None][:count]


def test_nothing_is_proposed_while_there_is_too_little_to_go_by() -> None:
    rng = np.random.default_rng(0)
    trials = {number: peaked(number, rng) for number in range(NUM_STARTUP - 1)}
    assert proposer_of().propose(trials, rng) is None


def test_proposals_are_near_the_best_of_what_was_seen() -> None:
    trials = {number: peaked(number, np.random.default_rng(number)) for number in range(30)}
    proposer = proposer_of()
    proposals = [proposer.propose(trials, np.random.default_rng(seed)) for seed in range(20)]
    found = [proposal for proposal in proposals if proposal is not None]
    assert 10 < len(found) < 20, "some are left to chance"
    assert np.mean([proposal["kind"] == "deep" for proposal in found]) > 0.8
    assert np.mean([abs(math.log10(proposal["rate"]) + 2) < 0.75 for proposal in found]) > 0.8


def test_a_region_that_fails_is_avoided() -> None:
    trials = {number: peaked(number, np.random.default_rng(number)) for number in range(30)}
    for trial in trials.values():
        if trial.params["kind"] == "deep":
            trial.state, trial.epochs = "failed", []
    proposer = proposer_of()
    proposals = proposed(proposer, trials, 20)
    assert np.mean([proposal["kind"] == "plain" for proposal in proposals]) > 0.8


def test_a_hundredfold_cost_is_weighed() -> None:
    trials = {
        number: peaked(number, np.random.default_rng(number), cost=100.0, gain=0.005)
        for number in range(30)
    }
    deep = {}
    for weight in (0.0, 2.0):
        proposals = proposed(proposer_of(weight), trials, 15)
        deep[weight] = np.mean([proposal["kind"] == "deep" for proposal in proposals])
    assert deep[2.0] < deep[0.0]


def test_running_trials_are_believed_so_that_others_are_tried_elsewhere() -> None:
    trials = {number: peaked(number, np.random.default_rng(number)) for number in range(30)}
    proposer = proposer_of()
    first = proposed(proposer, trials, 1)[0]
    for number in range(30, 38):
        trials[number] = ended(number, first, 0.0, epochs=0, state="running")
    assert proposed(proposer, trials, 1)[0] != first


@pytest.mark.slow
def test_a_proposer_that_lived_through_a_history_proposes_what_a_fresh_one_does() -> None:
    trials: dict[int, Trial] = {}
    lived = proposer_of(0.5)
    for number in range(60):
        fresh = proposer_of(0.5)
        assert lived.propose(trials, np.random.default_rng(number)) == fresh.propose(
            trials, np.random.default_rng(number)
        )
        trials[number] = peaked(number, np.random.default_rng(1000 + number))


def priors(source: str, shift: float) -> list[Prior]:
    trials = [peaked(number, np.random.default_rng(number)) for number in range(40)]
    return [
        Prior(
            source,
            {**trial.params, "gone": 7},
            {epoch: score + shift for epoch, score in trial.scores(METRIC).items()},
        )
        for trial in trials
    ]


def test_the_first_proposals_of_a_warm_start_are_what_was_good_elsewhere() -> None:
    proposer = proposer_of(priors=priors("elsewhere", 0.2))
    found = proposed(proposer, {}, 10)
    assert len(found) == 10
    assert all(set(proposal) <= {"kind", "rate", "blocks"} for proposal in found)
    assert np.mean([abs(math.log10(proposal["rate"]) + 2) < 0.75 for proposal in found]) > 0.8


def test_other_sweeps_lead_the_first_suggestions_alone() -> None:
    proposer = proposer_of(priors=priors("elsewhere", 0.2))
    trials = {
        number: peaked(number, np.random.default_rng(number)) for number in range(NUM_LED + 2)
    }
    assert not proposed(proposer, trials, 10)
    for number in range(3):  # what was queued is nobody's suggestion
        trials[number].queued = f"known good {number}"
    assert len(proposed(proposer, trials, 10)) == 10


def test_a_warm_start_that_misleads_is_overruled() -> None:
    wrong = [
        replace(prior, scores={epoch: -score for epoch, score in prior.scores.items()})
        for prior in priors("elsewhere", 0.0)
    ]
    trials = {number: peaked(number, np.random.default_rng(number)) for number in range(40)}
    proposer = proposer_of(priors=wrong)
    proposals = proposed(proposer, trials, 10)
    assert np.mean([abs(math.log10(proposal["rate"]) + 2) < 0.75 for proposal in proposals]) > 0.7


def test_draws_are_what_the_space_may_suggest() -> None:
    def suggest(trial: Suggester) -> dict[str, Any]:
        return {
            "a": trial.suggest_int("a", 2, 10, step=4),
            "b": trial.suggest_float("b", 0.0, 1.0, step=0.25),
            "c": trial.suggest_int("c", 1, 64, log=True),
            "d": trial.suggest_categorical("d", [None, True, "x", 3]),
            "e": trial.suggest_float("e", 5.0, 5.0),
        }

    rng = np.random.default_rng(0)
    around = {"a": 6, "b": 0.5, "c": 8, "d": None, "e": 9.0}  # e is out of range
    found = []
    for number in range(300):
        draw = Draw(rng, around if number % 2 else None)
        suggest(draw)  # type: ignore[arg-type]
        assert all(
            draw.distributions[name]._contains(draw.distributions[name].to_internal_repr(value))
            for name, value in draw.params.items()
        )
        found.append(draw.params)
    assert {params["a"] for params in found} == {2, 6, 10}
    assert {params["b"] for params in found} == {0.0, 0.25, 0.5, 0.75, 1.0}
    assert {params["d"] for params in found} == {None, True, "x", 3}
    assert (
        min(params["c"] for params in found) == 1 < 32 < max(params["c"] for params in found) <= 64
    )
    assert all(isinstance(params["c"], int) for params in found)


def test_every_shipped_space_can_be_drawn_from() -> None:
    for space in SPACES.values():
        draw = Draw(np.random.default_rng(0))
        assert space.suggest(draw)  # type: ignore[arg-type]


def test_expected_improvement_is_finite_and_falls_with_distance() -> None:
    value = log_expected_improvement(np.linspace(0.0, -50.0, 200), np.full(200, 1.0), 0.0)
    assert np.isfinite(value).all()
    assert (np.diff(value) < 0).all()
