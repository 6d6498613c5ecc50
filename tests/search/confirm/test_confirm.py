"""`mmm-search confirm` of a small sweep, from the command line to the verdict."""

import json
import shutil
import signal
import subprocess
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from mmm.bundle.sealed_test import opener, read_openings
from mmm.files import sha256_of_file
from search.confirm.finalists import choose_finalists, with_more
from search.confirm.scores import scores_of
from search.ledger.events import create_sweep, read_history
from search.tracking.store import open_client
from tests.conftest import Corpus
from tests.search.test_folds import same_words, write_sessions
from tests.sweep_parts import (
    TIMEOUT_S,
    call_inside,
    command,
    environment,
    small_spec,
    write_space,
)

SPACE = """
KNOWN_GOOD = ({"architecture": "vanilla_concat", "lr": 0.01},)

def suggest(trial):
    return {
        "architecture": trial.suggest_categorical(
            "architecture", ["vanilla_concat", "three_way_concat"]
        ),
        "context": 1,
        "lr": trial.suggest_float("lr", 1e-3, 3e-2, log=True),
        "classifier_hidden": 12,
        "batch_size": 6,
        "width": 8,
    }
"""
SEEDS = 3
ASKED = ["confirm", "small", "--top", 2, "--seeds", SEEDS, "--include-default", "--serial"]


