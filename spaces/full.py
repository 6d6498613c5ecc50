"""Everything that the published work varied, and what decides results beside it. The four
published systems come first, then two that are common elsewhere.

mmm-search run full manifest.csv --features features --name full --trials 100 --epochs 27
"""

from optuna import Trial

from spaces.choices import (
    is_layered,
    on_each,
    suggest_audio_feature,
    suggest_context,
    suggest_encoders,
)
from spaces.there import ANY, Settings, There

_POOLED = ("vanilla_concat", "three_way_concat", "gated_fusion", "late_fusion")
_COMMON: Settings = {
    "lr": 5e-4,
    "batch_size": 32,
    "dropout": 0.5,
    "weight_decay": 0.5,
    "label_smoothing": 0.1,
    "balance": "none",
}
_SEQUENCES = {"dropout": 0.3, "weight_decay": 0.1}
# Small heads on frozen features overfit before they underfit (docs/LOG.md, 2026-11-26). Weights of
# classes help weak features and hurt good ones, so one point has them.
KNOWN_GOOD: tuple[Settings, ...] = (
    {
        **_COMMON,
        "architecture": "vanilla_concat",
        "context": 3,
        "width": 128,
        "balance": "sqrt_inverse",
    },
    {**_COMMON, "architecture": "three_way_concat", "context": 1, "width": 64},
    {
        **_COMMON,
        "architecture": "cross_attention",
        "context": 1,
        "layers": 1,
        "heads": 8,
        "lr": 3e-4,
        **_SEQUENCES,
    },
    {
        **_COMMON,
        "architecture": "mlp_mixer",
        "context": 1,
        "width": 128,
        "num_blocks": 1,
        **_SEQUENCES,
    },
    {**_COMMON, "architecture": "gated_fusion", "context": 1, "width": 128, "dropout": 0.3},
    {**_COMMON, "architecture": "late_fusion", "context": 3, "width": 64, "dropout": 0.3},
)


def known_good(there: There) -> tuple[Settings, ...]:
    """Decent settings of each system on the encoders that are there."""
    points = on_each(KNOWN_GOOD, there)
    for point in points:
        speech = point.get("speech")
        if len(there.features_of(None if speech is None else str(speech))) > 1:
            point["audio_feature"] = "hidden_state"
        if point["architecture"] in _POOLED:
            point["pooling"] = "mean"
            if is_layered(there, point):
                point["layer_mix"] = "one"
    return tuple(points)


def suggest(trial: Trial, there: There = ANY) -> Settings:
    """Architecture, encoders, layers, pooling, context, imbalance, optimiser and the model's own
    settings.
    """
    architecture = trial.suggest_categorical(
        "architecture",
        [
            "vanilla_concat",
            "three_way_concat",
            "cross_attention",
            "mlp_mixer",
            "gated_fusion",
            "late_fusion",
        ],
    )
    # Sampling and class weights answer the same question, so they are one choice.
    balance = trial.suggest_categorical(
        "balance", ["none", "sqrt_inverse", "inverse", "weighted_sampling"]
    )
    encoders = suggest_encoders(trial, there)
    settings: Settings = {
        **encoders,
        "architecture": architecture,
        "context": suggest_context(trial, there),
        "audio_feature": suggest_audio_feature(trial, there, encoders),
        "lr": trial.suggest_float("lr", 5e-5, 5e-3, log=True),
        "batch_size": trial.suggest_categorical("batch_size", [16, 32, 64]),
        "dropout": trial.suggest_float("dropout", 0.0, 0.7),
        "weight_decay": trial.suggest_float("weight_decay", 1e-3, 2.0, log=True),
        "label_smoothing": trial.suggest_float("label_smoothing", 0.0, 0.2),
        "weighted_sampling": balance == "weighted_sampling",
        "class_weight": "none" if balance == "weighted_sampling" else balance,
    }
    if architecture == "cross_attention":
        settings["layers"] = trial.suggest_int("layers", 1, 2)
        settings["heads"] = trial.suggest_categorical("heads", [2, 4, 8])
    else:
        settings["width"] = trial.suggest_categorical("width", [64, 128, 256])
    if architecture in _POOLED:
        settings["pooling"] = trial.suggest_categorical("pooling", ["mean", "mean_std"])
        if is_layered(there, settings) and settings["audio_feature"] == "hidden_state":
            settings["layer_mix"] = trial.suggest_categorical(
                "layer_mix", ["one", "mean", "learned"]
            )
    if architecture == "mlp_mixer":
        settings["num_blocks"] = trial.suggest_int("num_blocks", 1, 4)
    return settings
