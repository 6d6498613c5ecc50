"""A sweep exported as an Optuna storage: Optuna itself reads back every trial as the ledger has
it.
"""

from datetime import datetime
from pathlib import Path

import optuna
import pytest
from optuna.distributions import (
    CategoricalDistribution,
    distribution_to_json,
    json_to_distribution,
)
from optuna.trial import TrialState

from search.ledger.events import create_sweep, read_history
from search.ledger.history import History
from search.ledger.records import End, Suggestion
from search.ledger.spec import SweepSpec
from search.results.optuna_study import export_study
from search.suggest.searcher import Searcher
from spaces import SPACES
from tests.conftest import names_in
from tests.sweep_parts import METRIC, call_here, epoch_entry

SPEC = SweepSpec("first", "full", "manifest.csv", "features", trials=9, epochs=9, workers=2)
ENDS = (
    "complete",
    "pruned",
    "failed",
    None,
    "failed",
)  # of trials 0 to 4; the last failed before its first epoch
STATES = [
    TrialState.COMPLETE,
    TrialState.PRUNED,
    TrialState.FAIL,
    TrialState.RUNNING,
    TrialState.FAIL,
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    with create_sweep(runs / "first", SPEC) as ledger:
        searcher = Searcher(SPACES["full"], METRIC, 1, {})
        for number, state in enumerate(ENDS):
            params, distributions, settings = searcher.suggest(number)
            ledger.append((number, Suggestion(params, distributions, settings)))
            if number < 4:
                ledger.append(
                    *(
                        (number, epoch_entry(epoch, 0.1 * number + 0.01 * epoch))
                        for epoch in (1, 2, 3)
                    )
                )
            if state is not None:
                ledger.append((number, End(state, f"why {state}")))
    return runs


@pytest.fixture(scope="module")
def history(runs: Path) -> History:
    return read_history(runs / "first" / "ledger.sqlite")


def test_optuna_loads_every_trial_as_the_ledger_has_it(history: History, tmp_path: Path) -> None:
    export_study(history, tmp_path / "study.db")
    assert names_in(tmp_path) == ["study.db"]
    study = optuna.load_study(study_name="first", storage=f"sqlite:///{tmp_path / 'study.db'}")
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE
    assert study.metric_names == [METRIC]
    assert [trial.state for trial in study.trials] == STATES
    for found, trial in zip(study.trials, history.trials.values(), strict=True):
        assert found.params == trial.params
        assert found.distributions == {
            name: json_to_distribution(text) for name, text in trial.distributions.items()
        }
        assert found.intermediate_values == trial.scores(METRIC)
        assert found.datetime_start == datetime.fromtimestamp(trial.suggested)
        assert found.datetime_complete == (
            None if trial.ended is None else datetime.fromtimestamp(trial.ended)
        )
        assert found.user_attrs == {
            "settings": trial.settings,
            "state": trial.state,
            "reason": trial.reason,
            "architecture": trial.settings["architecture"],
            "seconds": trial.alone_seconds,
        }
    assert study.best_trial.number == 0
    assert study.best_value == history.trials[0].scores(METRIC)[3]


def test_choices_that_a_later_session_added_are_those_of_all_trials(tmp_path: Path) -> None:
    """Sweeps begun when there were four systems go on with six."""
    with create_sweep(tmp_path / "first", SPEC) as ledger:
        for number, choices in enumerate((["a", "b"], ["a", "b", "c"])):
            text = distribution_to_json(CategoricalDistribution(choices))
            point = {"architecture": choices[-1]}
            ledger.append((number, Suggestion(point, {"architecture": text}, point)))
        history = ledger.history
    export_study(history, tmp_path / "study.db")
    study = optuna.load_study(study_name="first", storage=f"sqlite:///{tmp_path / 'study.db'}")
    assert [trial.params for trial in study.trials] == [
        {"architecture": "b"},
        {"architecture": "c"},
    ]
    for trial in study.trials:
        assert trial.distributions == {"architecture": CategoricalDistribution(["a", "b", "c"])}


def test_the_command_writes_it_and_never_over_another_file(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "new" / "study.db"
    status, told, _ = call_here(capsys, monkeypatch, "export-study", "first", out, "--runs", runs)
    assert (status, told) == (
        0,
        f"study 'first' in {out}; look at it with: optuna-dashboard sqlite:///{out}\n",
    )
    assert len(optuna.load_study(study_name=None, storage=f"sqlite:///{out}").trials) == len(ENDS)
    before = out.read_bytes()
    status, _, told = call_here(capsys, monkeypatch, "export-study", "first", out, "--runs", runs)
    assert (status, told) == (2, f"error: {out} exists; remove it or name another file\n")
    assert out.read_bytes() == before
