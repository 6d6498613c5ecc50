"""Failures in a row that are one fault end a sweep before they have burnt it; those that tell of
settings do not.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from search.engine.failures import FailuresInARow, alike
from search.ledger.events import read_history
from search.ledger.spec import SweepSpec
from spaces import Space
from tests.conftest import Corpus
from tests.search.engine.test_controller import BLAST, Sweep
from tests.sweep_parts import (
    SMALL,
    call_here,
    call_inside,
    epoch_entry,
    small_spec,
    suggest_small,
    train_serially,
    trial_with,
    write_space,
)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("KeyError: 'lr'", "KeyError: 'lr'"),
        (
            "OSError: /mnt/a/trials/00012/best.safetensors: no space",
            "OSError: /mnt/b/trials/00013/best.safetensors: no space",
        ),
        (
            "invalid settings: dropout=2.0 is out of range",
            "invalid settings: dropout=1e3 is out of range",
        ),
        ("<Space object at 0x7f3a12> failed", "<Space object at 0x7f9bff> failed"),
        (
            "node 464da3c5e4d52700 (10.0.0.4) died, pid 12",
            "node dc0117a36b1b8a77 (10.0.0.51) died, pid 4711",
        ),
        (
            "RuntimeError: CUDA out of memory. Tried 2.50 GiB\n",
            "RuntimeError: CUDA out of memory. Tried 1,024.00 GiB",
        ),
    ],
)
def test_reasons_are_equal_whatever_numbers_ids_and_paths_are_in_them(one: str, other: str) -> None:
    assert alike(one) == alike(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("KeyError: 'lr'", "KeyError: 'width'"),
        (
            "ModuleNotFoundError: No module named 'mmm'",
            "ModuleNotFoundError: No module named 'numpy'",
        ),
        ("heads=3 is out of range", "dropout=3 is out of range"),
    ],
)
def test_other_words_are_another_reason(one: str, other: str) -> None:
    assert alike(one) != alike(other)


def test_what_was_trained_begins_the_count_anew_and_what_needed_no_training_does_not() -> None:
    failed, trained, copied = (
        trial_with(0, {}, "failed"),
        trial_with(1, {1: 0.5}, "complete"),
        trial_with(2, {}, "complete"),
    )
    failed.reason = "KeyError: 'lr'"
    copied.epochs = [replace(epoch_entry(1, 0.5), copied_from=1)]
    diverged, too_large = trial_with(3, {1: 0.1}, "failed"), trial_with(4, {}, "failed")
    failures = FailuresInARow(3)
    assert [failures.add(failed, False), failures.add(failed, False)] == [None, None]
    assert [failures.add(copied, False), failures.add(too_large, True)] == [None, None]
    assert (
        failures.add(failed, False)
        == "the last 3 trials failed for the same reason: KeyError: 'lr'"
    )
    for one in (trained, diverged):
        failures = FailuresInARow(3)
        assert [
            failures.add(trial, trial is diverged)
            for trial in (failed, failed, one, failed, failed)
        ] == [None] * 5


def raising_from(number: int) -> Space:
    def suggest(trial: optuna.Trial) -> dict[str, Any]:
        settings = suggest_small(trial)
        if trial.number >= number:
            raise KeyError(f"table {trial.number} is gone")
        return settings

    return Space(suggest)


def test_a_space_that_begins_to_raise_ends_the_sweep_after_five_and_a_resumed_one_counts_anew(
    corpus: Corpus, tmp_path: Path
) -> None:
    sweep = Sweep(tmp_path / "s", small_spec(corpus, trials=40), raising_from(2))
    for session in (1, 2):
        controller = sweep.controller()
        for _ in train_serially(controller):
            pass
        assert [trial.state for trial in controller.trials.values()][2:] == ["failed"] * 5 * session
        assert (
            controller.verdicts.broken_off
            == "the last 5 trials failed for the same reason: the space failed: KeyError: 'table"
            f" {1 + 5 * session} is gone'"
        )
        assert controller.verdicts.is_stopping


def test_trials_that_run_meanwhile_stop_after_their_slice_and_go_on_in_the_next_session(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.worker.slices.SLICE_S", 0.0)
    sweep = Sweep(tmp_path / "s", small_spec(corpus, trials=12, epochs=5), raising_from(1))
    controller = sweep.controller()
    reports = train_serially(controller)
    next(reports)
    assert controller.next_orders() == []  # another worker's, who gets none
    assert controller.verdicts.broken_off is not None
    assert [report.number for report in reports] == [0]
    assert [(trial.state, len(trial.epochs)) for trial in controller.trials.values()] == [
        ("running", 2),
        *[("failed", 0)] * 5,
    ]
    sweep.run(max_equal_failures=0)
    assert sweep.history.trials[0].state == "complete"
    assert len(sweep.history.trials) == 12  # nothing kept it from burning the rest


@pytest.mark.parametrize("changes", [{"max_parameters": 10}, {}], ids=["too large", "diverging"])
def test_what_settings_are_like_is_no_fault_of_the_sweep(
    corpus: Corpus, tmp_path: Path, changes: dict[str, Any]
) -> None:
    space = Space(
        lambda trial: {
            "architecture": "vanilla_concat",
            **SMALL,
            **BLAST,
            "dropout": trial.suggest_float("dropout", 0, 0.5),
        }
    )
    sweep = Sweep(
        tmp_path / "s", small_spec(corpus, trials=7, epochs=9, first_rung=8, **changes), space
    )
    controller = sweep.controller(count_parameters=lambda _: 1000)
    for _ in train_serially(controller):
        pass
    assert [trial.state for trial in controller.trials.values()] == ["failed"] * 7
    assert controller.verdicts.broken_off is None


def test_an_older_ledger_has_the_default() -> None:
    older = {
        name: value for name, value in small().as_json().items() if name != "max_equal_failures"
    }
    assert SweepSpec(**older).max_equal_failures == 5


def small() -> SweepSpec:
    return SweepSpec(
        name="s", space="quick", manifest="m", features="f", trials=1, epochs=1, workers=1
    )


def test_a_number_that_cannot_be_is_refused(
    corpus: Corpus,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    status, _, error = call_here(
        capsys,
        monkeypatch,
        "run",
        "quick",
        corpus.manifest.path,
        "--features",
        corpus.features_dir,
        "--name",
        "s",
        "--runs",
        tmp_path,
        "--max-equal-failures",
        -1,
    )
    assert (status, error) == (
        2,
        (
            "error: --max-equal-failures -1 is negative; expected a number of trials, or 0 for no"
            " end\n"
        ),
    )
    assert not (tmp_path / "s").exists()


SPACE = """
from pathlib import Path

