"""The searcher: a study is what the ledger says, whoever lived through it; spaces are checked
before they are searched.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from mmm.models import ARCHITECTURES, PUBLISHED
from mmm.training.config import make_config, published_params
from search.ledger.events import Ledger, create_sweep, read_history
from search.ledger.records import End, Suggestion
from search.ledger.spec import SweepSpec
from search.ledger.trial import State, Trial
from search.space.load import check_space, load_space
from search.suggest.searcher import SAMPLERS, Searcher
from spaces import SPACES, Space
from tests.sweep_parts import METRIC, epoch_entry, trial_with, write_space

EPOCHS = 5
RUNGS = (3, EPOCHS)


def outcome(number: int, params: Mapping[str, Any]) -> tuple[State, dict[int, float]]:
    """How a made-up trial ends: its state and scores, decided by its parameters and number."""
    height = 0.2 * params["context"] - 0.3 * abs(params["dropout"] - 0.2)
    scores = {
        epoch: round(height * (1 - 0.5**epoch) + 0.001 * number, 6)
        for epoch in range(1, EPOCHS + 1)
    }
    scores[EPOCHS] -= 0.5  # so that the best epoch is not the last
    if is_lost(number):
        return "failed", {1: scores[1], 2: scores[2], 3: scores[3]}
    if number % 7 == 6:
        return "failed", {1: scores[1], 2: scores[2]}
    if number % 11 == 10:
        return "failed", {}
    if number % 3 == 1:
        return "pruned", {epoch: scores[epoch] for epoch in (1, 2, 3)}
    return "complete", scores


def is_lost(number: int) -> bool:
    """Whether a made-up trial fails because its workers died."""
    return number % 8 == 7


def can_be_trained(settings: Mapping[str, Any]) -> None:
    make_config({**settings, "epochs": 1})


def live_through(ledger: Ledger, searcher: Searcher, number: int) -> None:
    """Suggest a trial, let it end and tell of it, with everything in the ledger first, as a sweep
    does.
    """
    params, distributions, settings = searcher.suggest(number)
    state, scores = outcome(number, params)
    ledger.append((number, Suggestion(params, distributions, settings)))
    ledger.append(*((number, epoch_entry(*pair)) for pair in scores.items()))
    ledger.append((number, End(state, "", is_lost=is_lost(number))))
    searcher.tell(ledger.history.trials[number])


@pytest.fixture
def ledger(tmp_path: Path) -> Any:
    spec = SweepSpec(
        "sweep", "quick", "manifest.csv", "features", trials=26, epochs=EPOCHS, workers=1
    )
    with create_sweep(tmp_path / "sweep", spec) as opened:
        yield opened


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_searcher_rebuilt_from_the_ledger_suggests_what_the_one_that_lived_through_it_does(
    ledger: Ledger, sampler: str
) -> None:
    space = SPACES["quick"]
    lived = Searcher(space, METRIC, 1, ledger.history.trials, rungs=RUNGS, sampler=sampler)
    seen: set[State] = set()
    for number in range(50):
        rebuilt = Searcher(
            space, METRIC, 1, read_history(ledger.path).trials, rungs=RUNGS, sampler=sampler
        )
        foreseen = rebuilt.suggest(number)
        live_through(ledger, lived, number)
        trial = ledger.history.trials[number]
        assert foreseen == (trial.params, trial.distributions, trial.settings), number
        seen.add(trial.state)
    assert seen == {"complete", "pruned", "failed"}


@pytest.mark.parametrize("sampler", ["model", "tpe"])
def test_the_sampler_learns_from_the_history(ledger: Ledger, sampler: str) -> None:
    # Had the rebuilt study been empty, the test above would hold for any seeded sampler.
    lived = Searcher(
        SPACES["quick"], METRIC, 1, ledger.history.trials, rungs=RUNGS, sampler=sampler
    )
    for number in range(60):
        live_through(ledger, lived, number)
    reversed_scores = {
        number: trial_with(number, {e: -s for e, s in trial.scores(METRIC).items()}, trial.state)
        for number, trial in ledger.history.trials.items()
    }
    for number, trial in reversed_scores.items():
        trial.params, trial.distributions = (
            ledger.history.trials[number].params,
            ledger.history.trials[number].distributions,
        )
    other = Searcher(SPACES["quick"], METRIC, 1, reversed_scores, rungs=RUNGS, sampler=sampler)
    assert any(other.suggest(60 + n) != lived.suggest(60 + n) for n in range(3))


def test_another_seed_suggests_something_else() -> None:
    free = Space(SPACES["quick"].suggest)
    assert Searcher(free, METRIC, 1, {}).suggest(0) == Searcher(free, METRIC, 1, {}).suggest(0)
    assert Searcher(free, METRIC, 1, {}).suggest(0) != Searcher(free, METRIC, 2, {}).suggest(0)


@pytest.mark.parametrize("is_rebuilt", [False, True])
def test_states_and_values_in_the_study_are_those_of_the_ledger(
    ledger: Ledger, is_rebuilt: bool
) -> None:
    searcher = Searcher(SPACES["quick"], METRIC, 1, {})
    for number in range(12):
        live_through(ledger, searcher, number)
    if is_rebuilt:
        searcher = Searcher(SPACES["quick"], METRIC, 1, read_history(ledger.path).trials)
    expected = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED}
    for frozen, trial in zip(searcher.study.trials, ledger.history.trials.values(), strict=True):
        # One whose workers died is told as failed, without a score that would make it more than
        # that.
        scores = {} if trial.is_lost else trial.scores(METRIC)
        assert frozen.params == trial.params
        assert frozen.intermediate_values == scores
        # A failed trial with scores is told as pruned, so that the sampler avoids where it was.
        assert frozen.state == expected.get(
            trial.state, TrialState.PRUNED if scores else TrialState.FAIL
        )
        assert frozen.user_attrs["state"] == trial.state
        if trial.state == "complete":
            best = trial.best(METRIC)
            assert best is not None
            assert best[0] == EPOCHS - 1
            assert frozen.value == best[1]
        if trial.state == "pruned":
            assert max(frozen.intermediate_values) == 3  # the result that stopped it is there
            assert frozen.value in (None, scores[3])  # Optuna fills it in where it was told


@pytest.mark.parametrize("state", ["complete", "pruned", "failed"])
def test_a_trial_of_an_earlier_session_is_told_without_a_warning(state: State) -> None:
    space = SPACES["quick"]
    params, distributions, settings = Searcher(space, METRIC, 1, {}).suggest(0)
    trial = Trial(
        0, params, distributions, settings, 0.0, epochs=[epoch_entry(1, 0.1), epoch_entry(2, 0.2)]
    )
    searcher = Searcher(space, METRIC, 1, {0: trial})
    assert searcher.study.trials[0].state == TrialState.RUNNING
    trial.epochs.append(epoch_entry(3, 0.3))
    trial.state = state
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        searcher.tell(trial)
    assert searcher.study.trials[0].intermediate_values == {1: 0.1, 2: 0.2, 3: 0.3}
    assert searcher.study.trials[0].state == (
        TrialState.COMPLETE if state == "complete" else TrialState.PRUNED
    )


def test_parameters_that_an_architecture_does_not_have_are_absent() -> None:
    searcher = Searcher(SPACES["quick"], METRIC, 1, {})
    for number in range(4):
        params, distributions, settings = searcher.suggest(number)
        assert params.keys() == distributions.keys()
        owned = {"cross_attention": {"layers", "heads"}, "mlp_mixer": {"width", "num_blocks"}}.get(
            settings["architecture"], {"width"}
        )
        assert params.keys() & {"layers", "heads", "width", "num_blocks"} == owned


def test_known_good_points_run_first_and_as_they_are_written() -> None:
    for name, space in SPACES.items():
        searcher = Searcher(space, METRIC, 1, {})
        for number, point in enumerate(space.known_good):
            params, _, settings = searcher.suggest(number)
            assert params == point, name
            make_config({**settings, "epochs": 1})


@pytest.mark.parametrize("name", SPACES)
def test_every_setting_a_shipped_space_suggests_can_be_trained(name: str) -> None:
    drawn = check_space(SPACES[name], can_be_trained)
    searched = PUBLISHED if name == "paper" else ARCHITECTURES
    assert {settings["architecture"] for settings in drawn} == set(searched)


def test_the_paper_space_is_the_published_recipes() -> None:
    searcher = Searcher(SPACES["paper"], METRIC, 1, {})
    found = [make_config({**searcher.suggest(number)[2], "epochs": 7}) for number in range(4)]
    assert found == [make_config({**published_params(name), "epochs": 7}) for name in PUBLISHED]


def test_check_space_visits_every_choice_and_both_ends_of_every_range() -> None:
    drawn = check_space(SPACES["full"], lambda settings: None)
    assert {settings["lr"] for settings in drawn} >= {5e-5, 5e-3}
    assert {settings["dropout"] for settings in drawn} >= {0.0, 0.7}
    assert {settings["context"] for settings in drawn} == {1, 2, 3, 4, 5}
    assert {settings["num_blocks"] for settings in drawn if "num_blocks" in settings} == {
        1,
        2,
        3,
        4,
    }


def test_one_rare_choice_that_cannot_be_trained_is_found_and_the_suggestion_named() -> None:
    def suggest(trial: optuna.Trial) -> dict[str, Any]:
        rare = trial.suggest_categorical("rare", [False] * 1 + [True])
        deeper = trial.suggest_int("deeper", 1, 5000) if rare else 0
        return {"architecture": "vanilla_concat", "dropout": 1.5 if deeper == 5000 else 0.1}

    with pytest.raises(
        ValueError, match=r"cannot be trained: dropout=1\.5 is out of range"
    ) as caught:
        check_space(Space(suggest), can_be_trained)
    assert "suggested: {'rare': True, 'deeper': 5000}" in str(caught.value)


def test_a_space_that_fails_is_named_with_what_it_had_suggested() -> None:
    def suggest(trial: optuna.Trial) -> dict[str, Any]:
        return {"heads": {1: 8}[trial.suggest_int("layers", 1, 2)]}

    with pytest.raises(ValueError, match=r"the space fails on \{'layers': 2\}: KeyError: 2"):
        check_space(Space(suggest), lambda settings: None)


def test_a_known_good_point_that_cannot_be_trained_is_named() -> None:
    def suggest(trial: optuna.Trial) -> dict[str, Any]:
        return {
            "architecture": "vanilla_concat",
            "dropout": trial.suggest_float("dropout", 0.0, 2.0),
        }

    with pytest.raises(
        ValueError,
        match=r"a known good point of the space cannot be trained: dropout=2\.0 .*\n  point: ",
    ):
        check_space(Space(suggest, ({"dropout": 2.0},)), can_be_trained)


@pytest.mark.parametrize(
    "point",
    [{"dropout": 0.7}, {"dropout": 0.1, "width": 128}, {"dropout": 0.1, "lrr": 1e-3}],
    ids=["range", "choice", "name"],
)
def test_a_known_good_point_outside_its_space_is_refused(point: dict[str, Any]) -> None:
    def suggest(trial: optuna.Trial) -> dict[str, Any]:
        return {
            "architecture": "vanilla_concat",
            "dropout": trial.suggest_float("dropout", 0.0, 0.5),
            "width": trial.suggest_categorical("width", [32, 64]),
        }

    with pytest.raises(ValueError, match="known good point"):
        check_space(Space(suggest, (point,)), lambda settings: None)


def test_spaces_are_loaded_by_name_and_by_file(tmp_path: Path) -> None:
    assert load_space("quick") is SPACES["quick"]
    name = write_space(
        tmp_path / "mine.py",
        "KNOWN_GOOD = [{'context': 2}]\ndef suggest(trial):\n    return {'context': 2}\n",
    )
    space = load_space(name)
    assert space.suggest(None) == {"context": 2}
    assert space.known_good == ({"context": 2},)


def test_an_unknown_space_is_refused_naming_those_there_are() -> None:
    with pytest.raises(
        ValueError,
        match=r"unknown space 'quik'; expected one of quick, full, paper, or path/to/file\.py:func",
    ):
        load_space("quik")


def test_a_missing_space_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.py: no such file, named by the space"):
        load_space(f"{tmp_path}/none.py:suggest")


def test_a_missing_function_is_refused_naming_those_there_are(tmp_path: Path) -> None:
    write_space(tmp_path / "mine.py", "def propose(trial):\n    return {}\n")
    with pytest.raises(ValueError, match=r"mine\.py: no function 'suggest' \(found: propose\)"):
        load_space(f"{tmp_path}/mine.py:suggest")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("def suggest(trial:\n", "SyntaxError: '\\(' was never closed"),
        ("import no_such\n", "ModuleNotFound"),
    ],
)
def test_a_file_that_cannot_be_run_is_refused_with_its_fault(
    tmp_path: Path, text: str, fault: str
) -> None:
    name = write_space(tmp_path / "broken.py", text)
    with pytest.raises(ValueError, match=rf"broken\.py: cannot be loaded as a space: {fault}"):
        load_space(name)
