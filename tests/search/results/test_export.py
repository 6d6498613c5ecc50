"""What `mmm-search export` writes: checked in a fresh process, with a card, or not at all. A real
sweep without Ray.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from huggingface_hub import ModelCard
from mlflow import MlflowClient
from safetensors.torch import load_file, save_file

import mmm
from mmm.bundle.evaluate import evaluate_bundle, in_fresh_process
from mmm.bundle.read import BundleError, Ensemble, load_bundle, load_bundle_or_ensemble
from mmm.bundle.sealed_test import open_test
from mmm.training.tensor_file import tensor_bytes
from search.engine.controller import Controller
from search.ledger.events import create_sweep, read_history
from search.ledger.files import best_file
from search.ledger.history import History
from search.results.export import Options, export_several, export_trial
from search.results.kept import best_trial, top_trials
from search.tracking.store import open_client
from tests.conftest import Corpus, encode, names_in, write_corpus
from tests.sweep_parts import METRIC, SMALL_SPACE, call_here, small_spec, train_serially

CPU = torch.device("cpu")


class Sweep:
    """runs/small, with `trials` small trials."""

    def __init__(self, corpus: Corpus, runs: Path) -> None:
        self.corpus, self.runs, self.folder = corpus, runs, runs / "small"
        spec = small_spec(corpus, trials=4)
        with create_sweep(self.folder, spec) as ledger:
            controller = Controller(ledger, spec, SMALL_SPACE, "cpu", lambda: None)
            controller.open_session("mmm-search run")
            for _ in train_serially(controller):
                pass
            controller.close_session("done")

    @property
    def history(self) -> History:
        return read_history(self.folder / "ledger.sqlite")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """Its test split may be opened."""
    folder = tmp_path_factory.mktemp("sweep")
    manifest = write_corpus(folder / "corpus")
    encode(manifest, folder / "features")
    return Sweep(Corpus(manifest, folder / "features"), folder / "runs")


def validation(sweep: Sweep, bundle: Path) -> dict[str, Any]:
    rows = sweep.corpus.manifest.rows("dev")
    return evaluate_bundle(
        load_bundle_or_ensemble(bundle), sweep.corpus.manifest, sweep.corpus.features_dir, rows, CPU
    )


def export(
    sweep: Sweep,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    *arguments: object,
) -> tuple[int, str]:
    """Status, and what it said."""
    status, out, err = call_here(capsys, monkeypatch, "export", *arguments, "--runs", sweep.runs)
    return status, out + err


def test_the_best_trial_is_exported_with_a_card_and_reproduced_in_a_fresh_process(
    sweep: Sweep,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "best"
    status, told = export(
        sweep, capsys, monkeypatch, "small", "-o", out, "--data-licence", "CC BY-NC 4.0"
    )
    bundle = load_bundle(out)
    assert (status, told) == (
        0,
        (
            f"bundle {out} (sha256 {bundle.sha256[:16]}): a fresh process reproduced its validation"
            " macro_f1\n"
        ),
    )
    best = best_trial(sweep.history)
    assert best is not None
    epoch, score = best.best(METRIC) or (0, 0.0)
    assert validation(sweep, out)[METRIC] == score
    assert in_fresh_process(
        out, sweep.corpus.manifest.path, sweep.corpus.features_dir
    ) == validation(sweep, out)
    assert (bundle.provenance.trial, bundle.provenance.epoch) == (best.number, epoch)
    assert names_in(out) == [
        "README.md",
        "checksums.json",
        "config.json",
        "model.safetensors",
        "provenance.json",
    ]
    assert names_in(tmp_path) == ["best"]
    card = ModelCard.load(out / "README.md")
    assert card.data.model_name == bundle.name
    results = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert results["validation macro F1"] == pytest.approx(score, abs=1e-6)
    for part in (
        "Licence of the data: CC BY-NC 4.0.",
        sweep.corpus.manifest.sha256,
        f"| macro F1 | {score:.4f} | ",
        "10 utterances of 2 dialogues",
        "had not been opened for these weights",
        "ASHA, factor 3, at epochs 3",
        f"| `lr` | {bundle.config.lr} |",
        "mmm.load(",
        "| sweep | small |",
    ):
        assert part in card.text, part


def test_what_the_fresh_process_says_is_passed_on(sweep: Sweep, tmp_path: Path) -> None:
    export_trial(sweep.history, sweep.folder, None, tmp_path / "best")
    (tmp_path / "best" / "provenance.json").unlink()
    with pytest.raises(
        BundleError,
        match=r"cannot be loaded and evaluated in a fresh process: .*provenance\.json is missing",
    ):
        in_fresh_process(tmp_path / "best", sweep.corpus.manifest.path, sweep.corpus.features_dir)


def test_the_card_names_the_openings_of_these_weights_alone(sweep: Sweep, tmp_path: Path) -> None:
    first, second = top_trials(sweep.history, sweep.folder, 2)
    export_trial(sweep.history, sweep.folder, first, tmp_path / "first")
    assert "Licence of the data: unknown." in (tmp_path / "first" / "README.md").read_text()
    (metrics,) = open_test(
        [load_bundle(tmp_path / "first")], sweep.corpus.manifest, sweep.corpus.features_dir, CPU
    )
    for number, mine in ((first, True), (second, False)):
        export_trial(
            sweep.history, sweep.folder, number, tmp_path / "again"
        )  # other files, the same weights
        card = (tmp_path / "again" / "README.md").read_text()
        assert ("opened for these weights 1 times" in card) is mine
        assert (f"| 10 | {metrics['macro_f1']:.6f} | " in card) is mine
        assert ("opened 1 times for other models" in card) is not mine
    (sweep.corpus.features_dir / "test_openings.csv").unlink()


@pytest.mark.parametrize("ensemble", [False, True])
def test_a_trial_that_does_not_reproduce_its_score_is_refused_and_nothing_is_left(
    corpus: Corpus,
    tmp_path: Path,
    ensemble: bool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sweep = Sweep(corpus, tmp_path / "runs")
    best = best_trial(sweep.history)
    assert best is not None
    file = best_file(sweep.folder, best.number)
    save_file(
        {name: value + 0.3 * torch.ones_like(value) for name, value in load_file(file).items()},
        file,
    )
    out = tmp_path / "exported" / "best"
    status, told = export(
        sweep,
        capsys,
        monkeypatch,
        "small",
        "-o",
        out,
        *(["--ensemble", "--top", 2] if ensemble else []),
    )
    where = f"{out}/members/{best.number:05d}" if ensemble else out
    assert status == 2
    assert f"error: {where}: the bundle's validation macro_f1 is " in told
    assert (
        "were the manifest, the features or the weights changed since the sweep? Nothing was"
        " written" in told
    )
    assert names_in(out.parent) == []


def flip(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place // 8] ^= 1 << place % 8
    file.write_bytes(content)


def test_weights_with_a_flipped_bit_are_not_exported(
    sweep: Sweep,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    best = best_trial(sweep.history)
    assert best is not None
    file = best_file(sweep.folder, best.number)
    generator = np.random.default_rng(0)
    for place in generator.integers(8 * file.stat().st_size, size=60).tolist():
        flip(file, place)
        with pytest.raises(
            ValueError,
            match=rf"{file}: damaged: .*export another trial, see: mmm-search status small",
        ):
            export_trial(sweep.history, sweep.folder, None, tmp_path / "best")
        flip(file, place)
    flip(file, 8 * file.stat().st_size - 20)
    status, told = export(sweep, capsys, monkeypatch, "small", "-o", tmp_path / "best")
    flip(file, 8 * file.stat().st_size - 20)
    assert (status, told.count("\n")) == (2, 1)
    assert names_in(tmp_path) == []
    export_trial(sweep.history, sweep.folder, None, tmp_path / "best")


def test_weights_of_an_earlier_version_are_exported_and_it_is_said_once_that_they_are_unchecked(
    sweep: Sweep,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    best = best_trial(sweep.history)
    assert best is not None
    file = best_file(sweep.folder, best.number)
    content = file.read_bytes()
    file.write_bytes(tensor_bytes(load_file(file)))
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        status, told = export(sweep, capsys, monkeypatch, "small", "-o", tmp_path / "best")
    file.write_bytes(content)
    assert status == 0
    line = f"warning: {file}: read unchecked: an earlier version kept it without a checksum\n"
    assert told.count("warning:") == told.count(line) == 1


def test_a_checkpoint_is_exported_only_as_the_ledger_recorded_it(
    corpus: Corpus, tmp_path: Path
) -> None:
    """As of a trial that was stopped at a rung by a driver whose worker died before it kept the
    best weights alone.
    """
    spec = small_spec(corpus, trials=1)
    with create_sweep(tmp_path / "small", spec) as ledger:
        controller = Controller(ledger, spec, SMALL_SPACE, "cpu", lambda: None)
        controller.open_session("mmm-search run")
        next(report for report in train_serially(controller) if report.checkpoint is not None)
        controller.close_session("stopped")
    history = read_history(tmp_path / "small" / "ledger.sqlite")
    assert history.trials[0].checkpoint is not None
    file = Path(history.trials[0].checkpoint.path)
    export_trial(history, tmp_path / "small", 0, tmp_path / "good")
    flip(file, 8 * file.stat().st_size - 20)
    with pytest.raises(
        ValueError, match=rf"{file.name}: damaged: its checksum is not the recorded one; "
    ):
        export_trial(history, tmp_path / "small", 0, tmp_path / "bad")


def test_the_best_trials_are_exported_as_one_or_as_several(
    sweep: Sweep,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = top_trials(sweep.history, sweep.folder, 2)
    assert first == sweep.history.ranked(METRIC)[0].number
    status, told = export(
        sweep, capsys, monkeypatch, "small", "-o", tmp_path / "one", "--ensemble", "--top", 2
    )
    assert status == 0
    assert (
        f"of trials {first}, {second}: a fresh process reproduced its validation macro_f1" in told
    )
    export_several(sweep.history, sweep.folder, [first, second], tmp_path / "two")
    assert names_in(tmp_path / "two") == sorted(f"trial-{number:05d}" for number in (first, second))
    one = load_bundle_or_ensemble(tmp_path / "one")
    assert isinstance(one, Ensemble)
    assert one.provenance.validation_metrics == validation(sweep, tmp_path / "one")
    assert "An ensemble of 2 models" in (tmp_path / "one" / "README.md").read_text()
    audio = sweep.corpus.manifest.audio_path(sweep.corpus.manifest.utterances[3])
    both = [
        mmm.load(tmp_path / "two" / name).predict(audio, "great")
        for name in names_in(tmp_path / "two")
    ]
    expected = {label: sum(found[label] for found in both) / 2 for label in both[0]}
    assert mmm.load(tmp_path / "one").predict(audio, "great") == pytest.approx(expected, abs=1e-6)
    status, told = export(sweep, capsys, monkeypatch, "small", "-o", tmp_path / "x", "--top", 9)
    assert status == 2
    assert told.startswith("error: --top 9: sweep 'small' has 4 trials with weights")
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_onnx_gives_what_predict_gives(sweep: Sweep, tmp_path: Path) -> None:
    export_trial(sweep.history, sweep.folder, None, tmp_path / "best", Options(onnx=True))
    predictor, manifest = mmm.load(tmp_path / "best"), sweep.corpus.manifest
    session = onnxruntime.InferenceSession(
        tmp_path / "best" / "model.onnx", providers=["CPUExecutionProvider"]
    )
    taken = [put.name for put in session.get_inputs()]
    queries = [
        (manifest.audio_path(u), u.text, [(manifest.audio_path(u), "so")])
        for u in manifest.utterances[:5]
    ]
    batch = predictor.inputs(predictor.bundle.members[0], queries)
    logits = session.run(None, {name: getattr(batch, name).numpy() for name in taken})[0]
    found = torch.from_numpy(logits).softmax(dim=-1).numpy()
    expected = [list(predictor.predict(*query).values()) for query in queries]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert "`model.onnx` is the head alone" in (tmp_path / "best" / "README.md").read_text()


@pytest.mark.slow
def test_a_bundle_comes_out_of_mlflow_alone(
    sweep: Sweep,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    digest = export_trial(sweep.history, sweep.folder, None, tmp_path / "made")
    client, experiment = open_client(sweep.runs, None)
    parent = client.create_run(experiment, run_name="small").info.run_id
    for name in ("manifest", "features"):
        client.log_param(parent, name, getattr(sweep.history.spec, name))
    run = client.create_run(experiment, tags={"mlflow.parentRunId": parent}).info.run_id
    client.log_artifacts(run, str(tmp_path / "made"), "bundle")
    out = tmp_path / "fetched"
    status, told = export(sweep, capsys, monkeypatch, "--run-id", run, "-o", out)
    assert status == 0
    assert told.startswith(
        f"bundle {out}: a fresh process reproduced its validation macro_f1 of 0."
    )
    assert load_bundle(out).sha256 == digest
    # Another machine has no features: it says so.
    client.log_param(parent_without(client, experiment, run), "manifest", "/nowhere/manifest.csv")
    status, told = export(sweep, capsys, monkeypatch, "--run-id", run, "-o", tmp_path / "elsewhere")
    assert status == 0
    assert (
        "checksums are right; the validation score was not computed again, because manifest and"
        " features are not here" in told
    )
    damaged = client.create_run(experiment).info.run_id
    (tmp_path / "made" / "config.json").write_text("{}")
    client.log_artifacts(damaged, str(tmp_path / "made"), "bundle")
    for run_id, message in (
        (damaged, "config.json: damaged"),
        (parent, "has no bundle; sweeps log that of their best trial"),
        ("0" * 32, "does not give it"),
    ):
        status, told = export(
            sweep, capsys, monkeypatch, "--run-id", run_id, "-o", tmp_path / "refused"
        )
        assert status == 2
        assert message in told
    assert names_in(tmp_path) == ["elsewhere", "fetched", "made"]


def parent_without(client: MlflowClient, experiment: str, run: str) -> str:
    """Give a run a parent that knows nothing yet."""
    parent: str = client.create_run(experiment).info.run_id
    client.set_tag(run, "mlflow.parentRunId", parent)
    return parent


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("small",), "--out is missing: the folder to write"),
        (("-o", "x"), "expected the NAME of a sweep, or --run-id and no name"),
        (
            ("small", "--run-id", "1", "-o", "x"),
            "expected the NAME of a sweep, or --run-id and no name",
        ),
        (
            ("small", "--trial", "1", "--top", "2", "-o", "x"),
            "--trial names one trial; --top, --ensemble and --greedy take several",
        ),
        (("--run-id", "1", "--onnx", "-o", "x"), "--onnx: --run-id takes a bundle as it is"),
        (("small", "--top", "2", "--register", "m", "-o", "x"), "--register takes one model"),
        (("small", "--features", "f", "-o", "x"), "--manifest and --features go with --run-id"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    sweep: Sweep,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    status, told = export(sweep, capsys, monkeypatch, *arguments)
    assert status == 2
    assert told.startswith(f"error: {message}")


def test_a_changed_manifest_is_noticed(corpus: Corpus, tmp_path: Path) -> None:
    manifest = write_corpus(tmp_path / "corpus")
    encode(manifest, tmp_path / "features")
    sweep = Sweep(Corpus(manifest, tmp_path / "features"), tmp_path / "runs")
    text = manifest.path.read_text()
    manifest.path.write_text(text.replace(",neutral,dev", ",sad,dev"))
    with pytest.raises(
        ValueError,
        match=(
            r"the bundle's validation macro_f1 is .*were the manifest, the features or the weights"
            r" changed"
        ),
    ):
        export_trial(sweep.history, sweep.folder, None, tmp_path / "best")
    assert not (tmp_path / "best").exists()
