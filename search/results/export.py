"""From trials of a sweep to folders that ship: a bundle, several, or an ensemble, each checked
before it appears.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from mmm.bundle.card import Evaluation, model_card
from mmm.bundle.evaluate import in_fresh_process, predict_rows
from mmm.bundle.read import Bundle, load_bundle_or_ensemble
from mmm.bundle.records import Head, Provenance
from mmm.bundle.sealed_test import read_openings
from mmm.bundle.write import (
    check_destination,
    seal,
    write_bundle,
    write_ensemble,
    write_provenance,
    write_temperature,
)
from mmm.calibration import fitted_temperature
from mmm.files import new_directory, sha256_of_file, write_bytes, write_text
from mmm.manifest import Manifest
from mmm.metrics import Metrics, bootstrap_intervals, value_of
from mmm.training.config import make_config
from mmm.training.evaluate import score
from mmm.training.features import dims_of, load_features
from mmm.training.own_system import as_loaded, load_recorded
from search.ledger.files import command_for
from search.ledger.history import History
from search.ledger.trial import Trial
from search.results.answers import CHANGED, SweepData, weights_of
from search.results.kept import best_trial
from search.results.refit import trained_on_all_folds

# Another number of threads, or a GPU, adds in another order; a validation row on the edge between
# two classes may flip.
_SCORE_TOLERANCE = 0.01
_LOSS_TOLERANCE = (
    1e-3  # of the cross-entropy, relative: it moves smoothly, so other weights or data show in it
)


@dataclass(frozen=True)
class Options:
    """What an export adds to the weights, and how it is checked.

    `fresh_process`: a new Python loads the finished folder and has to reproduce the ledger's score
    before the folder appears. The end of a sweep does without: it would take four seconds, and
    loads the bundle in its own process.
    """

    data_licence: str | None = None
    onnx: bool = False
    fresh_process: bool = False

    @property
    def has_extras(self) -> bool:
        """Whether the bundle gets what one of a sweep's end has not."""
        return self.onnx or self.data_licence is not None


_PLAIN = Options()


def check_scores_ensembles(history: History) -> None:
    """Raise ValueError where no row is left to score an ensemble on."""
    if history.spec.folds:
        raise ValueError(
            f"sweep {history.spec.name!r} is over folds: its models ship trained on all of them, so"
            " nothing is left to score an ensemble on; export them one by one, without --ensemble"
        )


def export_trial(
    history: History, folder: Path, number: int | None, out: Path, options: Options = _PLAIN
) -> str:
    """Bundle a trial's best epoch (None: the best trial's), check that it scores what the ledger
    says; returns its hash.

    Raises ValueError where there is no such trial, its weights are gone, or it does not reproduce
    its score; `out` is then as it was.
    """
    trial = chosen_trial(history, number)
    check_destination(out)
    data = SweepData(history)
    with new_directory(out, keep="epoch-*") as scratch, _made_in(scratch, out):
        _write(history, folder, trial, data.manifest, scratch)
        _finish([trial], scratch, data, options)
    return sha256_of_file(out / "checksums.json")


def export_several(
    history: History,
    folder: Path,
    numbers: Sequence[int],
    out: Path,
    options: Options = _PLAIN,
    *,
    ensemble: bool = False,
    done: Callable[[int], None] = lambda _: None,
    selection: Mapping[str, str] | None = None,
) -> str:
    """A bundle a trial in `out/trial-NNNNN`, or, with `ensemble`, one folder with them as members;
    all or none of them.

    A trial that is named several times counts as often in the ensemble; `selection` is what the
    card says of how the trials were chosen. `done` is called with the number of each trial that is
    written. Returns the ensemble's hash, "" without. Raises as `export_trial`, and BundleError
    where trials cannot be one ensemble.
    """
    trials = [chosen_trial(history, number) for number in dict.fromkeys(numbers)]
    if ensemble:
        check_scores_ensembles(history)
    check_destination(out, beside=None if ensemble else "trial-*")
    data = SweepData(history)
    with new_directory(out) as scratch, _made_in(scratch, out):
        members = [
            f"members/{trial.number:05d}" if ensemble else f"trial-{trial.number:05d}"
            for trial in trials
        ]
        for trial, member in zip(trials, members, strict=True):
            (scratch / member).mkdir(parents=True)
            _write(history, folder, trial, data.manifest, scratch / member)
            # Members are checked one by one in this process, and once more as the whole in a fresh
            # one.
            _finish(
                [trial],
                scratch / member,
                data,
                replace(options, fresh_process=options.fresh_process and not ensemble),
            )
            done(trial.number)
        if ensemble:
            write_ensemble(
                scratch,
                name=f"{data.spec.name} ensemble of {len(trials)}",
                members=tuple(f"members/{number:05d}" for number in numbers),
                provenance=replace(
                    own := _provenance(history, trials[0], data.manifest),
                    trial=None,
                    trial_state=None,
                    trials=list(numbers),
                    search={**(own.search or {}), **(selection or {})},
                ),
            )
            _finish(trials, scratch, data, options)
    return sha256_of_file(out / "checksums.json") if ensemble else ""


