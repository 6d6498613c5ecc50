"""The commands `mmm train`, `mmm test` and `mmm baselines`."""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmm.cli.encode import DeviceName, FeaturesDir, ManifestPath
from mmm.cli.options import options_of
from mmm.cli.systems import OwnSettings, Systems, name_systems, own_params
from mmm.console import class_table, console, metrics_table, progress_of
from mmm.metrics import OBJECTIVES
from mmm.training.config import (
    Params,
    ParamValue,
    TrainConfig,
    make_config,
    new_params,
    published_params,
)

if TYPE_CHECKING:
    from mmm.bundle.read import Bundle, Ensemble
    from mmm.manifest import Manifest
    from mmm.metrics import Metrics

TrainingPrecision = Annotated[
    str, typer.Option(help="float32, bf16, or auto: bf16 where it is faster on this device.")
]


def base_params(architecture: str, published: bool) -> dict[str, ParamValue]:
    """What a training starts from where nothing else is said. Raises ValueError for a published
    recipe of what was not published.
    """
    if not published:
        return new_params(architecture)
    from mmm.models import PUBLISHED

    if architecture not in PUBLISHED:
        raise ValueError(
            f"--published: {architecture} has no published recipe; expected one of"
            f" {', '.join(PUBLISHED)}"
        )
    return published_params(architecture)


def check_metric(metric: str) -> None:
    if metric not in OBJECTIVES:
        raise ValueError(f"unknown --metric {metric!r}; expected one of {', '.join(OBJECTIVES)}")


@options_of(
    TrainConfig,
    *("context", "speech", "text", "audio_feature", "pooling", "layer_mix"),
    *("epochs", "batch_size", "accumulate", "lr", "weight_decay"),
    *("dropout", "weighted_sampling", "shuffle", "class_weight", "label_smoothing", "label_policy"),
    *("num_blocks", "layers", "heads", "width", "c", "inputs", "input_scaling", "seed"),
    optional=True,
)
def train(
    manifest: ManifestPath,
    features: FeaturesDir,
    *,
    out: Annotated[Path, typer.Option(help="Folder of the bundle to write.", show_default=False)],
    architecture: Annotated[
        str,
        typer.Option(
            help="vanilla_concat, three_way_concat, cross_attention, mlp_mixer, gated_fusion,"
            " late_fusion, linear, or path/to/file.py:Class."
        ),
    ] = "mlp_mixer",
    given: Params,
    published: Annotated[
        bool,
        typer.Option(
            "--published", help="The published recipe, faults included; options overrule it."
        ),
    ] = False,
    metric: Annotated[str, typer.Option(help="Chooses the best epoch on validation.")] = "macro_f1",
    save_every: Annotated[
        int, typer.Option(help="Also bundle every N epochs, as OUT/epoch-N (0: never).")
    ] = 0,
    from_bundle: Annotated[
        Path | None, typer.Option("--from", help="Start from this bundle's weights.")
    ] = None,
    own: OwnSettings = None,
    name: Annotated[
        str | None, typer.Option(help="Name kept in the bundle \\[the architecture].")
    ] = None,
    device: DeviceName = "cpu",
    precision: TrainingPrecision = "auto",
) -> None:
    """Train one system and write its best epoch as a bundle."""
    from mmm.bundle.read import load_bundle
    from mmm.bundle.records import Provenance
    from mmm.bundle.write import check_destination, save_run_bundle
    from mmm.device import resolve_device, training_precision
    from mmm.manifest_csv import read_manifest
    from mmm.metrics import value_of
    from mmm.training.features import load_features
    from mmm.training.fit import Diverged, fit
    from mmm.training.malloc import keep_freed_memory
    from mmm.training.run import begin

    architecture, own_given = own_params(architecture, own)
    given = {**given, **own_given}
    start = None if from_bundle is None else load_bundle(from_bundle)
    base = base_params(architecture, published)
    if start is not None:
        base["input_scaling"] = start.config.input_scaling  # its weights are used to it
    config = make_config({**base, **given})
    keep_freed_memory()
    check_metric(metric)
    where = resolve_device(device)
    check_destination(out)
    checked = read_manifest(manifest, check_audio=False)
    for note in checked.notes:
        console.say(f"note: {note}")
    if architecture == "linear":
        config = _tuned_linear(checked, features, metric, given)
    data = load_features(checked, features, *config.features_key)
    run = begin(
        config,
        data,
        objective=metric,
        device=where,
        precision=training_precision(precision, device, architecture),
    )
    provenance = Provenance(command=" ".join(["mmm", *sys.argv[1:]]))
    if start is not None:
        if (start.config.architecture, start.labels) != (config.architecture, checked.classes):
            raise ValueError(
                f"{from_bundle}: a {start.config.architecture} over {', '.join(start.labels)};"
                f" expected {config.architecture} over {', '.join(checked.classes)}"
            )
        try:
            run.model.load_state_dict(start.model.state_dict())
        except RuntimeError as error:
            raise ValueError(
                f"{from_bundle}: its sizes do not fit these settings: {error}"
            ) from None
        provenance = dataclasses.replace(provenance, from_bundle_sha256=start.sha256)
    label = name or config.architecture
    parameters = sum(parameter.numel() for parameter in run.model.parameters())
    console.say(
        f"{label}: {parameters:,} parameters, {len(run.train)} training and {len(run.dev)}"
        f" validation rows, {where}"
    )
    try:
        for result in fit(run):
            score = value_of(result.metrics, metric)
            progress_of(console).print(
                f"epoch {result.epoch:>3}/{config.epochs}  train loss {result.train_loss:.4f}  dev"
                f" loss {result.metrics['loss']:.4f}  {metric} {score:.4f} "
                f" {result.seconds:.2f} s{'  best' if result.is_best else ''}",
                highlight=False,
            )
            if save_every and result.epoch % save_every == 0:
                at_epoch = dataclasses.replace(provenance, validation_metrics=result.metrics)
                save_run_bundle(
                    run,
                    out / f"epoch-{result.epoch:03d}",
                    name=label,
                    provenance=at_epoch,
                    last=True,
                )
    except Diverged as error:
        raise ValueError(f"{error}; nothing is written; try a lower --lr") from None
    digest = save_run_bundle(run, out, name=label, provenance=provenance)
    console.print(
        metrics_table(f"validation, best epoch {run.best_epoch}", [(label, run.best_metrics)])
    )
    console.print(class_table(run.best_metrics))
    console.say(f"bundle {out} (sha256 {digest[:16]})")


