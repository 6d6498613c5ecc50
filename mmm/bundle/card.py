"""The model card: what a bundle is, in the layout of Hugging Face's hub (README.md with a YAML
head).

Everything in it is taken from the bundle's own files, the manifest and the record of test openings;
nothing is written by hand.
"""

import inspect
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from huggingface_hub import EvalResult, ModelCardData

from mmm.bundle.read import Bundle, Ensemble
from mmm.features.recipe import Recipe, recipe_hash
from mmm.files import sha256_of_file
from mmm.manifest import SPLITS, Manifest
from mmm.markdown import as_code, as_markdown
from mmm.metrics import LEVEL, RESAMPLES, Metrics, value_of
from mmm.models import SYSTEMS
from mmm.training.own_system import loaded_system
from mmm.version import VERSION

_METRICS = {
    "macro_f1": "macro F1",
    "unweighted_recall": "unweighted recall (UAR)",
    "accuracy": "accuracy",
    "weighted_f1": "weighted F1",
}
_HUB_TYPES = {
    "macro_f1": "f1",
    "unweighted_recall": "recall",
    "accuracy": "accuracy",
    "weighted_f1": "f1",
}
_ENOUGH_DIALOGUES = 20  # fewer make percentile intervals too narrow


@dataclass(frozen=True)
class Evaluation:
    """What is known of a bundle beyond its files: validation metrics with intervals, and openings
    of the test split.

    `openings` are the rows of test_openings.csv with this bundle's weights, `other_openings` counts
    those of other bundles on the same manifest.
    """

    manifest: Manifest
    metrics: Metrics
    intervals: dict[str, tuple[float, float]]  # none over folds
    openings: Sequence[dict[str, str]]
    other_openings: int


def model_card(
    bundle: Bundle | Ensemble, found: Evaluation, data_licence: str | None = None
) -> str:
    """The text of README.md. Call it before the folder is sealed."""
    members, manifest = bundle.members, found.manifest
    recipes = [recipe for one in members for recipe in (one.audio_recipe, one.text_recipe)]
    fold_scores = None if isinstance(bundle, Ensemble) else bundle.provenance.fold_scores
    scored = manifest.rows("dev") if fold_scores is None else manifest.rows_in_folds()
    dev = [manifest.utterances[row].dialogue_id for row in scored]
    classes = manifest.classes_of([*manifest.rows("train"), *manifest.rows("dev")])
    system = loaded_system(members[0].config.params())
    made = SYSTEMS[members[0].config.architecture] if system is None else system.make
    described = inspect.cleandoc(made.__doc__ or "a system of its author's own")
    own = {one.config.architecture: one.config.system_sha256 for one in members}
    folder = jinja2.FileSystemLoader(Path(__file__).parent)
    # No escaping: it is Markdown, and what a table's cell may not have is replaced there.
    environment = jinja2.Environment(  # noqa: S701
        loader=folder, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"as_text": as_markdown, "as_code": as_code}
    body = environment.get_template("card.md.j2").render(
        bundle=bundle,
        members=members,
        is_ensemble=isinstance(bundle, Ensemble),
        described=described.splitlines()[0],
        own={name: sha256 for name, sha256 in own.items() if sha256 is not None},
        num_parameters=sum(
            weights.numel() for one in members for weights in one.model.parameters()
        ),
        num_earlier=max(one.config.context for one in members) - 1,
        encoders=sorted(
            {
                as_code(recipe["encoder"])
                + (f" (revision {recipe['revision']})" if recipe.get("revision") else "")
                for recipe in recipes
                if recipe["encoder"] not in ("fbank", "char-ngram")
            }
        ),
        has_onnx=any((one.path / "model.onnx").is_file() for one in members),
        level=LEVEL,
        resamples=RESAMPLES,
        scores=[
            (title, value_of(found.metrics, name), found.intervals.get(name))
            for name, title in _METRICS.items()
        ],
        fold_scores=fold_scores,
        per_class=found.metrics["per_class"],
        num_dev=len(dev),
        num_dialogues=len(set(dev)),
        enough_dialogues=_ENOUGH_DIALOGUES,
        found=found,
        manifest=manifest,
        classes=classes,
        notes=manifest.notes,
        splits=_splits(manifest, classes),
        features=[
            (
                recipe["kind"],
                f"`{recipe['encoder']}`",
                recipe.get("feature", f"context {recipe.get('context')}"),
                recipe.get("revision")
                or recipe.get("files_sha256")
                or f"version {recipe['version']}",
                f"`{digest}`",
            )
            for digest, recipe in {recipe_hash(one): one for one in recipes}.items()
        ],
        data_licence=data_licence or "unknown",
        settings=[one.config.params() for one in members],
        weights={
            file.relative_to(bundle.path).as_posix(): sha256_of_file(file)
            for file in sorted(bundle.path.rglob("*"))
            if file.suffix in (".safetensors", ".onnx")
        },
        version=VERSION,
    )
    return f"---\n{_head(bundle, recipes, found).to_yaml()}\n---\n{body}\n"


def _head(bundle: Bundle | Ensemble, recipes: Sequence[Recipe], found: Evaluation) -> ModelCardData:
    encoders = {recipe["encoder"] for recipe in recipes if recipe.get("revision")}
    folds = None if isinstance(bundle, Ensemble) else bundle.provenance.fold_scores
    split = f"{len(folds)}-fold cross-validation" if folds else "validation"
    results = [
        EvalResult(
            task_type="audio-classification",
            task_name="emotion recognition in conversation, from speech and text",
            dataset_type="custom",
            dataset_name=found.manifest.path.name,
            dataset_split=split,
            dataset_revision=found.manifest.sha256[:16],
            metric_type=_HUB_TYPES[name],
            metric_name=f"{split} {title}",
            metric_value=round(value_of(found.metrics, name), 6),
        )
        for name, title in _METRICS.items()
    ]
    architectures = sorted({one.config.architecture for one in bundle.members})
    return ModelCardData(
        license="unknown",
        library_name="mmm-search",
        pipeline_tag="audio-classification",
        tags=["emotion-recognition", "speech", "text", "conversation", *architectures],
        base_model=sorted(encoders) or None,
        model_name=bundle.name,
        eval_results=results,
    )


def _splits(manifest: Manifest, classes: Sequence[str]) -> list[tuple[object, ...]]:
    """Counts of each split; of the sealed one no more than its size."""
    rows: list[tuple[object, ...]] = []
    for split in SPLITS:
        mine = [one for one in manifest.utterances if one.split == split]
        counts = Counter(name for one in mine for name in one.emotions)
        rows.append(
            (
                split,
                len(mine),
                len({one.dialogue_id for one in mine}),
                len({one.session for one in mine}),
                *("" if split == "test" else counts[name] for name in classes),
            )
        )
    return rows
