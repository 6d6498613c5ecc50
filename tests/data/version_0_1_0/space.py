"""The space of the sweep `first`: all four systems, as small as can be."""

KNOWN_GOOD = (
    {"architecture": "vanilla_concat", "context": 2, "lr": 0.02},
    {"architecture": "three_way_concat", "context": 2, "lr": 0.02},
    {"architecture": "cross_attention", "context": 1, "lr": 0.01},
    {"architecture": "mlp_mixer", "context": 1, "lr": 0.02},
)


def suggest(trial):
    architecture = trial.suggest_categorical(
        "architecture", ["vanilla_concat", "three_way_concat", "cross_attention", "mlp_mixer"]
    )
    return {
        "architecture": architecture,
        "context": trial.suggest_int("context", 1, 2),
        "lr": trial.suggest_float("lr", 1e-3, 2e-1, log=True),
        "classifier_hidden": 8,
        "batch_size": 8,
        **({"heads": 4} if architecture == "cross_attention" else {"width": 8}),
    }