@contextlib.contextmanager
def _made_in(scratch: Path, out: Path) -> Iterator[None]:
    """Errors name the folder that was asked for instead of the one it is made in."""
    try:
        yield
    except ValueError as error:
        error.args = (str(error).replace(str(scratch), str(out)),)
        raise


def chosen_trial(history: History, number: int | None) -> Trial:
    """The trial to export, None: the best. Raises ValueError where there is none."""
    spec = history.spec
    if number is None:
        trial = best_trial(history)
        if trial is None:
            raise ValueError(
                f"sweep {spec.name!r} has no trial with a score yet; mmm-search status says why, or"
                " go on with it by mmm-search resume"
            )
        return trial
    if number not in history.trials:
        raise ValueError(
            f"sweep {spec.name!r} has no trial {number} (it has 0 to {len(history.trials) - 1})"
        )
    return history.trials[number]


def _provenance(history: History, trial: Trial, manifest: Manifest) -> Provenance:
    spec = history.spec
    states = Counter(trial.state for trial in history.trials.values())
    return Provenance(
        sweep=spec.name,
        trial=trial.number,
        trial_state=trial.state,
        space=spec.space,
        objective=spec.metric,
        manifest_sha256=history.manifest_of(trial.number) or manifest.sha256,
        trials_in_sweep=len(history.trials),
        data_changes=history.data_account() if history.data_changes else None,
        data=history.data_of(trial.number) if history.data_changes else None,
        search={
            "sweep": spec.name,
            "space": Path(spec.space).name,
            "objective": f"{spec.score_name}, best epoch",
            "trials": (
                f"{len(history.trials)}"
                f" ({', '.join(f'{number} {state}' for state, number in sorted(states.items()))})"
            ),
            "suggestions": (
                "mmm-search: a Gaussian process over expected final scores, random trials among"
                " them"
            ),
            "early_stopping": (
                f"ASHA, factor {spec.factor}, at epochs {', '.join(map(str, spec.rungs)) or 'none'}"
            ),
            "epochs": spec.epochs,
            "seed": spec.seed,
            "training_hours": round(
                sum(t.alone_seconds for t in history.trials.values()) / 3600, 3
            ),
        },
    )


def _write(history: History, sweep: Path, trial: Trial, manifest: Manifest, out: Path) -> None:
    """Fill a folder with a trial's bundle. Raises ValueError where its weights are gone."""
    spec = history.spec
    best = trial.best(spec.metric)
    if best is None and trial.num_folds > 1:
        raise ValueError(
            f"trial {trial.number} of sweep {spec.name!r} was not trained on all"
            f" {trial.num_folds} folds ({trial.state}: {trial.reason}) and has no score that"
            f" compares; choose another, see: {command_for('status', sweep)}"
        )
    trained = trial if trial.copied_from is None else history.trials[trial.copied_from]
    weights = weights_of(history, sweep, trial) if best is not None else None
    if best is None or not (weights or trial.num_folds > 1):
        raise ValueError(
            f"trial {trial.number} of sweep {spec.name!r} has no weights to export ({trial.state}:"
            f" {trial.reason}); the best {spec.keep} are kept, see: {command_for('status', sweep)}"
        )
    load_recorded(trial.settings)
    config = make_config(dict(trial.settings))
    features = load_features(manifest, Path(spec.features), *spec.features_key(config))
    if trial.num_folds > 1:
        device = "cuda" if spec.gpus_per_trial > 0 and torch.cuda.is_available() else "cpu"
        weights = trained_on_all_folds(trained, features, sweep, spec.metric, best[0], device)
    assert weights is not None
    head = Head(
        name=f"{config.architecture} K{config.context} #{trial.number}",
        config=config,
        dims=dims_of(features, config),
        labels=manifest.classes,
        audio_recipe=features.speech.recipe,
        text_recipe=features.text.recipe,
    )
    provenance = replace(
        _provenance(history, trial, manifest),
        epoch=best[0],
        epochs_trained=trial.epoch,
        seed=config.seed,
        precision=trial.precision,
        validation_metrics=trial.metrics(best[0]),
        fold_scores=(
            trial.fold_scores(spec.metric, trial.num_folds)[best[0]]
            if trial.num_folds > 1
            else None
        ),
    )
    write_bundle(out, head, weights, provenance)


