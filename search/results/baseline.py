"""The linear system on a sweep's own features, tuned on validation: what the winner has to beat. It
is no trial of the sweep.
"""

import time
from collections.abc import Callable
from pathlib import Path

from mmm.bundle.records import Provenance
from mmm.bundle.write import save_run_bundle
from mmm.manifest import Manifest
from mmm.metrics import value_of
from mmm.training.baselines import fitted, over_folds, tuned
from mmm.training.config import Params
from mmm.training.run import ALL_FOLDS
from search.ledger.history import History
from search.ledger.records import Baseline
from search.ledger.spec import SweepSpec

FOLDER = "baseline"  # its bundle, in the sweep's folder
TRIAL = "linear"  # in the place of a number


def words(found: Baseline) -> str:
    """`speech alone, whisper-base-l6, K=3 C=0.1 class_weight=none`."""
    of = found.settings
    inputs = "" if of.get("inputs", "both") == "both" else f"{of['inputs']} alone, "
    used = [name for name in ("speech", "text") if of.get("inputs") in (name, "both")]
    named = [str(of[name]) for name in used if of.get(name)]
    encoders = f"{' + '.join(named)}, " if named else ""
    return f"{inputs}{encoders}K={of['context']} C={of['c']:g} class_weight={of['class_weight']}"


def fit_baseline(
    spec: SweepSpec,
    manifest: Manifest,
    folder: Path,
    num_changes: int,
    progress: Callable[[str], None],
) -> Baseline:
    """Tune and fit it and write its bundle. `num_changes`: how often
    the data were changed before.
    """
    started, config = time.monotonic(), None
    given: Params = {"input_scaling": "standard", "seed": spec.seed}
    has_folds = spec.folds is not None
    tries = tuned(manifest, Path(spec.features), spec.metric, given, folds=has_folds)
    for done, total, config in tries:  # noqa: B007
        progress(f"linear baseline: {done} of {total} settings tried")
    assert config is not None
    run = fitted(
        config, manifest, Path(spec.features), spec.metric, ALL_FOLDS if has_folds else None
    )
    if has_folds:  # what ships is trained on all of them; its scores are those of the folds
        run.best_metrics = over_folds(config, manifest, Path(spec.features), spec.metric)
    about = Provenance(sweep=spec.name, trial=TRIAL, space=spec.space)
    digest = save_run_bundle(
        run, folder / FOLDER, name=f"linear K{config.context} baseline", provenance=about
    )
    return Baseline(
        settings=config.params(),
        metrics=run.best_metrics,
        seconds=time.monotonic() - started,
        sha256=digest,
        num_parameters=sum(weight.numel() for weight in run.model.parameters()),
        data_changes=num_changes,
    )


def baseline_of(history: History) -> Baseline | None:
    """The baseline on the data as they are now; None where there is none (yet)."""
    found = history.baseline
    return found if found and found.data_changes == len(history.data_changes) else None


def verdict(history: History) -> str | None:
    """How the winner stands to the baseline, in words; None where either is missing."""
    found = baseline_of(history)
    if found is None or history.best is None:
        return None
    metric = history.spec.metric
    score, number = history.best
    base = value_of(found.metrics, metric)
    where = "above" if score > base else "below" if score < base else "level with"
    sentence = (
        f"the winner is {where} the linear baseline: {metric} {score:.4f} (trial {number},"
        f" {history.trials[number].settings['architecture']}) against {base:.4f} (logistic"
        f" regression, {words(found)})"
    )
    return (
        sentence if score > base else f"{sentence}; its bundle is in {FOLDER}/ beside the sweep's"
    )
