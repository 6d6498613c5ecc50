"""MLflow as a projection of the ledger: whatever the ledger holds can be sent, later and again, and
a store's trouble stays its own.
"""

import contextlib
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from mmm.training.config import make_config
from search.ledger.events import Entry, Ledger, create_sweep
from search.ledger.records import (
    Close,
    DataNote,
    End,
    EndState,
    ManifestDigest,
    Session,
    StoreDigest,
    Suggestion,
    as_json,
)
from search.ledger.spec import SweepSpec, check_tracking_uri, without_password
from search.tracking.delivered import Delivered
from search.tracking.delivery import Delivery, Undelivered, sync
from search.tracking.store import EXPERIMENT, default_tracking_uri, open_client
from tests.conftest import names_in
from tests.sweep_parts import METRIC, environment, epoch_entry

SPEC = SweepSpec("first", "quick", "manifest.csv", "features", trials=4, epochs=2, workers=1)
SETTINGS = make_config({"architecture": "mlp_mixer", "context": 3, "num_blocks": 2}).params()


def epoch(number: int, at: int, score: float) -> Entry:
    tables = as_json({"per_class": {"sad": {"f1": score / 2}}})
    return number, replace(epoch_entry(at, score), tables=tables)


def suggest(number: int, settings: dict[str, Any]) -> Entry:
    return number, Suggestion({"lr": 0.0}, {}, settings)


def end(number: int, state: EndState) -> Entry:
    return number, End(state, f"why {state}")


SESSION = Session(SPEC, "here", "")
CLOSE = Close("done", 1.0, 0.9)


@pytest.fixture
def ledger(tmp_path: Path, empty_store: Path) -> Iterator[Ledger]:
    """Two scored trials, one whose settings were invalid and one that is still running; beside it
    an empty store.
    """
    shutil.copy(empty_store, tmp_path)
    with create_sweep(tmp_path / "first", SPEC) as opened:
        opened.append(SESSION)
        for number, score in ((0, 0.5), (1, 0.4)):
            opened.append(
                suggest(number, {**SETTINGS, "lr": 0.001 + number / 1000}),
                epoch(number, 1, 0.1),
                epoch(number, 2, score),
                end(number, "complete"),
            )
        opened.append(suggest(2, {}), end(2, "failed"))
        opened.append(suggest(3, {**SETTINGS, "lr": 0.01}), epoch(3, 1, 0.3))
        yield opened


def all_runs(runs: Path) -> list[Any]:
    client = MlflowClient(tracking_uri=default_tracking_uri(runs))
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def runs_by_trial(runs: Path) -> dict[str, Any]:
    found = {run.data.tags["mmm.trial"]: run for run in all_runs(runs)}
    assert len(found) == len(all_runs(runs))
    return found


def points(runs: Path, trial: str, name: str = METRIC) -> list[tuple[int, float]]:
    client = MlflowClient(tracking_uri=default_tracking_uri(runs))
    history = client.get_metric_history(runs_by_trial(runs)[trial].info.run_id, name)
    return sorted((point.step, point.value) for point in history)


def deliver(runs: Path, name: str = "first", uri: str | None = None) -> Delivery:
    """What the outbox does after a session."""
    with Delivery(runs, name, uri) as delivery:
        delivery.read()
        delivery.send()
        delivery.finish()
    return delivery


def write_bundle(folder: Path, trial: int) -> None:
    """What of a bundle is looked at before it is sent."""
    (folder / "bundle").mkdir(exist_ok=True)
    (folder / "bundle" / "provenance.json").write_text(json.dumps({"trial": trial}))
    (folder / "bundle" / "checksums.json").write_text(json.dumps({"provenance.json": str(trial)}))


def test_trials_without_valid_settings_are_sent_too(ledger: Ledger, tmp_path: Path) -> None:
    ledger.append(CLOSE)
    deliver(tmp_path)
    found = runs_by_trial(tmp_path)
    assert found.keys() == {"sweep", "0", "1", "2", "3"}
    assert (found["2"].info.status, found["2"].data.tags["mmm.reason"]) == ("FAILED", "why failed")
    assert [found[key].info.run_name for key in ("0", "2")] == ["mlp_mixer K3 b2 #0", "invalid #2"]


def test_what_nobody_trains_any_more_is_not_left_running(ledger: Ledger, tmp_path: Path) -> None:
    ledger.append(CLOSE)
    deliver(tmp_path)
    found = runs_by_trial(tmp_path)
    assert {key: run.info.status for key, run in found.items()} == {
        "sweep": "FINISHED",
        "0": "FINISHED",
        "1": "FINISHED",
        "2": "FAILED",
        "3": "KILLED",
    }
    assert found["3"].data.tags["mmm.state"] == "interrupted"


