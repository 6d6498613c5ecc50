"""Settings are checked once, with every fault listed at once."""

from typing import Any

import pytest

from mmm.models import ARCHITECTURES
from mmm.training.config import ConfigError, make_config, published_params


def message_of(params: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        make_config(params)
    return str(caught.value)


def test_every_fault_is_listed_at_once() -> None:
    message = message_of(
        {
            "architecture": "vanilla_concat",
            "learning_rate": 1,
            "context": 17,
            "dropout": 1.0,
            "lr": 0,
            "weight_decay": -1,
            "batch_size": 0,
            "epochs": 2.5,
            "seed": True,
            "audio_feature": "mfcc",
            "class_weight": "balanced",
            "label_policy": "last",
            "accumulation": "sum",
            "inputs": "video",
            "masked": 1,
            "num_blocks": 2,
        }
    )
    for expected in (
        "unknown setting 'learning_rate'; known: architecture, context, audio_feature",
        "context=17 is out of range; expected at least 1 and at most 16",
        "dropout=1.0 is out of range; expected at least 0 and at most 0.99",
        "lr=0 is out of range; expected above 0",
        "weight_decay=-1 is out of range; expected at least 0",
        "batch_size=0 is out of range; expected at least 1",
        "epochs=2.5 is not a whole number",
        "seed=True is not a whole number",
        "audio_feature='mfcc' is none of hidden_state, extract_feature",
        "class_weight='balanced' is none of none, inverse, sqrt_inverse",
        "label_policy='last' is none of expand, first, drop, soft, published",
        "accumulation='sum' is none of exact, published",
        "inputs='video' is none of both, speech, text",
        "masked=1 is neither true nor false",
        "num_blocks does not apply to vanilla_concat (only to mlp_mixer)",
    ):
        assert expected in message


@pytest.mark.parametrize("name", ["lr", "weight_decay", "dropout"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), "0.1", [1]])
def test_a_setting_that_is_no_number_is_refused(name: str, value: object) -> None:
    assert message_of({"architecture": "mlp_mixer", name: value}).startswith(f"{name}=")


@pytest.mark.parametrize("value", [None, "transformer", "", 3, ["mlp_mixer"]])
def test_an_unknown_architecture_is_refused_with_the_known_ones(value: object) -> None:
    message = message_of({"architecture": value, "colour": "red"})
    assert "unknown setting 'colour'" in message
    assert message.endswith(
        "expected one of vanilla_concat, three_way_concat, cross_attention, mlp_mixer, linear"
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_weighted_sampling_excludes_shuffling_and_class_weights(architecture: str) -> None:
    assert (
        message_of({"architecture": architecture, "weighted_sampling": True, "shuffle": True})
        == "weighted sampling draws its own order, so it cannot be combined with shuffling"
    )
    assert (
        message_of(
            {"architecture": architecture, "weighted_sampling": True, "class_weight": "inverse"}
        )
        == "weighted sampling already balances the classes, so class_weight must be none"
    )
    assert make_config({"architecture": architecture, "weighted_sampling": True}).shuffle is False
    assert make_config({"architecture": architecture}).shuffle is True


@pytest.mark.parametrize(
    ("setting", "value", "owners"),
    [
        ("num_blocks", 2, {"mlp_mixer"}),
        ("residual", "published", {"mlp_mixer"}),
        ("layers", 2, {"cross_attention"}),
        ("heads", 2, {"cross_attention"}),
        ("width", 64, {"vanilla_concat", "three_way_concat", "mlp_mixer"}),
    ],
)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_settings_of_other_architectures_are_refused(
    architecture: str, setting: str, value: object, owners: set[str]
) -> None:
    params = {"architecture": architecture, setting: value}
    if architecture in owners:
        assert getattr(make_config(params), setting) == value
    else:
        assert message_of(params).startswith(
            f"{setting} does not apply to {architecture} (only to "
        )
        assert setting not in make_config({"architecture": architecture}).params()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_published_settings_are_valid_and_are_the_published_ones(architecture: str) -> None:
    config = make_config(published_params(architecture))
    assert (config.lr, config.weight_decay, config.batch_size, config.accumulate) == (
        5e-5,
        0.01,
        64,
        8,
    )
    assert (config.epochs, config.seed, config.dropout, config.context) == (30, 1024, 0.1, 1)
    assert (config.masked, config.shuffle, config.weighted_sampling) == (False, False, False)
    assert (config.accumulation, config.label_policy, config.class_weight) == (
        "published",
        "published",
        "none",
    )
    assert config.classifier_hidden == (768 if architecture == "three_way_concat" else 512)
    own = {
        "mlp_mixer": {"num_blocks": 1, "residual": "published", "width": 256},
        "cross_attention": {"layers": 1, "heads": 8},
    }.get(architecture, {"width": 256})
    assert own.items() <= config.params().items()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("published", [True, False])
def test_the_flat_settings_of_a_configuration_make_it_again(
    architecture: str, published: bool
) -> None:
    config = make_config(
        published_params(architecture) if published else {"architecture": architecture, "lr": 1}
    )
    assert make_config(config.params()) == config
    assert type(config.lr) is float


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_published_fault_is_a_default(architecture: str) -> None:
    config = make_config({"architecture": architecture})
    assert (config.masked, config.accumulation, config.label_policy) == (True, "exact", "expand")
    assert config.residual in (None, "standard")
