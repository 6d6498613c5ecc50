"""The model card: what a bundle is, in the layout of Hugging Face's hub (README.md with a YAML
head).

Everything in it is taken from the bundle's own files, the manifest and the record of test openings;
nothing is written by hand.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mmm.bundle.read import Bundle, Ensemble
from mmm.features.recipe import Recipe, recipe_hash
from mmm.files import sha256_of_file
from mmm.manifest import Manifest
from mmm.metrics import LEVEL, RESAMPLES, Metrics, value_of
from mmm.models import SYSTEMS
from mmm.version import VERSION

_METRICS = {
    "macro_f1": "macro F1",
    "unweighted_recall": "unweighted recall (UAR)",
    "accuracy": "accuracy",
    "weighted_f1": "weighted F1",
}
_CLASS_SCORES: tuple[Literal["precision", "recall", "f1"], ...] = ("precision", "recall", "f1")
_ENOUGH_DIALOGUES = 20  # fewer make percentile intervals too narrow
_HUB_TYPES = {
    "macro_f1": "f1",
    "unweighted_recall": "recall",
    "accuracy": "accuracy",
    "weighted_f1": "f1",
}


@dataclass(frozen=True)
class Evaluation:
    """What is known of a bundle beyond its files: validation metrics with intervals, and openings
    of the test split.

    `openings` are the rows of test_openings.csv with this bundle's weights, `other_openings` counts
    those of other bundles on the same manifest.
    """

    manifest: Manifest
    metrics: Metrics
    intervals: dict[str, tuple[float, float]]
    openings: Sequence[dict[str, str]]
    other_openings: int


def model_card(
    bundle: Bundle | Ensemble, found: Evaluation, data_licence: str | None = None
) -> str:
    """The text of README.md. Call it before the folder is sealed."""
    return _head(bundle, found) + "\n".join(
        [
            f"# {bundle.name}",
            "",
            *_what(bundle),
            *_load(bundle),
            *_validation(found),
            *_test(found),
            *_data(bundle, found, data_licence),
            *_settings(bundle),
            *_search(bundle),
            *_limits(),
            *_files(bundle.path),
        ]
    )


def _head(bundle: Bundle | Ensemble, found: Evaluation) -> str:
    """The YAML head. JSON values are YAML values, so that names cannot break it."""
    encoders = {str(recipe["encoder"]) for recipe in _recipes(bundle) if recipe.get("revision")}
    metrics = [
        {
            "type": _HUB_TYPES[name],
            "name": f"validation {title}",
            "value": round(value_of(found.metrics, name), 6),
        }
        for name, title in _METRICS.items()
    ]
    result = {
        "task": {
            "type": "audio-classification",
            "name": "emotion recognition in conversation, from speech and text",
        },
        "dataset": {
            "type": "custom",
            "name": found.manifest.path.name,
            "split": "validation",
            "revision": found.manifest.sha256[:16],
        },
        "metrics": metrics,
    }
    head: dict[str, Any] = {
        "license": "unknown",
        "library_name": "mmm-search",
        "pipeline_tag": "audio-classification",
        "tags": [
            "emotion-recognition",
            "speech",
            "text",
            "conversation",
            *sorted({m.config.architecture for m in bundle.members}),
        ],
        **({"base_model": sorted(encoders)} if encoders else {}),
        "model-index": [{"name": bundle.name, "results": [result]}],
    }
    return (
        "---\n"
        + "".join(
            f"{name}: {json.dumps(value, ensure_ascii=False)}\n" for name, value in head.items()
        )
        + "---\n"
    )


def _recipes(bundle: Bundle | Ensemble) -> list[Recipe]:
    return [
        recipe for member in bundle.members for recipe in (member.audio_recipe, member.text_recipe)
    ]


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    def line(cells: Sequence[object]) -> str:
        return (
            "| "
            + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells)
            + " |"
        )

    return [line(header), line(["---"] * len(header)), *map(line, rows), ""]


def _what(bundle: Bundle | Ensemble) -> list[str]:
    first = bundle.members[0]
    classes = ", ".join(bundle.labels)
    if isinstance(bundle, Ensemble):
        kind = (
            f"An ensemble of {len(bundle.members)} models; its answer is the mean of their"
            " probabilities."
        )
        rows = [
            (
                m.path.name,
                m.config.architecture,
                m.config.context,
                "" if m.provenance.trial is None else m.provenance.trial,
                _number((m.provenance.validation_metrics or {}).get("macro_f1")),
            )
            for m in bundle.members
        ]
        members = _table(
            ("member", "architecture", "context K", "trial", "validation macro F1"), rows
        )
    else:
        described = SYSTEMS[first.config.architecture].__doc__
        assert described is not None
        kind = f"A `{first.config.architecture}`: {described.strip().splitlines()[0]}"
        members = []
    parameters = sum(
        value.numel() for member in bundle.members for value in member.model.parameters()
    )
    earlier = max(member.config.context for member in bundle.members) - 1
    context = (
        f", its text and up to {earlier} {'turn' if earlier == 1 else 'turns'} before it"
        if earlier
        else " and its text"
    )
    return [
        kind,
        "",
        (
            f"It gives the probability of each of {len(bundle.labels)} emotions ({classes}) for an"
            f" utterance, from its speech{context}. {parameters:,} parameters, trained on frozen"
            f" features: speech from `{first.audio_recipe['encoder']}`, text from"
            f" `{first.text_recipe['encoder']}`."
        ),
        "",
        *members,
    ]


def _load(bundle: Bundle | Ensemble) -> list[str]:
    lines = [
        "## How to load it",
        "",
        "```",
        "pip install mmm-search",
        'mmm predict FOLDER --audio x.wav --text "What do you mean?"',
        "```",
        "",
        "```python",
        "import mmm",
        "from pathlib import Path",
        "",
        'model = mmm.load("FOLDER")',
        (
            'model.predict(Path("x.wav"), "What do you mean?", history=[(None, "We were on a'
            ' break!")])'
        ),
        "```",
        "",
    ]
    wanted = {
        f"`{recipe['encoder']}`"
        + (f" (revision {recipe['revision']})" if recipe.get("revision") else "")
        for recipe in _recipes(bundle)
        if recipe["encoder"] not in ("fbank", "char-ngram")
    }
    if wanted:
        lines += [
            (
                "The encoders are not in the folder and have to be on the machine:"
                f" {', '.join(sorted(wanted))}."
            ),
            "",
        ]
    if any((member.path / "model.onnx").is_file() for member in bundle.members):
        lines += [
            (
                "`model.onnx` is the head alone, from encoded speech and text to logits;"
                " `Predictor.inputs` of mmm.predict.predictor gives what it takes."
            ),
            "",
        ]
    return [
        *lines,
        (
            "Weights are safetensors, all else is JSON; loading runs no code from the folder and"
            " refuses a folder with any file that checksums.json does not name."
        ),
        "",
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _validation(found: Evaluation) -> list[str]:
    rows = [
        (title, _number(value_of(found.metrics, name)), f"{low:.4f} to {high:.4f}")
        for name, title in _METRICS.items()
        for low, high in [found.intervals[name]]
    ]
    dev = found.manifest.rows("dev")
    dialogues = len({found.manifest.utterances[row].dialogue_id for row in dev})
    per_class = [
        (name, *(f"{own[key]:.3f}" for key in _CLASS_SCORES), own["support"])
        for name, own in found.metrics["per_class"].items()
    ]
    few = ", and of so few dialogues they are too narrow" if dialogues < _ENOUGH_DIALOGUES else ""
    return [
        "## Validation",
        "",
        *_table(("metric", "validation", f"{LEVEL:.0%} interval"), rows),
        (
            f"{len(dev)} utterances of {dialogues} dialogues. Percentile intervals of {RESAMPLES:,}"
            " bootstrap samples of whole dialogues; what another seed would have given is not in"
            f" them{few}. The model was chosen on this split, so the figures are optimistic, all"
            " the more the more models were tried."
        ),
        "",
        *_table(("class", "precision", "recall", "F1", "utterances"), per_class),
    ]


def _test(found: Evaluation) -> list[str]:
    lines = ["## Test", ""]
    if found.openings:
        rows = [
            (row["time"], row["utterances"], row["macro_f1"] or "died", row["accuracy"] or "died")
            for row in found.openings
        ]
        lines += [
            (
                f"The sealed test split was opened for these weights {len(rows)} times before this"
                " card was written:"
            ),
            "",
            *_table(("time (UTC)", "utterances", "macro F1", "accuracy"), rows),
        ]
    else:
        lines += [
            (
                "The sealed test split had not been opened for these weights when this card was"
                " written."
            ),
            "",
        ]
    if found.other_openings:
        lines += [
            f"It was opened {found.other_openings} times for other models on the same manifest.",
            "",
        ]
    return lines


def _data(bundle: Bundle | Ensemble, found: Evaluation, data_licence: str | None) -> list[str]:
    manifest = found.manifest
    rows = []
    for split in ("train", "dev", "test"):
        mine = [u for u in manifest.utterances if u.split == split]
        # Of the sealed split no more than its size.
        counts = Counter(name for u in mine for name in u.emotions) if split != "test" else None
        rows.append(
            (
                split,
                len(mine),
                len({u.dialogue_id for u in mine}),
                len({u.session for u in mine}),
                *(counts[name] if counts else "" for name in manifest.classes),
            )
        )
    features = [
        (
            recipe["kind"],
            f"`{recipe['encoder']}`",
            recipe.get("feature", f"context {recipe.get('context')}"),
            recipe.get("revision") or recipe.get("files_sha256") or f"version {recipe['version']}",
            f"`{recipe_hash(recipe)}`",
        )
        for recipe in {recipe_hash(recipe): recipe for recipe in _recipes(bundle)}.values()
    ]
    return [
        "## Data",
        "",
        f"`{manifest.path.name}`, SHA-256 `{manifest.sha256}`.",
        "",
        *_table(("split", "utterances", "dialogues", "sessions", *manifest.classes), rows),
        *_table(("features", "encoder", "what", "revision", "recipe"), features),
        *_data_changes(bundle),
        (
            f"Licence of the data: {data_licence or 'unknown'}. It decides what these weights may"
            " be used for."
        ),
        "",
    ]


def _data_changes(bundle: Bundle | Ensemble) -> list[str]:
    """Where the data were changed while trials were searched: what changed, and on which of them
    these weights were trained.
    """
    changes = bundle.provenance.data_changes
    if not changes:
        return []
    mine = ", ".join(sorted({str(member.provenance.data) for member in bundle.members}))
    return [
        "The data were changed while the search went on:",
        "",
        *(f"* {change}" for change in changes),
        "",
        f"These weights were trained on data {mine} of {len(changes) + 1}.",
        "",
    ]


def _settings(bundle: Bundle | Ensemble) -> list[str]:
    members = bundle.members
    names = list(dict.fromkeys(name for member in members for name in member.config.params()))
    header = ["setting", *(m.path.name if len(members) > 1 else "value" for m in members)]
    rows = [
        (f"`{name}`", *(member.config.params().get(name, "") for member in members))
        for name in names
    ]
    trained = [
        ("epoch of the weights", *(m.provenance.epoch or "" for m in members)),
        ("epochs trained", *(m.provenance.epochs_trained or "" for m in members)),
    ]
    return ["## Settings", "", *_table(header, [*rows, *trained])]


def _search(bundle: Bundle | Ensemble) -> list[str]:
    search = bundle.provenance.search
    if not search:
        return []
    return [
        "## How it was searched",
        "",
        *_table(("", ""), [(name.replace("_", " "), value) for name, value in search.items()]),
    ]


def _limits() -> list[str]:
    return [
        "## Limits",
        "",
        (
            "* It knows the voices, language, recording conditions and labels of the corpus above;"
            " on others it was not measured."
        ),
        (
            "* The labels are what raters heard, not what speakers felt. Do not judge people by its"
            " output."
        ),
        "* Rare classes rest on few utterances (see the table): their scores vary most.",
        "* Probabilities are a softmax; they were not calibrated.",
        "",
    ]


def _files(folder: Path) -> list[str]:
    names = sorted(
        file.relative_to(folder).as_posix()
        for file in folder.rglob("*")
        if file.suffix in (".safetensors", ".onnx")
    )
    rows = [(f"`{name}`", f"`{sha256_of_file(folder / name)}`") for name in names]
    return [
        "## Files",
        "",
        *_table(("weights", "SHA-256"), rows),
        f"Made with mmm-search {VERSION}; all files are checksummed in checksums.json.",
        "",
    ]