def suggest(trial):
    if (Path(__file__).parent / "runs" / "first" / "ledger.sqlite").is_file():
        raise FileNotFoundError(f"no table {trial.number}")  # not while the space is checked
    return {"architecture": "vanilla_concat", "lr": trial.suggest_float("lr", 1e-3, 1e-2)}
"""


def test_the_command_ends_with_the_reason_what_to_do_and_status_1(
    corpus: Corpus, empty_store: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    (runs / "mlflow.db").write_bytes(empty_store.read_bytes())
    space = write_space(tmp_path / "mine.py", SPACE)
    done = call_inside(
        "search",
        "run",
        "--serial",
        space,
        corpus.manifest.path,
        "--features",
        corpus.features_dir,
        "--name",
        "first",
        "--trials",
        40,
        "--epochs",
        2,
        "--max-equal-failures",
        3,
        "--runs",
        runs,
        status=1,
    )
    why = (
        "broken off: the last 3 trials failed for the same reason: the space failed:"
        " FileNotFoundError: no table 2"
    )
    assert done.stderr == f"error: {why}\n"
    assert (
        f"ended: {why}; once that is mended, go on with: mmm-search resume first --runs {runs}\n"
        in done.stdout
    )
    history = read_history(runs / "first" / "ledger.sqlite")
    assert len(history.trials) == 3
    assert history.last_close is not None
    assert history.last_close.why == why
    assert (runs / "first" / "report.html").is_file()
    write_space(tmp_path / "mine.py", SPACE.replace("if (", "if False and ("))
    call_inside("search", "resume", "first", "--trials", 5, "--runs", runs, "--serial")
    assert [
        trial.state for trial in read_history(runs / "first" / "ledger.sqlite").trials.values()
    ][3:] == ["complete"] * 2
