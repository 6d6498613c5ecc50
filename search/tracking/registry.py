"""MLflow's model registry: a bundle goes in as a model that can be served, and comes out of a run
as a bundle.
"""

import base64
import io
import tempfile
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import mmm
from mmm.audio.speech import SAMPLE_RATE_HZ
from mmm.bundle.evaluate import in_fresh_process
from mmm.bundle.read import Bundle, BundleError, Ensemble, load_bundle_or_ensemble
from mmm.bundle.write import check_destination
from mmm.files import new_directory
from mmm.manifest_csv import read_manifest
from mmm.metrics import value_of
from search.results.export import check_reproduced
from search.tracking.serving import ServedBundle
from search.tracking.store import open_client

ALIAS = "champion"
_TOLERANCE = 1e-5  # of a probability


def example_input(with_speakers: bool = False) -> pd.DataFrame:
    """One row that a served model answers: half a second of a tone, so that no corpus's speech goes
    along.
    """
    time_s = np.arange(SAMPLE_RATE_HZ // 2) / SAMPLE_RATE_HZ
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes((3000 * np.sin(2 * np.pi * 220 * time_s)).astype("<i2").tobytes())
    row = {
        "audio": base64.b64encode(content.getvalue()).decode(),
        "text": "What do you mean?",
        "history": ["We were on a break!"],
        "history_audio": [""],
    }
    if with_speakers:
        row |= {"speaker": "Rachel", "history_speaker": ["Ross"]}
    return pd.DataFrame([row])


def _signature(labels: tuple[str, ...]) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Array

    turns = Array(DataType.string)
    inputs = [
        ColSpec(DataType.string, "audio"),
        ColSpec(DataType.string, "text"),
        ColSpec(turns, "history", required=False),
        ColSpec(turns, "history_audio", required=False),
        ColSpec(DataType.string, "speaker", required=False),
        ColSpec(turns, "history_speaker", required=False),
    ]
    return ModelSignature(
        Schema(inputs), Schema([ColSpec(DataType.double, label) for label in labels])
    )


def register(folder: Path, name: str, runs: Path, tracking_uri: str | None) -> int:
    """Put a bundle or an ensemble into the registry with the alias `champion`; returns the version.

    It is logged under the run of its trial where MLflow knows it. The model that comes back is held
    against the bundle before it becomes the champion. Raises BundleError.
    """
    bundle = load_bundle_or_ensemble(folder)
    client, experiment = open_client(runs, tracking_uri)
    uri = str(client.tracking_uri)
    import mlflow
    from mlflow.models import Model

    served = ServedBundle(folder)
    example = example_input(served.predictor.with_speakers)
    expected = served.predict(example)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    mlflow.set_experiment(experiment_id=experiment)
    provenance = bundle.provenance
    logged = Model.log(
        artifact_path=None,
        name="model",
        flavor=mlflow.pyfunc,
        run_id=_run_of(client, experiment, bundle),
        loader_module="search.tracking.serving",
        data_path=str(folder),
        signature=_signature(bundle.labels),
        input_example=example,
        pip_requirements=[f"mmm-search=={mmm.__version__}"],
        registered_model_name=name,
        metadata={
            "bundle_sha256": bundle.sha256,
            "weights_sha256": bundle.weights_sha256,
            "sweep": provenance.sweep,
        },
    )
    version = int(logged.registered_model_version)
    found = mlflow.pyfunc.load_model(f"models:/{name}/{version}").predict(example)
    difference = float(np.abs(found[list(bundle.labels)].to_numpy() - expected.to_numpy()).max())
    if not difference <= _TOLERANCE:
        client.delete_model_version(name, str(version))
        raise BundleError(
            f"{folder}: MLflow's copy answers differently (by {difference:.1e}); it was taken out"
            " of the registry again"
        )
    client.set_registered_model_alias(name, ALIAS, str(version))
    return version


def _run_of(client: Any, experiment: str, bundle: Bundle | Ensemble) -> str | None:
    """The run of the bundle's trial (of an ensemble: of the sweep); None where MLflow does not have
    it.
    """
    sweep, trial = bundle.provenance.sweep, bundle.provenance.trial
    if sweep is None:
        return None
    run = "sweep" if trial is None else trial
    query = f"tags.`mmm.sweep` = '{sweep}' and tags.`mmm.trial` = '{run}'"
    found = client.search_runs([experiment], filter_string=query, max_results=1)
    return str(found[0].info.run_id) if found else None


def fetch_bundle(
    run_id: str,
    out: Path,
    runs: Path,
    tracking_uri: str | None,
    manifest: Path | None = None,
    features: Path | None = None,
) -> str:
    """The bundle of an MLflow run into `out`, from MLflow alone; returns what could be checked, as
    a sentence.

    Where manifest and features are on this machine (`manifest` and `features`, or where the sweep
    had them), a fresh process has to reproduce the validation score. Raises BundleError or
    ValueError; `out` is then as it was.
    """
    from mlflow.exceptions import MlflowException

    check_destination(out)
    client, _ = open_client(runs, tracking_uri)
    try:
        run = client.get_run(run_id)
        if not any(item.path == "bundle" for item in client.list_artifacts(run_id)):
            raise BundleError(
                f"run {run_id} ({run.info.run_name}) has no bundle; sweeps log that of their best"
                " trial, see the tag mmm.best_trial"
            )
    except MlflowException as error:
        raise ValueError(
            f"run {run_id}: MLflow at {client.tracking_uri} does not give it"
            f" ({str(error).splitlines()[0]})"
        ) from None
    with (
        new_directory(out) as scratch,
        tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as downloads,
    ):
        fetched = Path(client.download_artifacts(run_id, "bundle", downloads))
        for child in fetched.iterdir():
            child.rename(scratch / child.name)
        bundle = load_bundle_or_ensemble(scratch)
        places = manifest, features
        if manifest is None and features is None:
            places = _places(client, run)
        return _check_score(bundle, *places)


def _places(client: Any, run: Any) -> tuple[Path | None, Path | None]:
    """Where the sweep of a run had its manifest and features."""
    parent = run.data.tags.get("mlflow.parentRunId")
    params = client.get_run(parent).data.params if parent else run.data.params
    manifest, features = params.get("manifest"), params.get("features")
    return (Path(manifest) if manifest else None), (Path(features) if features else None)


def _check_score(bundle: Bundle | Ensemble, manifest: Path | None, features: Path | None) -> str:
    expected, metric = bundle.provenance.validation_metrics, bundle.provenance.objective
    if (
        manifest is None
        or features is None
        or not manifest.is_file()
        or not features.is_dir()
        or not expected
        or not metric
    ):
        return (
            "checksums are right; the validation score was not computed again, because manifest and"
            " features are not here (give them with --manifest and --features)"
        )
    if read_manifest(manifest, check_audio=False).sha256 != bundle.provenance.manifest_sha256:
        return (
            f"checksums are right; the validation score was not computed again, because {manifest}"
            " is another one than it was trained on"
        )
    check_reproduced(
        bundle.path,
        metric,
        in_fresh_process(bundle.path, manifest, features),
        expected,
        "when it was made it was",
    )
    return f"a fresh process reproduced its validation {metric} of {value_of(expected, metric):.4f}"