@pytest.fixture(scope="module")
def swept(corpus: Corpus, empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runs folder with the sweep `small`; to be copied."""
    folder = tmp_path_factory.mktemp("swept")
    (runs := folder / "runs").mkdir()
    shutil.copy(empty_store, runs)
    space = write_space(folder / "space.py", SPACE)
    call_inside(
        *("search", "run", space, corpus.manifest.path, "--features", corpus.features_dir),
        *("--name", "small", "--trials", 4, "--epochs", 3, "--first-rung", 2, "--serial"),
        *("--runs", runs),
    )
    return runs


@pytest.fixture(scope="module")
def confirmed(swept: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, confirmed once, without trouble."""
    runs = tmp_path_factory.mktemp("confirmed") / "runs"
    shutil.copytree(swept, runs)
    call_inside("search", *ASKED, "--runs", runs)
    return runs


def result(runs: Path) -> dict[str, object]:
    return json.loads((runs / "small" / "confirm.json").read_text(encoding="utf-8"))


def test_finalists_are_trained_with_fresh_seeds_to_their_last_epoch(confirmed: Path) -> None:
    searched = read_history(confirmed / "small" / "ledger.sqlite")
    trained = read_history(confirmed / "small-confirm" / "ledger.sqlite")
    finalists = choose_finalists(searched, 2, per_system=False, include_default=True)
    assert len(trained.trials) == SEEDS * len(finalists)
    assert {trial.state for trial in trained.trials.values()} == {"complete"}
    assert {trial.epoch for trial in trained.trials.values()} == {3}
    used = {trial.settings["seed"] for trial in searched.trials.values()}
    for finalist in finalists:
        seeds = [
            trial.settings["seed"]
            for trial in trained.trials.values()
            if trial.params == {"finalist": finalist.name}
        ]
        assert len(set(seeds)) == SEEDS
        assert not used & set(seeds)


def test_means_are_those_of_the_ledger_and_the_leader_comes_first(confirmed: Path) -> None:
    found = result(confirmed)
    trained = read_history(confirmed / "small-confirm" / "ledger.sqlite")
    finalists: list[dict[str, object]] = found["finalists"]  # type: ignore[assignment]
    means = [one["mean"] for one in finalists]
    assert means == sorted(means, reverse=True)  # type: ignore[type-var]
    for one in finalists:
        scores = [
            best[1]
            for trial in trained.trials.values()
            if trial.params["finalist"] == one["name"] and (best := trial.best("macro_f1"))
        ]
        assert one["scores"] == pytest.approx(scores)
        assert one["mean"] == pytest.approx(sum(scores) / SEEDS)
    assert found["baseline"] is not None
    assert len(found["to_baseline"]) == len(finalists)  # type: ignore[arg-type]


def test_ten_rows_of_ten_files_say_that_their_speakers_and_dialogues_are_few(
    confirmed: Path,
) -> None:
    found = result(confirmed)
    assert found["units"] == "10 audio files"
    assert any("fewer than 10" in limit for limit in found["limits"])  # type: ignore[attr-defined]


def test_the_page_holds_the_verdict_and_nothing_from_elsewhere(confirmed: Path) -> None:
    page = (confirmed / "small" / "confirm.html").read_text(encoding="utf-8")
    assert "Finalists" in page
    assert "All figures are of the validation rows" in page
    assert "<svg" in page
    assert "src=" not in page


def test_run_again_it_trains_nothing_and_says_the_same_as_json(confirmed: Path) -> None:
    before = (confirmed / "small-confirm" / "ledger.sqlite").read_bytes()
    told = call_inside("search", *ASKED, "--json", "--runs", confirmed)
    assert json.loads(told.stdout) == result(confirmed)
    assert (confirmed / "small-confirm" / "ledger.sqlite").read_bytes() == before


def test_the_table_fits_into_eighty_columns(confirmed: Path) -> None:
    told = call_inside("search", *ASKED, "--runs", confirmed)
    table = told.stdout[told.stdout.index("finalist") : told.stdout.index("columns: seeds")]
    assert max(len(line.rstrip()) for line in table.splitlines()) <= 80


def test_other_finalists_than_it_began_with_are_refused(confirmed: Path) -> None:
    told = call_inside(
        *("search", "confirm", "small", "--top", 3, "--serial", "--runs", confirmed), status=2
    )
    assert "was begun with the finalists" in told.stderr
    assert "--as small-confirm-2" in told.stderr


@pytest.fixture(scope="module")
def opened(confirmed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, with the test split opened for the leader."""
    runs = tmp_path_factory.mktemp("opened") / "runs"
    shutil.copytree(confirmed, runs)
    call_inside("search", *ASKED, "--open-test", "leader", "--runs", runs)
    return runs


def test_the_test_split_is_opened_for_the_runs_of_who_is_named(
    corpus: Corpus, confirmed: Path, opened: Path
) -> None:
    leader = result(confirmed)["finalists"][0]["name"]  # type: ignore[index]
    assert result(confirmed)["opening"] is None
    (scores,) = result(opened)["opening"]["finalists"]  # type: ignore[index]
    history = read_history(opened / "small-confirm" / "ledger.sqlite")
    ((_, event),) = history.opened_test
    assert (scores["finalist"], event.finalists) == (leader, (leader,))
    assert event.who == opener()
    assert len(scores["scores"]) == SEEDS
    assert scores["scores"] == [history.test_scores[n]["macro_f1"] for n in scores["trials"]]
    digests = {sha256_of_file(path) for path in opened.glob("*/opened/*/model.safetensors")}
    rows = [row for row in read_openings(corpus.features_dir) if row["weights_sha256"] in digests]
    assert [row["who"] for row in rows] == [opener()] * SEEDS
    # Nothing else has moved, but for what is said of it.
    said = result(confirmed)["sentences"]
    assert {**result(opened), "opening": None, "sentences": said} == result(confirmed)


def test_mlflow_has_the_test_scores_beside_the_runs(opened: Path) -> None:
    history = read_history(opened / "small-confirm" / "ledger.sqlite")
    client, experiment = open_client(opened, None)
    runs = client.search_runs([experiment], max_results=1000)
    found = {
        int(run.data.tags["mmm.trial"]): run.data.metrics["test/macro_f1"]
        for run in runs
        if "test/macro_f1" in run.data.metrics
    }
    assert found == {n: one["macro_f1"] for n, one in history.test_scores.items()}
    assert opener() in [run.data.tags.get("mmm.test_opened_by") for run in runs]


def test_it_is_opened_once_and_for_nobody_else(opened: Path, corpus: Corpus) -> None:
    before = read_openings(corpus.features_dir)
    told = call_inside("search", *ASKED, "--open-test", "leader", "--runs", opened)
    assert "On the test split" in told.stdout
    assert read_openings(corpus.features_dir) == before
    told = call_inside("search", *ASKED, "--open-test", "all", "--runs", opened, status=2)
    assert "so that it is opened once" in told.stderr
    told = call_inside("search", *ASKED, "--open-test", "99", "--runs", opened, status=2)
    assert "no finalist with a run is called so" in told.stderr
    assert read_openings(corpus.features_dir) == before


@pytest.mark.slow
def test_over_folds_the_rows_of_all_of_them_are_scored(empty_store: Path, tmp_path: Path) -> None:
    sessions = write_sessions(tmp_path / "sessions", same_words)
    (runs := tmp_path / "runs").mkdir()
    shutil.copy(empty_store, runs)
    space = write_space(tmp_path / "space.py", SPACE)
    call_inside(
        *("search", "run", space, sessions.manifest.path, "--features", sessions.features_dir),
        *("--name", "small", "--trials", 2, "--epochs", 3, "--folds", "--serial", "--runs", runs),
    )
    told = call_inside(
        *("search", "confirm", "small", "--top", 1, "--seeds", 2, "--serial", "--runs", runs)
    )
    assert "the rows of 5 folds, each answered by what was trained without it" in told.stdout
    history = read_history(runs / "small-confirm" / "ledger.sqlite")
    (one,) = result(runs)["finalists"]  # type: ignore[misc]
    rows = sessions.manifest.rows_in_folds()
    assert (result(runs)["folds"], result(runs)["num_rows"]) == (5, len(rows))
    for trial, score, searched_as in zip(
        history.trials.values(), one["scores"], one["searched_as"], strict=True
    ):
        assert len(trial.folds) == 5  # none of them was given up
        epoch, mean = trial.best("macro_f1")  # type: ignore[misc]
        assert searched_as == mean
        # The ledger has a confusion matrix for each fold; together they are what is scored.
        matrix = trial.metrics(epoch)["confusion_matrix"]
        assert np.sum(matrix) == len(rows)
        assert score == pytest.approx(float(scores_of(np.array(matrix, dtype=float), "macro_f1")))


def test_a_sweep_without_a_score_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    with create_sweep(tmp_path / "small", small_spec(corpus)):
        pass
    told = call_inside("search", *ASKED, "--runs", tmp_path, status=2)
    assert "has no ended trial with a score to confirm" in told.stderr


@pytest.mark.slow
def test_ctrl_c_ends_it_without_a_verdict_and_says_how_to_go_on(
    swept: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(swept, runs)
    with subprocess.Popen(
        command("search", *ASKED, "--runs", runs),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if line.startswith("trial ") and " complete " in line:
                process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT_S) == 0
    assert "not confirmed yet (interrupted); go on with the same command: mmm-search confirm" in (
        "".join(said)
    )
    assert not (runs / "small" / "confirm.json").exists()


def test_a_queue_is_filled_round_by_round() -> None:
    begun = with_more([], ["a", "b"], 1)
    assert begun == [{"finalist": "a"}, {"finalist": "b"}]
    more = with_more(begun, ["b"], 3)
    assert more == [*begun, {"finalist": "b"}, {"finalist": "b"}]
    assert with_more(more, ["a", "b"], 2)[len(more) :] == [{"finalist": "a"}]
    assert with_more(more, ["a", "b"], 4, one_round=True)[len(more) :] == [{"finalist": "a"}]
    assert with_more(more, ["b"], 3) == more


@pytest.mark.slow
def test_a_race_of_finalists_that_tie_gives_all_of_them_their_seeds(
    confirmed: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    runs = tmp_path_factory.mktemp("race") / "runs"
    shutil.copytree(confirmed, runs)
    asked = [*ASKED[:5], SEEDS + 2, *ASKED[6:], "--race"]
    call_inside("search", *asked, "--runs", runs)
    found = result(runs)
    by_name = {one["first"]: one["verdict"] for one in found["to_leader"]}  # type: ignore[attr-defined]
    for one in found["finalists"]:  # type: ignore[attr-defined]
        if by_name.get(one["name"]) != "worse":
            assert len(one["scores"]) == SEEDS + 2


@pytest.mark.slow
def test_more_seeds_go_on_from_those_that_are_there(
    confirmed: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    runs = tmp_path_factory.mktemp("more") / "runs"
    shutil.copytree(confirmed, runs)
    asked = [*ASKED[:5], SEEDS + 1, *ASKED[6:]]
    call_inside("search", *asked, "--runs", runs)
    before, after = (result(folder)["finalists"] for folder in (confirmed, runs))
    scores = {one["name"]: one["scores"] for one in after}  # type: ignore[attr-defined]
    for one in before:  # type: ignore[attr-defined]
        assert len(scores[one["name"]]) == SEEDS + 1
        assert scores[one["name"]][:SEEDS] == one["scores"]


@pytest.mark.slow
def test_killed_three_times_and_run_again_it_says_the_same_and_mlflow_has_each_run_once(
    swept: Path, confirmed: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    runs = tmp_path_factory.mktemp("killed") / "runs"
    shutil.copytree(swept, runs)
    for _ in range(3):
        with subprocess.Popen(
            command("search", *ASKED, "--runs", runs),
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("trial ") and " complete " in line:
                    break
            process.kill()
            process.wait(TIMEOUT_S)
    call_inside("search", *ASKED, "--runs", runs)
    assert result(runs) == result(confirmed)
    trained = read_history(runs / "small-confirm" / "ledger.sqlite")
    client, experiment = open_client(runs, None)
    by_sweep: dict[str, list[str]] = defaultdict(list)
    for run in client.search_runs([experiment], max_results=1000):
        by_sweep[run.data.tags["mmm.sweep_id"]].append(run.data.tags["mmm.trial"])
    wanted = ["sweep", *map(str, trained.trials)]
    assert sorted(wanted) in [sorted(found) for found in by_sweep.values()]
