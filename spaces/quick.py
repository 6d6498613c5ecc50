"""A small space that shows results in minutes on two cores.

mmm-search run quick manifest.csv --features features --name first --trials 16 --epochs 9
"""

from optuna import Trial

from spaces.choices import on_each, suggest_encoders
from spaces.there import ANY, Settings, There

KNOWN_GOOD: tuple[Settings, ...] = (
    {"architecture": "vanilla_concat", "context": 3, "lr": 1e-3, "dropout": 0.4, "width": 128},
    {"architecture": "three_way_concat", "context": 1, "lr": 1e-3, "dropout": 0.4, "width": 64},
    {
        "architecture": "mlp_mixer",
        "context": 3,
        "lr": 1e-3,
        "dropout": 0.4,
        "width": 64,
        "num_blocks": 1,
    },
    {
        "architecture": "cross_attention",
        "context": 1,
        "lr": 3e-4,
        "dropout": 0.4,
        "layers": 1,
        "heads": 4,
    },
    {"architecture": "gated_fusion", "context": 1, "lr": 5e-4, "dropout": 0.3, "width": 128},
    {"architecture": "late_fusion", "context": 3, "lr": 5e-4, "dropout": 0.3, "width": 64},
)


def known_good(there: There) -> tuple[Settings, ...]:
    """Decent settings of each system on the encoders that are there."""
    return tuple(on_each(KNOWN_GOOD, there))


def suggest(trial: Trial, there: There = ANY) -> Settings:
    """Architecture, encoders, context, learning rate, dropout and the model's own size."""
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
    settings: Settings = {
        **suggest_encoders(trial, there),
        "architecture": architecture,
        "context": trial.suggest_int("context", 1, 3),
        "lr": trial.suggest_float("lr", 1e-4, 5e-3, log=True),
        "dropout": trial.suggest_float("dropout", 0.0, 0.6),
        "batch_size": 32,
        "weight_decay": 0.3,
        "label_smoothing": 0.1,
    }
    if architecture == "cross_attention":
        settings["layers"] = trial.suggest_int("layers", 1, 2)
        settings["heads"] = trial.suggest_categorical("heads", [2, 4])
    else:
        settings["width"] = trial.suggest_categorical("width", [64, 128])
    if architecture == "mlp_mixer":
        settings["num_blocks"] = trial.suggest_int("num_blocks", 1, 2)
    return settings