def test_while_it_is_run_a_sweep_is_running(ledger: Ledger, tmp_path: Path) -> None:
    with Delivery(tmp_path, "first", None) as delivery:
        delivery.read()
        delivery.send()
    found = runs_by_trial(tmp_path)
    assert [found[key].info.status for key in ("sweep", "3")] == ["RUNNING", "RUNNING"]


def test_a_sweep_whose_driver_died_is_closed_by_its_own_outbox_or_by_the_next_sweep(
    ledger: Ledger, tmp_path: Path
) -> None:
    for name in ("dead", "second"):
        with create_sweep(tmp_path / name, replace(SPEC, name=name)) as opened:
            opened.append(SESSION, suggest(0, SETTINGS))
            with Delivery(tmp_path, name, None) as delivery:
                delivery.read()
                delivery.send()
    found = {
        (run.data.tags["mmm.sweep"], run.data.tags["mmm.trial"]): run for run in all_runs(tmp_path)
    }
    assert [found["dead", key].info.status for key in ("sweep", "0")] == ["KILLED", "KILLED"]
    assert found["dead", "0"].data.tags["mmm.reason"] == "its driver died"
    assert found["second", "sweep"].info.status == "RUNNING"
    deliver(tmp_path, "second")
    assert {run.info.status for run in all_runs(tmp_path)} == {"KILLED"}


def test_a_resumed_session_goes_on_in_the_same_runs(ledger: Ledger, tmp_path: Path) -> None:
    ledger.append(CLOSE)
    deliver(tmp_path)
    before = {key: run.info.run_id for key, run in runs_by_trial(tmp_path).items()}
    ledger.append(
        SESSION, epoch(3, 1, 0.3), epoch(3, 2, 0.35), end(3, "pruned"), CLOSE
    )  # epoch 1 was trained again
    deliver(tmp_path)
    after = runs_by_trial(tmp_path)
    assert {key: run.info.run_id for key, run in after.items()} == before
    assert after["3"].info.status == "FINISHED"
    assert after["3"].data.tags["mmm.state"] == "pruned"
    assert points(tmp_path, "3") == [(1, 0.3), (2, 0.35)]
    assert points(tmp_path, "3", "f1/sad") == [(1, 0.15), (2, 0.175)]
    assert points(tmp_path, "3", f"final_{METRIC}") == [
        (1, 0.3),
        (2, 0.35),
    ]  # where it was interrupted, and where it ended


def test_a_better_trial_takes_over_the_mark_of_the_best(ledger: Ledger, tmp_path: Path) -> None:
    ledger.append(CLOSE)
    for winner in (1, 0, 0):
        write_bundle(tmp_path / "first", winner)
        deliver(tmp_path)
        found = runs_by_trial(tmp_path)
        assert [key for key, run in found.items() if run.data.tags.get("mmm.best") == "true"] == [
            str(winner)
        ]
        assert found["sweep"].data.tags["mmm.best_trial"] == str(winner)
        client = MlflowClient(tracking_uri=default_tracking_uri(tmp_path))
        names = [
            file.path for file in client.list_artifacts(found[str(winner)].info.run_id, "bundle")
        ]
        assert names == ["bundle/checksums.json", "bundle/provenance.json"]
    assert points(tmp_path, "0", f"best_{METRIC}") == [(2, 0.5)]  # finishing twice adds nothing


def test_a_store_that_does_not_answer_is_named_and_everything_is_sent_later(
    ledger: Ledger, tmp_path: Path
) -> None:
    ledger.append(CLOSE)
    with pytest.raises(
        Undelivered,
        match=r"^http://127\.0\.0\.1:1 did not take everything \(.*; what arrived stays",
    ):
        sync(tmp_path, "first", "http://127.0.0.1:1")
    sync(tmp_path, "first", None)
    assert points(tmp_path, "0") == [(1, 0.1), (2, 0.5)]


def test_sending_everything_again_adds_no_run_and_no_point_and_brings_back_what_is_gone(
    ledger: Ledger, tmp_path: Path
) -> None:
    ledger.append(CLOSE)
    first = sync(tmp_path, "first", None)
    before = runs_by_trial(tmp_path)
    (tmp_path / "first" / "mlflow.json").unlink()
    MlflowClient(tracking_uri=default_tracking_uri(tmp_path)).delete_run(before["1"].info.run_id)
    again = sync(tmp_path, "first", None)
    assert (first.made, again.made) == (5, 1)
    assert first.points == again.points
    after = runs_by_trial(tmp_path)
    for key in ("sweep", "0", "2", "3"):
        assert (after[key].info.run_id, after[key].data.params) == (
            before[key].info.run_id,
            before[key].data.params,
        )
    for name in (METRIC, "f1/sad", f"best_{METRIC}", "train_loss"):
        assert (
            len(points(tmp_path, "0", name))
            == len(points(tmp_path, "1", name))
            == (1 if name.startswith("best") else 2)
        )
    assert after["1"].data.metrics == {**before["1"].data.metrics}


