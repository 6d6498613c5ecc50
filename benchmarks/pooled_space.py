"""The pooled systems of `full` on whatever encoders there are: trials of seconds, for comparisons
of encoders (benchmarks/encoders_in_one_sweep.py).
"""

from optuna import Trial

from spaces import There
from spaces.choices import on_each, suggest_context, suggest_encoders
from spaces.there import Settings

POINT: Settings = {
    "architecture": "three_way_concat",
    "context": 1,
    "pooling": "mean",
    "lr": 5e-4,
    "dropout": 0.5,
    "weight_decay": 0.5,
    "width": 64,
}


def KNOWN_GOOD(there: There) -> list[Settings]:  # noqa: N802
    points = on_each([POINT], there)
    return [
        {**point, "layer_mix": "one"} if point.get("speech") in there.layered else point
        for point in points
    ]


def suggest(trial: Trial, there: There) -> Settings:
    """Architecture, encoders, layers, pooling, context, learning rate, dropout, decay, width."""
    encoders = suggest_encoders(trial, there)
    settings: Settings = {
        **encoders,
        "architecture": trial.suggest_categorical(
            "architecture", ["vanilla_concat", "three_way_concat", "gated_fusion", "late_fusion"]
        ),
        "context": suggest_context(trial, there, 3),
        "pooling": trial.suggest_categorical("pooling", ["mean", "mean_std"]),
        "lr": trial.suggest_float("lr", 1e-4, 3e-3, log=True),
        "dropout": trial.suggest_float("dropout", 0.0, 0.7),
        "weight_decay": trial.suggest_float("weight_decay", 0.01, 2.0, log=True),
        "width": trial.suggest_categorical("width", [64, 128]),
        "batch_size": 32,
        "label_smoothing": 0.1,
    }
    if encoders.get("speech") in there.layered:
        settings["layer_mix"] = trial.suggest_categorical("layer_mix", ["one", "mean", "learned"])
    return settings