def _tuned_linear(
    manifest: "Manifest", features: Path, metric: str, given: Params
) -> "TrainConfig":
    """The linear system's settings: those that are not given are tuned on validation."""
    from mmm.training.baselines import tuned

    config = None
    with console.status("tuning the linear system") as status:
        asked = {"inputs": "both", **given}
        for done, total, config in tuned(manifest, features, metric, asked):  # noqa: B007
            status.update(f"tuning the linear system ({done} of {total} settings tried)")
    assert config is not None
    chosen = (
        f"context {config.context}, {config.audio_feature}, C {config.c:g}, class weight"
        f" {config.class_weight}"
    )
    console.say(f"tuned on validation: {chosen}")
    return config


def test(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="BUNDLE... manifest.csv", show_default=False)
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option("--features", help="Folder of feature stores.", show_default=False),
    ] = None,
    all_below: Annotated[
        Path | None, typer.Option("--all", help="Every bundle below this folder.")
    ] = None,
    system: Systems = None,
    device: DeviceName = "cpu",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the scores as JSON, and nothing else.")
    ] = False,
) -> None:
    """Open the sealed test split for named bundles, and write down that it was opened."""
    *bundle_paths, manifest = paths or [Path()]
    if features is None or not paths or not (bundle_paths or all_below):
        raise ValueError(
            "expected: mmm test BUNDLE... manifest.csv --features DIR   (or: mmm test --all DIR"
            " manifest.csv --features DIR)"
        )
    from mmm.bundle.read import find_bundles, load_bundle_or_ensemble
    from mmm.bundle.sealed_test import OPENINGS, open_test
    from mmm.device import resolve_device
    from mmm.labels import notes_of_test
    from mmm.manifest_csv import read_manifest

    where = resolve_device(device)
    name_systems(system)
    bundles = [
        load_bundle_or_ensemble(path)
        for path in [*bundle_paths, *(find_bundles(all_below) if all_below else [])]
    ]
    checked = read_manifest(manifest, check_audio=False)
    found = open_test(bundles, checked, features, where)
    labels = [
        (
            bundle.name
            if bundle.name not in [b.name for b in bundles if b is not bundle]
            else str(bundle.path)
        )
        for bundle in bundles
    ]
    if as_json:
        print(json.dumps(_scores_as_json(checked, features / OPENINGS, bundles, found)))
        return
    console.print(metrics_table("test", list(zip(labels, found, strict=True))))
    for label, metrics in zip(labels, found, strict=True):
        console.say(f"\n{label}")
        console.print(class_table(metrics))
    for note in notes_of_test(checked):
        console.say(f"note: {note}")
    console.say(f"the opening is on record in {features / OPENINGS}")


def _scores_as_json(
    manifest: "Manifest",
    openings: Path,
    bundles: "Sequence[Bundle | Ensemble]",
    found: "Sequence[Metrics]",
) -> dict[str, object]:
    """What `mmm test --json` prints: a record a bundle, in the order they were named."""
    from mmm.labels import notes_of_test

    return {
        "manifest": str(manifest.path),
        "manifest_sha256": manifest.sha256,
        "utterances": len(manifest.sealed_test_rows()),
        "openings": str(openings),
        "bundles": [
            {
                "name": bundle.name,
                "path": str(bundle.path),
                "sha256": bundle.sha256,
                "metrics": metrics,
            }
            for bundle, metrics in zip(bundles, found, strict=True)
        ],
        "notes": list(notes_of_test(manifest)),
    }


def baselines(
    manifest: ManifestPath,
    features: FeaturesDir,
    metric: Annotated[
        str, typer.Option(help="What the tuning maximises on validation.")
    ] = "macro_f1",
    folds: Annotated[
        bool, typer.Option("--folds", help="Means over the manifest's folds.")
    ] = False,
) -> None:
    """Majority class and logistic regression on pooled features, tuned on validation."""
    from mmm.manifest_csv import read_manifest
    from mmm.training.baselines import baselines as tuned_baselines

    check_metric(metric)
    checked = read_manifest(manifest, check_audio=False)
    for note in checked.notes:
        console.say(f"note: {note}")
    found = []
    with console.status("tuning logistic regression") as status:
        for one in tuned_baselines(checked, features, metric, folds=folds):
            found.append(one)
            status.update(f"tuning logistic regression (done: {one.name})")
    title = f"mean over {checked.num_folds} folds" if folds else "validation"
    console.print(metrics_table(title, [(one.name, one.metrics) for one in found]))
    for one in found:
        if one.settings:
            console.say(
                f"{one.name}: {', '.join(f'{key}={value}' for key, value in one.settings.items())}"
            )