def _finish(trials: Sequence[Trial], folder: Path, data: SweepData, options: Options) -> None:
    """Evaluate what is in a folder, hold it against the ledger, add card and ONNX, seal it and
    check the whole.

    Raises BundleError or ValueError where it does not reproduce its score.
    """
    metric, manifest = data.spec.metric, data.manifest
    bundle = load_bundle_or_ensemble(folder)
    rows, probabilities = predict_rows(
        bundle, manifest, data.features, manifest.rows("dev"), torch.device("cpu")
    )
    metrics = score(probabilities, rows)
    expected = told = metrics
    is_of_folds, best = trials[0].num_folds > 1, trials[0].best(metric)
    assert best is not None
    if is_of_folds:  # dev was trained on: what the ledger says is of other models
        told = trials[0].metrics(best[0])
    elif isinstance(bundle, Bundle):
        expected = trials[0].metrics(best[0])
        check_reproduced(
            folder,
            metric,
            metrics,
            expected,
            "the ledger says",
            lambda: data.changes_since(trials[0]),
        )
    else:
        write_provenance(folder, replace(bundle.provenance, validation_metrics=metrics))
    temperature = fitted_temperature(probabilities.numpy(), rows.truth.numpy())
    if temperature is not None and not is_of_folds:
        bundle = replace(bundle, temperature=round(temperature, 4))
        write_temperature(folder, round(temperature, 4))
    if options.onnx and isinstance(bundle, Bundle):
        from mmm.bundle.onnx_head import export_onnx

        write_bytes(folder / "model.onnx", export_onnx(bundle))
    dialogues = [manifest.utterances[row].dialogue_id for row in rows.indices.tolist()]
    intervals: dict[str, tuple[float, float]] = {}
    if not is_of_folds:
        intervals = bootstrap_intervals(
            rows.truth.numpy(),
            probabilities.argmax(dim=1).numpy(),
            dialogues,
            len(rows.names),
        )
    openings = [
        row for row in read_openings(data.features) if row["manifest_sha256"] == manifest.sha256
    ]
    mine = [row for row in openings if row["weights_sha256"] == bundle.weights_sha256]
    found = Evaluation(data.whole, told, intervals, mine, len(openings) - len(mine))
    write_text(folder / "README.md", model_card(bundle, found, options.data_licence))
    seal(folder)
    if options.fresh_process:
        systems = {str(one) for trial in trials if (one := as_loaded(trial.settings).get("system"))}
        again = in_fresh_process(folder, manifest.path, data.features, sorted(systems))
        check_reproduced(folder, metric, again, expected, "expected in a fresh process:")
    else:
        load_bundle_or_ensemble(folder)


def check_reproduced(
    folder: Path,
    metric: str,
    found: Metrics,
    expected: Metrics,
    who: str,
    changes: Callable[[], str] = lambda: CHANGED,
) -> None:
    """Raise ValueError where a bundle does not score what it did when it was trained; `changes`
    says why that may be.
    """
    score, score_then = value_of(found, metric), value_of(expected, metric)
    loss, loss_then = found["loss"], expected["loss"]
    if abs(score - score_then) > _SCORE_TOLERANCE or abs(loss - loss_then) > _LOSS_TOLERANCE * max(
        1.0, loss_then
    ):
        raise ValueError(
            f"{folder}: the bundle's validation {metric} is {score:.4f} (loss {loss:.4f}), {who}"
            f" {score_then:.4f} (loss {loss_then:.4f}); {changes()} Nothing was written"
        )
