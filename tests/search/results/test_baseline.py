"""The linear baseline of a sweep: what it is tuned over, and how the winner stands to it, in
words.
"""

import io
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from mmm.encoders.extract import encode_speech, encode_text
from mmm.manifest_csv import read_manifest
from mmm.metrics import value_of
from mmm.training.baselines import C_GRID, CLASS_WEIGHTS, baselines, tuned
from search.ledger.events import Entry
from search.ledger.history import History
from search.ledger.records import Baseline, DataNote, End, Event, ManifestDigest, Suggestion
from search.ledger.spec import SweepSpec
from search.results.baseline import baseline_of, fit_baseline, verdict
from search.results.leaderboard import leaderboard_table, write_leaderboard
from search.session import start
from search.space.settings import trial_config
from spaces import SPACES
from tests.conftest import Corpus, small_speech_encoder, small_text_encoder
from tests.sweep_parts import METRIC, epoch_entry, history_of, small_spec

SPEC = SweepSpec("first", "quick", "manifest.csv", "features", trials=6, epochs=4, workers=2)
SETTINGS = {"architecture": "linear", "context": 2, "c": 0.01, "class_weight": "inverse"}


def history_with(*scores: float, baseline: float | None = 0.5) -> History:
    """Trials with these scores, and a baseline with its own."""
    entries: list[Entry] = []
    if baseline is not None:
        entries.append(Baseline(SETTINGS, {METRIC: baseline}, 1.25, "", 0, data_changes=0))
    for number, score in enumerate(scores):
        settings = {"architecture": "mlp_mixer", "context": 3}
        entries += [
            (number, Suggestion({"lr": 0.1}, {}, settings)),
            (number, epoch_entry(1, score)),
            (number, End("complete", "")),
        ]
    return history_of(SPEC, *entries)


@pytest.mark.parametrize(
    ("score", "words"),
    [
        (
            0.75,
            (
                "the winner is above the linear baseline: macro_f1 0.7500 (trial 0, mlp_mixer)"
                " against 0.5000 (logistic regression, K=2 C=0.01 class_weight=inverse)"
            ),
        ),
        (
            0.25,
            (
                "the winner is below the linear baseline: macro_f1 0.2500 (trial 0, mlp_mixer)"
                " against 0.5000 (logistic regression, K=2 C=0.01 class_weight=inverse); its bundle"
                " is in baseline/ beside the sweep's"
            ),
        ),
        (
            0.5,
            (
                "the winner is level with the linear baseline: macro_f1 0.5000 (trial 0, mlp_mixer)"
                " against 0.5000 (logistic regression, K=2 C=0.01 class_weight=inverse); its bundle"
                " is in baseline/ beside the sweep's"
            ),
        ),
    ],
)
def test_how_the_winner_stands_to_the_baseline_is_said_in_words(score: float, words: str) -> None:
    assert verdict(history_with(score)) == words


def test_nothing_is_said_without_a_baseline_or_a_score() -> None:
    assert verdict(history_with(0.75, baseline=None)) is None
    assert verdict(history_with()) is None


def test_a_baseline_on_data_that_were_changed_since_does_not_count() -> None:
    history = history_with(0.75)
    manifest = ManifestDigest("corpus", "manifest.csv", "0")
    note = DataNote(manifest, (), changed=("train labels",), only_train_labels=True)
    history.apply(Event(99, 99.0, None, note))
    assert baseline_of(history) is None


@pytest.mark.parametrize(("baseline", "place"), [(0.9, 0), (0.5, 1), (0.1, 3)])
def test_it_stands_in_the_leaderboard_where_its_score_puts_it(
    baseline: float, place: int, tmp_path: Path
) -> None:
    history = history_with(0.6, 0.4, 0.3, baseline=baseline)
    for width in (80, 200):
        console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
        console.print(leaderboard_table(history, METRIC, 10, None, width))
        rows = [line for line in console.export_text().splitlines() if line.startswith("│")]
        assert ["baseline" in row for row in rows] == [number == place for number in range(4)]
        assert "linear" in rows[place]
    write_leaderboard(tmp_path / "leaderboard.csv", history, METRIC)
    lines = (tmp_path / "leaderboard.csv").read_text().splitlines()
    assert len(lines) == 5
    assert lines[-1].startswith(f",linear,baseline,{baseline},")