def test_what_a_store_has_is_looked_for_in_it_where_its_record_has_another_bit(
    ledger: Ledger, tmp_path: Path
) -> None:
    ledger.append(CLOSE)
    state = deliver(tmp_path)._state
    file = tmp_path / "first" / "mlflow.json"
    content = file.read_bytes()
    for bit in range(0, 8 * len(content), 37):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        file.write_bytes(flipped)
        assert Delivery(tmp_path, "first", None)._state in (state, Delivered())
    for text in (b"", b"[", b"[]", b"[" * 100_000, b"\xff"):
        file.write_bytes(text)
        assert Delivery(tmp_path, "first", None)._state == Delivered()
    assert deliver(tmp_path).made == 0
    assert json.loads(file.read_bytes())["stores"]


@pytest.mark.slow
def test_a_process_killed_while_it_makes_the_store_leaves_none_behind_and_the_next_one_makes_it(
    tmp_path: Path,
) -> None:
    code = (
        "import pathlib, sys; from search.tracking.store import open_client;"
        " open_client(pathlib.Path(sys.argv[1]), None)"
    )
    making = tmp_path / ".mlflow.db.making" / "mlflow.db"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], env=environment(), stderr=subprocess.DEVNULL
    ) as process:
        while (
            process.poll() is None and num_tables(making) < 20
        ):  # of 50 or so: MLflow would refuse to open it again
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.005)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert making.exists()
    assert not (tmp_path / "mlflow.db").exists()
    client, experiment = open_client(tmp_path, None)
    assert client.get_experiment(experiment).name == EXPERIMENT
    assert names_in(tmp_path) == [".mlflow.lock", "mlflow.db"]


def num_tables(store: Path) -> int:
    if not store.is_file():
        return 0
    with contextlib.closing(
        sqlite3.connect(f"{store.as_uri()}?mode=ro", uri=True, timeout=30)
    ) as connection:
        return int(
            connection.execute(
                "SELECT count(*) FROM sqlite_master WHERE type = 'table'"
            ).fetchone()[0]
        )


def test_a_run_that_a_person_removed_does_not_hold_up_the_others(
    ledger: Ledger, tmp_path: Path
) -> None:
    with Delivery(tmp_path, "first", None) as delivery:
        delivery.read()
        delivery.send()
    removed = runs_by_trial(tmp_path)["3"].info.run_id
    MlflowClient(tracking_uri=default_tracking_uri(tmp_path)).delete_run(removed)
    ledger.append(epoch(3, 2, 0.6), suggest(4, SETTINGS), epoch(4, 1, 0.2), CLOSE)
    deliver(tmp_path)
    assert runs_by_trial(tmp_path).keys() == {"sweep", "0", "1", "2", "4"}
    assert points(tmp_path, "4") == [(1, 0.2)]


def test_a_run_that_was_made_twice_because_the_first_answer_was_lost_is_kept_once(
    ledger: Ledger, tmp_path: Path
) -> None:
    with Delivery(tmp_path, "first", None) as delivery:
        delivery.read()
        delivery.send()
        made = runs_by_trial(tmp_path)["1"]
        client = MlflowClient(tracking_uri=default_tracking_uri(tmp_path))
        spare = client.create_run(
            made.info.experiment_id, tags=made.data.tags
        )  # a frozen server, thawed after we asked again
    ledger.append(CLOSE)
    sync(tmp_path, "first", None)
    assert runs_by_trial(tmp_path)["1"].info.run_id == made.info.run_id
    assert client.get_run(spare.info.run_id).info.lifecycle_stage == "deleted"


def test_a_trial_says_what_varies_and_nothing_that_is_the_same_everywhere(
    ledger: Ledger, tmp_path: Path
) -> None:
    other = make_config(
        {"architecture": "vanilla_concat", "context": 3, "width": 64}
    ).params()  # the mixers' is 256: their default
    ledger.append(suggest(4, {**SETTINGS, "dropout": 0.3}), suggest(5, other), CLOSE)
    deliver(tmp_path)
    found = runs_by_trial(tmp_path)
    varied = {"architecture", "context", "seed", "lr", "dropout"}
    assert found["4"].data.params.keys() == varied
    assert found["0"].data.params.keys() == varied  # dropout was news for it when trial 4 came
    assert found["0"].data.params["dropout"] == "0.1"
    assert found["5"].data.params.keys() == varied
    note = found["sweep"].data.tags["mlflow.note.content"]
    assert "num_blocks 2" in note  # what only the mixers have, and all of them the same
    assert "| mlp_mixer K3 b2 #0 | 0.5000 | 2 | complete |" in note


