"""Greedy ensembles: what is chosen, what the nested score does not promise, and the bundle that
counts a trial several times.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import mmm
from mmm.bundle.read import Ensemble, load_bundle_or_ensemble
from mmm.cli.app import app
from search.results.export import export_several
from search.results.greedy import choose, select_greedily
from search.results.kept import kept_trials
from tests.conftest import Corpus
from tests.search.results.test_export import Sweep, export, validation
from tests.sweep_parts import METRIC

NAMES = ("neutral", "happy", "sad")


def noisy(num_trials: int, num_rows: int, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """Answers (M, N, 3), each trial's with noise of its own, and the truth."""
    generator = np.random.default_rng(3)
    truth = generator.integers(3, size=num_rows)
    logits = strength * np.eye(3)[truth] + generator.normal(size=(num_trials, num_rows, 3))
    shares = np.exp(logits)
    return shares / shares.sum(axis=-1, keepdims=True), truth


def test_the_selection_is_worth_at_least_as_much_as_the_best_trial_and_its_nested_score_less() -> (
    None
):
    shares, truth = noisy(12, 300, 1.0)
    dialogues = [f"d{row // 10}" for row in range(300)]
    found = choose(METRIC, range(12), shares, truth, NAMES, dialogues, 3)
    assert found.greedy.score > found.single.score
    assert found.greedy.nested is not None
    assert found.single.nested is not None
    assert found.greedy.score > found.greedy.nested > found.single.nested
    assert len(found.top.trials) == 3


def test_of_trials_that_know_nothing_the_nested_score_does_not_rise_above_chance() -> None:
    shares, truth = noisy(40, 300, 0.0)
    dialogues = [f"d{row // 10}" for row in range(300)]
    found = choose(METRIC, range(40), shares, truth, NAMES, dialogues, 3)
    assert found.greedy.nested is not None
    assert found.greedy.score > 0.42  # chosen on these very rows
    assert found.greedy.nested < 0.40


def test_a_trial_counts_as_often_as_it_helps() -> None:
    """Alone each answers one class; one to one the first row is wrong, two to one
    none is.
    """
    truth = np.array([0, 0, 0, 1])
    first = np.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.6, 0.4]])
    second = np.array([[0.0, 1.0], [0.3, 0.7], [0.3, 0.7], [0.1, 0.9]])
    found = choose(
        METRIC, [7, 4], np.stack([first, second]), truth, NAMES[:2], ["a", "a", "b", "b"], 2
    )
    assert (found.greedy.trials, found.greedy.said) == ((7, 7, 4), "trials 7 (2 times), 4")
    assert found.greedy.score == 1
    assert found.top.score < 1


def test_of_one_dialogue_there_is_no_nested_score() -> None:
    shares, truth = noisy(2, 8, 1.0)
    found = choose(METRIC, range(2), shares, truth, NAMES, ["d"] * 8, 3)
    assert found.greedy.nested is None


@pytest.fixture(scope="module")
def sweep(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    return Sweep(corpus, tmp_path_factory.mktemp("greedy") / "runs")


def test_the_score_of_the_selection_is_that_of_the_ensemble_it_is_exported_as(
    sweep: Sweep, tmp_path: Path
) -> None:
    history = sweep.history
    kept = kept_trials(history, sweep.folder)
    found = select_greedily(history, sweep.folder, kept, 3)
    assert (found.single.trials, found.num_candidates) == ((kept[0],), len(kept))
    assert found.single.score == history.ranked(METRIC)[0].best(METRIC)[1]  # type: ignore[index]
    export_several(
        history,
        sweep.folder,
        found.greedy.trials,
        tmp_path / "one",
        ensemble=True,
        selection=found.as_facts(),
    )
    assert validation(sweep, tmp_path / "one")[METRIC] == pytest.approx(found.greedy.score)
    card = (tmp_path / "one" / "README.md").read_text(encoding="utf-8")
    assert f"greedy selection ({found.greedy.said}): " in card


def test_a_member_that_counts_twice_has_twice_the_weight_and_is_there_once(
    sweep: Sweep, tmp_path: Path
) -> None:
    first, second = kept_trials(sweep.history, sweep.folder)[:2]
    numbers = [first, second, first]
    export_several(sweep.history, sweep.folder, numbers, tmp_path / "one", ensemble=True)
    one = load_bundle_or_ensemble(tmp_path / "one")
    assert isinstance(one, Ensemble)
    assert (len(one.members), one.repeats, one.provenance.trials) == (2, (2, 1), numbers)
    assert "counts as often as the table says" in (tmp_path / "one" / "README.md").read_text()
    audio = sweep.corpus.manifest.audio_path(sweep.corpus.manifest.utterances[3])
    answers = [mmm.load(member.path).predict(audio, "great") for member in one.members]
    expected = {label: (2 * answers[0][label] + answers[1][label]) / 3 for label in answers[0]}
    model = mmm.load(tmp_path / "one")
    assert model.predict(audio, "great") == pytest.approx(expected, abs=1e-6)
    assert one.temperature is not None
    shares = {label: value ** (1 / one.temperature) for label, value in expected.items()}
    calibrated = {label: value / sum(shares.values()) for label, value in shares.items()}
    words = ["predict", str(tmp_path / "one"), "--audio", str(audio), "--text", "great"]
    done = CliRunner().invoke(app, [*words, "--json", "--calibrated"])
    assert json.loads(done.stdout) == pytest.approx(calibrated, abs=1e-5)


def test_a_bundle_without_a_temperature_says_where_one_comes_from(
    sweep: Sweep, tmp_path: Path
) -> None:
    old = Path(__file__).parents[2] / "data" / "version_0_1_0" / "bundle-concat"
    with pytest.raises(ValueError, match=r"has no temperature to calibrate with; .* export it"):
        mmm.load(old, calibrated=True)


@pytest.mark.slow
def test_the_command_says_what_was_chosen_and_what_it_is_held_against(
    sweep: Sweep,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    status, told = export(sweep, capsys, monkeypatch, "small", "-o", tmp_path / "one", "--greedy")
    assert status == 0, told
    for said in ("the best single trial (trial ", "mean of the best 3 (", "greedy selection ("):
        assert said in told
    assert "a fresh process reproduced its validation macro_f1" in told
