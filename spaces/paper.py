"""The four published recipes (MMM, 2022), faults included, to compare with:
docs/reference-systems.md.

mmm-search run paper manifest.csv --features features --name paper --trials 4 --epochs 30
"""

from optuna import Trial

from spaces.choices import on_each, suggest_encoders
from spaces.there import ANY, Settings, There

ARCHITECTURES = ["vanilla_concat", "three_way_concat", "cross_attention", "mlp_mixer"]
# Written out here because spaces know Optuna alone; a test holds it against
# mmm.training.config.published_params.
_RECIPE: Settings = {
    "context": 1,
    "audio_feature": "hidden_state",
    "dropout": 0.1,
    "masked": False,
    "batch_size": 64,
    "accumulate": 8,
    "accumulation": "published",
    "lr": 5e-5,
    "weight_decay": 0.01,
    "weighted_sampling": False,
    "shuffle": False,
    "class_weight": "none",
    "label_policy": "published",
    "input_scaling": "none",
    "seed": 1024,
}
_OWN: dict[str, Settings] = {
    "vanilla_concat": {"width": 256},
    "three_way_concat": {"width": 256},
    "cross_attention": {"layers": 1, "heads": 8},
    "mlp_mixer": {"width": 256, "num_blocks": 1, "residual": "published"},
}


KNOWN_GOOD: tuple[Settings, ...] = tuple({"architecture": name} for name in ARCHITECTURES)


def known_good(there: There) -> tuple[Settings, ...]:
    """The four, on the encoders that are there."""
    return tuple(on_each(KNOWN_GOOD, there))


def suggest(trial: Trial, there: There = ANY) -> Settings:
    """One of the four systems as published."""
    encoders = suggest_encoders(trial, there)
    architecture = trial.suggest_categorical("architecture", ARCHITECTURES)
    return {**encoders, "architecture": architecture, **_RECIPE, **_OWN[architecture]}