def test_the_same_settings_with_another_seed_stand_below_the_first_trial_that_had_them(
    ledger: Ledger, tmp_path: Path
) -> None:
    ledger.append(
        suggest(4, {**SETTINGS, "lr": 0.001, "seed": 7}), suggest(5, {**SETTINGS, "lr": 0.5}), CLOSE
    )
    deliver(tmp_path)
    found = runs_by_trial(tmp_path)
    parents = {key: found[key].data.tags["mlflow.parentRunId"] for key in ("0", "4", "5")}
    assert parents == {
        "0": found["sweep"].info.run_id,
        "4": found["0"].info.run_id,
        "5": found["sweep"].info.run_id,
    }
    assert found["4"].info.run_name == "mlp_mixer K3 b2 #4 seed 7"
    assert found["4"].data.tags["mmm.repeat_of"] == "0"
    assert found["4"].data.tags["mmm.settings"] == found["0"].data.tags["mmm.settings"]


def test_what_trials_used_of_the_machine_is_sent_where_it_was_asked_for(
    tmp_path: Path, empty_store: Path
) -> None:
    shutil.copy(empty_store, tmp_path)
    for name, asked in (
        ("quiet", {}),
        ("cpu", {"system_metrics": True}),
        ("gpu", {"system_metrics": True, "gpus_per_trial": 0.5}),
    ):
        entry = replace(epoch_entry(1, 0.1), seconds=0.2, alone_seconds=0.15, memory_mb=640.0)
        with create_sweep(tmp_path / name, replace(SPEC, name=name, **asked)) as opened:
            opened.append(suggest(0, SETTINGS), (0, entry), end(0, "complete"), CLOSE)
        deliver(tmp_path, name)
    found = {
        run.data.tags["mmm.sweep"]: run.data.metrics
        for run in all_runs(tmp_path)
        if run.data.tags["mmm.trial"] == "0"
    }
    system = {
        sweep: {name: value for name, value in metrics.items() if name.startswith("system/")}
        for sweep, metrics in found.items()
    }
    assert system == {
        "quiet": {},
        "cpu": {
            "system/cpu_utilization_percentage": 75.0,
            "system/system_memory_usage_megabytes": 640.0,
        },
        "gpu": {
            "system/cpu_utilization_percentage": 75.0,
            "system/gpu_0_memory_usage_megabytes": 640.0,
        },
    }


def test_data_sets_are_inputs_with_their_digests(ledger: Ledger, tmp_path: Path) -> None:
    stores = tuple(
        StoreDigest(kind, of, "e", f"{kind}{of}", f"features/{kind}{of}")
        for kind, of in (
            ("audio", "hidden_state"),
            ("audio", "extract_feature"),
            ("text", 1),
            ("text", 3),
        )
    )
    manifest = ManifestDigest("corpus", "manifest.csv", "0123456789abcdef" * 4, "{}")
    ledger.append(DataNote(manifest, stores), suggest(4, SETTINGS), CLOSE)
    deliver(tmp_path)
    found = runs_by_trial(tmp_path)
    digests = [given.dataset.digest for given in found["4"].inputs.dataset_inputs]
    assert sorted(digests) == ["0123456789abcdef" * 2, "audiohidden_stat-text3"]
    assert [given.dataset.name for given in found["sweep"].inputs.dataset_inputs] == ["corpus"]


def test_a_store_that_could_keep_a_point_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="MLflow's file store keeps a point twice"):
        check_tracking_uri((tmp_path / "mlruns").as_uri())
    with pytest.raises(
        ValueError, match="set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead"
    ):
        check_tracking_uri("http://me:secret@127.0.0.1:5000")
    assert without_password("postgresql://me:secret@host:5432/db") == "postgresql://me@host:5432/db"


def test_two_sweeps_share_a_store_and_do_not_mix(ledger: Ledger, tmp_path: Path) -> None:
    with create_sweep(tmp_path / "second", replace(SPEC, name="second")) as other:
        other.append(suggest(0, SETTINGS), epoch(0, 1, 0.9))
        ledger.append(CLOSE)
        other.append(CLOSE)
        deliver(tmp_path)
        deliver(tmp_path, "second")
    found = all_runs(tmp_path)
    assert sorted(run.data.tags["mmm.sweep"] for run in found) == ["first"] * 5 + ["second"] * 2
    by_id = {run.info.run_id: run for run in found}
    for run in found:
        if run.data.tags["mmm.trial"] != "sweep":
            assert (
                by_id[run.data.tags["mlflow.parentRunId"]].data.tags["mmm.sweep"]
                == run.data.tags["mmm.sweep"]
            )