def test_it_is_tuned_over_all_that_the_folder_holds_and_is_the_baseline_of_mmm_baselines(
    corpus: Corpus, tmp_path: Path
) -> None:
    told: list[str] = []
    found = fit_baseline(small_spec(corpus), corpus.manifest, tmp_path, 0, told.append)
    # Speech: features and poolings; text: contexts; both: the best two of each.
    total = len(C_GRID) * len(CLASS_WEIGHTS) * (2 * 2 + 3 + 2 * 2)
    assert told[-1] == f"linear baseline: {total} of {total} settings tried"
    _, *fitted = baselines(corpus.manifest, corpus.features_dir)
    assert [one.name.rpartition(" ")[2] for one in fitted] == ["speech", "text", "both"]
    best = max(fitted, key=lambda one: value_of(one.metrics, METRIC))
    assert best.metrics == found.metrics
    assert best.settings["C"] == found.settings["c"]
    assert best.name == f"logistic regression, {found.settings['inputs']}"


def test_features_of_a_part_of_the_corpus_are_left_out_and_refused_where_there_are_no_others(
    corpus: Corpus, tmp_path: Path
) -> None:
    rows = corpus.manifest.path.read_text(encoding="utf-8").splitlines()
    (tmp_path / "wav").symlink_to(corpus.manifest.path.parent / "wav")
    part = tmp_path / "part.csv"
    part.write_text("\n".join([rows[0], *rows[11:]]) + "\n", encoding="utf-8")
    features = tmp_path / "features"
    list(encode_speech(corpus.manifest, features, small_speech_encoder(), ["hidden_state"]))
    list(encode_text(read_manifest(part), features, small_text_encoder(), [2]))
    with pytest.raises(ValueError, match=r"no text features for \d+ of 40 utterances"):
        list(tuned(corpus.manifest, features, METRIC, {}))
    list(encode_text(corpus.manifest, features, small_text_encoder(), [1]))
    *_, (done, total, config) = tuned(corpus.manifest, features, METRIC, {"inputs": "text"})
    assert done == total == len(C_GRID) * len(CLASS_WEIGHTS)  # one context of two
    assert config is not None
    assert config.context == 1


def test_what_is_given_is_not_tuned(corpus: Corpus) -> None:
    given = {
        "context": 2,
        "audio_feature": "extract_feature",
        "pooling": "mean",
        "class_weight": "none",
        "c": 0.1,
        "inputs": "both",
    }
    ((done, total, config),) = tuned(corpus.manifest, corpus.features_dir, METRIC, given)
    assert (done, total) == (1, 1)
    assert config is not None
    assert given.items() <= config.params().items()


def test_the_published_space_has_no_baseline_and_a_space_may_not_suggest_it(corpus: Corpus) -> None:
    assert [name for name, space in SPACES.items() if not space.has_baseline] == ["paper"]
    with pytest.raises(
        ValueError, match="architecture=linear is the baseline that every sweep fits by itself"
    ):
        trial_config({"architecture": "linear"}, small_spec(corpus))


def test_a_sweep_over_the_published_recipes_trains_without_one(
    corpus: Corpus, empty_store: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    shutil.copy(empty_store, runs)
    spec = replace(small_spec(corpus), space="paper", trials=1, epochs=1, first_rung=1)
    history = start(spec, runs, Console(file=io.StringIO()), serial=True)
    assert history.baseline is None
    assert history.trials[0].settings["input_scaling"] == "none"
