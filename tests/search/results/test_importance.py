"""What decided the score, on made-up ledgers whose truth is known."""

import math

import numpy as np
import pytest
from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)

from mmm.training.config import make_config
from search.ledger.events import Entry
from search.ledger.history import History
from search.ledger.records import End, Session, Suggestion
from search.ledger.spec import SweepSpec
from search.results.importance import Expected, ablation_of, importances
from tests.sweep_parts import METRIC, epoch_entry, history_of

EPOCHS, FIRST_RUNG = 9, 3
SYSTEM = CategoricalDistribution(("vanilla_concat", "mlp_mixer"))
CONTEXT, BLOCKS = IntDistribution(1, 5), IntDistribution(1, 4)
LR = FloatDistribution(1e-4, 1e-2, log=True)
SPEC = SweepSpec(
    "made", "quick", "m", "f", trials=48, epochs=EPOCHS, workers=1, first_rung=FIRST_RUNG
)


def final(params: dict[str, object]) -> float:
    """K decides, the rate a little, blocks of the mixer somewhat, all else nothing."""
    context, blocks = int(str(params["context"])), int(str(params.get("num_blocks", 2)))
    rate = abs(math.log10(float(str(params["lr"]))) + 3)
    return 0.3 + 0.09 * (3 - abs(context - 3)) + 0.01 * blocks - 0.01 * rate


def history() -> History:
    """Only trials with the best K are trained to the end; all others are stopped at the rung."""
    rng = np.random.default_rng(0)
    found: list[Entry] = [Session(SPEC, "here", "")]
    for number in range(SPEC.trials):
        system = SYSTEM.choices[number % 2]
        params = {
            "architecture": system,
            "context": int(rng.integers(1, 6)) if number else 1,
            "lr": float(10 ** rng.uniform(-4, -2)),
        }
        distributions = {"architecture": SYSTEM, "context": CONTEXT, "lr": LR}
        if system == "mlp_mixer":
            params["num_blocks"] = int(rng.integers(1, 5))
            distributions["num_blocks"] = BLOCKS
        texts = {name: distribution_to_json(one) for name, one in distributions.items()}
        settings = make_config({**params}).params()
        found.append((number, Suggestion(params, texts, settings)))
        is_best = params["context"] == 3
        for epoch in range(1, (EPOCHS if is_best else FIRST_RUNG) + 1):
            score = final(params) * (1 - 0.4**epoch) + float(rng.normal(0, 0.002))
            found.append((number, epoch_entry(epoch, score)))
        state = "complete" if is_best else "pruned"
        found.append((number, End(state, "")))
    return history_of(SPEC, *found)


def test_what_all_survivors_share_is_not_worth_nothing() -> None:
    made = history()
    complete = [trial for trial in made.trials.values() if trial.state == "complete"]
    assert {trial.params["context"] for trial in complete} == {3}
    assert len(complete) >= 8
    found = {one.name: one for one in importances(Expected(made))}
    first = next(iter(found))
    assert first == "context"
    assert found["context"].fanova > 0.8
    assert found["context"].ped_anova == max(one.ped_anova for one in found.values())
    assert found["context"].num_trials == SPEC.trials


def test_a_parameter_that_some_trials_have_is_compared_among_these() -> None:
    found = {one.name: one for one in importances(Expected(history()))}
    assert (found["num_blocks"].num_trials, found["num_blocks"].is_conditional) == (24, True)
    assert not found["lr"].is_conditional


def test_stopped_trials_count_with_what_is_expected_of_them_at_the_end() -> None:
    made = history()
    finals = Expected(made).finals()
    assert len(finals) == SPEC.trials
    stopped = [trial for trial in made.trials.values() if trial.state == "pruned"]
    seen = [trial.best(METRIC) for trial in stopped]
    truths = [final(dict(trial.params)) for trial in stopped]
    expected = [finals[trial.number] for trial in stopped]
    errors = [abs(one - truth) for one, truth in zip(expected, truths, strict=True)]
    last_seen = [
        abs((best or (0, 0.0))[1] - truth) for best, truth in zip(seen, truths, strict=True)
    ]
    assert np.mean(errors) < np.mean(last_seen)


def test_the_way_to_the_winner_is_paved_by_what_matters() -> None:
    made = history()
    path = ablation_of(Expected(made))
    assert path is not None
    assert made.best is not None
    winner, first = made.trials[made.best[1]], made.trials[path.first]
    assert path.winner == winner.number
    assert first.architecture == winner.architecture
    assert {step.name for step in path.steps} == {
        name for name in winner.params if winner.params[name] != first.params.get(name)
    }
    gains = {step.name: step.gain for step in path.steps}
    assert max(gains, key=lambda name: gains[name]) == "context"
    expected = path.expected + sum(step.gain for step in path.steps)
    assert path.steps[-1].expected == pytest.approx(expected)
    truth = final(dict(winner.params)) - final(dict(first.params))
    assert sum(step.gain for step in path.steps) == pytest.approx(truth, abs=0.04)


def test_too_few_trials_say_nothing() -> None:
    few = history_of(SPEC, Session(SPEC, "here", ""))
    assert importances(Expected(few)) == []
    assert ablation_of(Expected(few)) is None


def test_a_parameter_of_many_choices_is_no_matter_of_hours() -> None:
    many = CategoricalDistribution(tuple(f"choice {number}" for number in range(40)))
    rng = np.random.default_rng(1)
    found: list[Entry] = [Session(SPEC, "here", "")]
    settings = make_config({"architecture": "vanilla_concat"}).params()
    for number in range(SPEC.trials):
        place, lr = int(rng.integers(40)), float(10 ** rng.uniform(-4, -2))
        texts = {"many": distribution_to_json(many), "lr": distribution_to_json(LR)}
        params = {"many": many.choices[place], "lr": lr}
        score = 0.4 + 0.3 * (place >= 20) + float(rng.normal(0, 0.01))
        found.append((number, Suggestion(params, texts, settings)))
        found += [(number, epoch_entry(epoch, score)) for epoch in range(1, EPOCHS + 1)]
        found.append((number, End("complete", "")))
    shares = {one.name: one for one in importances(Expected(history_of(SPEC, *found)))}
    assert shares["many"].fanova > 0.8
    assert shares["many"].ped_anova > shares["lr"].ped_anova


def test_a_single_parameter_has_no_share() -> None:
    found: list[Entry] = [Session(SPEC, "here", "")]
    settings = make_config({"architecture": "vanilla_concat"}).params()
    for number in range(12):
        texts = {"lr": distribution_to_json(LR)}
        found.append((number, Suggestion({"lr": 10 ** (-2 - number / 6)}, texts, settings)))
        found += [(number, epoch_entry(epoch, number / 20)) for epoch in range(1, EPOCHS + 1)]
        found.append((number, End("complete", "")))
    assert importances(Expected(history_of(SPEC, *found))) == []
