"""Training: resuming, accumulation, sampling, label policies, divergence, checkpoints."""

import itertools
import random
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from mmm.device import resolve_device
from mmm.models import ARCHITECTURES
from mmm.training.batches import labelled_rows
from mmm.training.checkpoint import load_checkpoint
from mmm.training.evaluate import forward, probabilities
from mmm.training.fit import Diverged, EpochResult, fit, row_order
from mmm.training.run import Run, begin, build_model
from tests.conftest import Corpus, begin_small, save_checkpoint, small_config, trained

CPU = torch.device("cpu")
every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)


def told(result: EpochResult) -> tuple[Any, ...]:
    """What an epoch says, the clocks apart."""
    return result.epoch, result.train_loss, result.metrics, result.is_best


def assert_same_run(one: Run, other: Run) -> None:
    """To the bit: weights, optimizer, best weights and metrics."""
    assert (one.epoch, one.best_epoch, one.best_metrics) == (
        other.epoch,
        other.best_epoch,
        other.best_metrics,
    )
    for this, that in (
        (one.model.state_dict(), other.model.state_dict()),
        (one.best_weights, other.best_weights),
    ):
        assert this.keys() == that.keys()
        assert all(torch.equal(this[name], that[name]) for name in this)
    states = [run.optimizer.state_dict()["state"] for run in (one, other)]
    assert states[0].keys() == states[1].keys()
    for key, state in states[0].items():
        assert all(torch.equal(value, states[1][key][name]) for name, value in state.items())


@every_architecture
@pytest.mark.parametrize(
    "changes", [{"class_weight": "inverse", "accumulate": 2}, {"weighted_sampling": True}], ids=str
)
def test_resumed_training_equals_undisturbed_to_the_bit(
    corpus: Corpus, tmp_path: Path, architecture: str, changes: dict[str, Any]
) -> None:
    undisturbed = begin_small(corpus, architecture, epochs=4, dropout=0.3, context=2, **changes)
    expected = [told(result) for result in fit(undisturbed)]

    interrupted = begin_small(corpus, architecture, epochs=4, dropout=0.3, context=2, **changes)
    found = [told(result) for result in itertools.islice(fit(interrupted), 2)]
    save_checkpoint(interrupted, tmp_path / "checkpoint.safetensors")
    torch.manual_seed(random.randrange(2**32))
    resumed = begin_small(corpus, architecture, epochs=4, dropout=0.3, context=2, **changes)
    load_checkpoint(resumed, tmp_path / "checkpoint.safetensors")
    found += [told(result) for result in fit(resumed)]

    assert found == expected
    assert_same_run(resumed, undisturbed)


@every_architecture
def test_two_runs_interleaved_equal_each_alone(corpus: Corpus, architecture: str) -> None:
    settings: list[dict[str, Any]] = [{"seed": 1, "dropout": 0.3}, {"seed": 2, "dropout": 0.5}]
    alone = [trained(corpus, architecture, epochs=3, **changes) for changes in settings]
    together = [begin_small(corpus, architecture, epochs=3, **changes) for changes in settings]
    for _ in zip(*(fit(run) for run in together), strict=True):
        torch.rand(5)
    for one, other in zip(alone, together, strict=True):
        if one.best_epoch:
            assert_same_run(one, other)


def test_random_states_of_the_caller_are_untouched(corpus: Corpus) -> None:
    def states() -> tuple[list[int], list[int], object]:
        legacy = np.random.get_state(legacy=False)
        assert isinstance(legacy, dict)
        return torch.get_rng_state().tolist(), legacy["state"]["key"].tolist(), random.getstate()

    torch.manual_seed(5)
    before = states()
    run = begin_small(corpus, "mlp_mixer", dropout=0.3)
    for _ in fit(run):
        assert states() == before


@every_architecture
def test_a_finished_run_can_be_prolonged(corpus: Corpus, tmp_path: Path, architecture: str) -> None:
    short, expected = (
        trained(corpus, architecture, epochs=1),
        trained(corpus, architecture, epochs=3),
    )
    save_checkpoint(short, tmp_path / "checkpoint")
    longer = begin_small(corpus, architecture, epochs=3)
    load_checkpoint(longer, tmp_path / "checkpoint")
    assert [result.epoch for result in fit(longer)] == [2, 3]
    assert_same_run(longer, expected)


def test_a_run_goes_on_in_the_precision_that_it_began_with(corpus: Corpus, tmp_path: Path) -> None:
    run = begin_small(corpus, "vanilla_concat", epochs=1)
    run.precision = "bf16"
    list(fit(run))
    save_checkpoint(run, tmp_path / "checkpoint")
    again = begin_small(corpus, "vanilla_concat", epochs=2)
    load_checkpoint(again, tmp_path / "checkpoint")
    assert again.precision == "bf16"


@every_architecture
def test_four_batches_of_three_equal_one_of_twelve(corpus: Corpus, architecture: str) -> None:
    ends = []
    for batch_size, accumulate in ((12, 1), (3, 4)):
        run = begin_small(
            corpus,
            architecture,
            batch_size=batch_size,
            accumulate=accumulate,
            dropout=0.0,
            class_weight="inverse",
            epochs=1,
        )
        assert len(run.train) % 12 not in (
            0,
            3,
            6,
            9,
        )  # the last group and its last batch are short
        # Adam divides by the gradient's size, which turns rounding of a zero gradient into a step;
        # plain descent does not.
        run.optimizer = torch.optim.SGD(run.model.parameters(), lr=0.01)
        (result,) = fit(run)
        ends.append((result.train_loss, run.model.state_dict()))
    (one_loss, one), (other_loss, other) = ends
    assert one_loss == pytest.approx(other_loss, abs=1e-6)
    for name in one:
        torch.testing.assert_close(other[name], one[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("accumulation", ["exact", "published"])
@pytest.mark.parametrize("architecture", ["cross_attention", "mlp_mixer"])
def test_a_batch_cut_into_parts_steps_as_the_whole(
    corpus: Corpus, architecture: str, accumulation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = []
    for rows_at_once in (12, 5, 1):
        run = begin_small(
            corpus,
            architecture,
            batch_size=12,
            accumulate=2,
            accumulation=accumulation,
            dropout=0.0,
            class_weight="inverse",
            epochs=1,
        )
        run.optimizer = torch.optim.SGD(run.model.parameters(), lr=0.01)
        at_once = rows_at_once * (run.dims.speech_positions + run.dims.text_positions)
        monkeypatch.setattr("mmm.training.batches._CPU_POSITIONS", at_once)
        assert len(run.train.parts(torch.arange(12), CPU)) == {12: 1, 5: 3, 1: 12}[rows_at_once]
        (result,) = fit(run)
        ends.append((result, run.model.state_dict()))
    (expected, weights), *others = ends
    for result, other in others:
        assert result.train_loss == pytest.approx(expected.train_loss, abs=1e-6)
        assert result.metrics["loss"] == pytest.approx(expected.metrics["loss"], abs=1e-6)
        assert result.metrics["confusion_matrix"] == expected.metrics["confusion_matrix"]
        for name in weights:
            torch.testing.assert_close(other[name], weights[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("accumulation", ["exact", "published"])
@pytest.mark.parametrize("architecture", ["vanilla_concat", "mlp_mixer"])
def test_batches_in_two_halves_have_the_loss_curve_of_whole_ones(
    corpus: Corpus, architecture: str, accumulation: str
) -> None:
    curves = []
    for batch_parts in (1, 2):
        config = small_config(
            architecture,
            batch_size=5,
            accumulate=2,
            accumulation=accumulation,
            dropout=0.0,
            class_weight="inverse",
            epochs=4,
        )
        run = begin(config, corpus.features(*config.features_key), batch_parts=batch_parts)
        assert len(run.train.parts(torch.arange(5), CPU, at_least=batch_parts)) == batch_parts
        curves.append([(result.train_loss, result.metrics["loss"]) for result in fit(run)])
    assert len(curves[0]) == 4
    torch.testing.assert_close(*map(torch.tensor, curves), rtol=0, atol=1e-5)


def test_the_parts_of_a_batch_are_its_rows_longest_first(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin_small(corpus, "mlp_mixer")
    monkeypatch.setattr(
        "mmm.training.batches._CPU_POSITIONS",
        4 * (run.dims.speech_positions + run.dims.text_positions),
    )
    rows = torch.randperm(len(run.train))[:14].view(2, 7)
    parts = run.train.parts(rows, CPU)
    assert [tuple(part.shape) for part in parts] == [(2, 4), (2, 3)]
    together = torch.cat(list(parts), dim=1)
    assert together.sort(dim=1).values.equal(rows.sort(dim=1).values)
    assert (run.train.lengths[together].diff(dim=1) <= 0).all()
    unmasked = begin_small(corpus, "mlp_mixer", masked=False)
    monkeypatch.setattr(
        "mmm.training.batches._CPU_POSITIONS",
        2 * (unmasked.dims.speech_positions + unmasked.dims.text_positions),
    )
    assert [len(part) for part in unmasked.train.parts(torch.arange(6), CPU)] == [
        3,
        3,
    ]  # in twos they would be three
    batch = run.train.batch(rows[0, :1], CPU)
    assert int(batch.speech_mask.sum() + batch.text_mask.sum()) == run.train.lengths[rows[0, 0]]


@pytest.mark.parametrize("architecture", ["vanilla_concat", "mlp_mixer"])
def test_published_accumulation_steps_on_batches_0_8_16_and_drops_the_rest(
    corpus: Corpus, architecture: str
) -> None:
    run = begin_small(
        corpus,
        architecture,
        batch_size=1,
        accumulate=8,
        accumulation="published",
        shuffle=False,
        dropout=0.0,
        epochs=1,
        class_weight="inverse",
    )
    assert 17 < len(run.train) < 24
    model = build_model(run.config, run.dims)
    model.load_state_dict(run.model.state_dict())
    # Adam divides by the gradient's size, which turns rounding of a zero gradient into a step;
    # plain descent does not.
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run.optimizer = torch.optim.SGD(run.model.parameters(), lr=0.1)
    counts = run.train.labels.sum(dim=0)
    loss_function = torch.nn.CrossEntropyLoss(torch.where(counts > 0, len(run.train) / counts, 0.0))
    for number in range(len(run.train)):
        batch = run.train.batch(torch.tensor([number]), CPU)
        loss = loss_function(forward(model, batch), batch.labels.argmax(dim=1)) / 8
        loss.backward()
        if number % 8 == 0:
            optimizer.step()
            optimizer.zero_grad()
    list(fit(run))
    for name, expected in model.state_dict().items():
        torch.testing.assert_close(run.model.state_dict()[name], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("accumulation", "expected"), [("published", 3), ("exact", 3), ("exact of one", 18)]
)
def test_an_epoch_of_18_batches_takes_its_steps(
    corpus: Corpus, accumulation: str, expected: int
) -> None:
    run = begin_small(
        corpus,
        "vanilla_concat",
        batch_size=1,
        accumulate=1 if accumulation == "exact of one" else 8,
        accumulation=accumulation.split()[0],
        label_policy="first",
        epochs=1,
    )
    run.train.indices, run.train.labels = run.train.indices[:18], run.train.labels[:18]
    list(fit(run))
    assert {int(state["step"]) for state in run.optimizer.state_dict()["state"].values()} == {
        expected
    }


@every_architecture
def test_the_training_loss_is_cross_entropy(corpus: Corpus, architecture: str) -> None:
    run = begin_small(corpus, architecture, batch_size=64, dropout=0.0, epochs=1)
    model = build_model(run.config, run.dims)
    model.load_state_dict(run.model.state_dict())
    batch = run.train.batch(torch.arange(len(run.train)), CPU)
    loss = functional.cross_entropy(forward(model, batch), batch.labels.argmax(dim=1))
    (result,) = fit(run)
    assert result.train_loss == pytest.approx(float(loss.detach()), abs=1e-5)


def test_training_learns(corpus: Corpus) -> None:
    run = begin_small(corpus, "mlp_mixer", epochs=25, lr=3e-3)
    results = list(fit(run))
    assert results[-1].train_loss < 0.5 * results[0].train_loss
    assert max(result.metrics["macro_f1"] for result in results) == run.best_score
    assert [result.epoch for result in results if result.is_best][-1] == run.best_epoch
    assert [result.epoch for result in results] == list(range(1, 26))


def test_weighted_sampling_draws_as_many_rows_as_there_are_and_balances_the_classes(
    corpus: Corpus,
) -> None:
    config = small_config("vanilla_concat", weighted_sampling=True)
    train = begin(config, corpus.features()).train
    present = int((train.class_counts > 0).sum())
    assert present == 4
    assert train.class_counts.max() > 3 * train.class_counts[train.class_counts > 0].min()
    drawn: Counter[int] = Counter()
    for epoch in range(1, 301):
        order = row_order(config, train, epoch)
        assert len(order) == len(train)
        drawn.update(train.labels[order].argmax(dim=1).tolist())
    assert len(drawn) == present
    for count in drawn.values():
        assert count / drawn.total() == pytest.approx(1 / present, abs=0.02)


def test_shuffling_orders_every_epoch_anew_and_visits_every_row(corpus: Corpus) -> None:
    config = small_config("vanilla_concat")
    train = begin(config, corpus.features()).train
    orders = [row_order(config, train, epoch).tolist() for epoch in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[2]) == list(range(len(train)))
    fixed = row_order(small_config("vanilla_concat", shuffle=False), train, 1)
    assert fixed.tolist() == list(range(len(train)))


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("expand", [(3, {"happy": 1.0}), (3, {"neutral": 1.0})]),
        ("first", [(3, {"happy": 1.0})]),
        ("drop", []),
        ("soft", [(3, {"happy": 0.5, "neutral": 0.5})]),
        ("published", [(3, {"neutral": 1.0}), (3, {"neutral": 1.0})]),
    ],
)
def test_label_policies_treat_a_row_of_two_labels(
    corpus: Corpus, policy: str, expected: list[tuple[int, dict[str, float]]]
) -> None:
    manifest = corpus.manifest
    assert manifest.utterances[3].emotions == ("happy", "neutral")
    rows = labelled_rows(manifest, [2, 3], policy)
    found = [
        (row, {manifest.classes[c]: share for c, share in enumerate(shares) if share})
        for row, shares in zip(rows.indices.tolist(), rows.shares.tolist(), strict=True)
    ]
    assert found == [(2, {manifest.utterances[2].emotions[0]: 1.0}), *expected]


@pytest.mark.parametrize("policy", ["first", "drop", "soft"])
def test_every_label_policy_is_validated_on_every_label(corpus: Corpus, policy: str) -> None:
    run = trained(corpus, "vanilla_concat", label_policy=policy, epochs=1)
    expanded = sum(
        len(corpus.manifest.utterances[index].emotions) for index in corpus.manifest.rows("dev")
    )
    assert len(run.dev) == expanded == np.sum(run.best_metrics["confusion_matrix"])
    assert len(run.train) <= len(corpus.manifest.rows("train"))


@pytest.mark.parametrize("lr", [1e30, 1e38])
def test_a_loss_that_is_not_finite_raises_diverged(corpus: Corpus, lr: float) -> None:
    run = begin_small(corpus, "vanilla_concat", lr=lr, epochs=5)
    with pytest.raises(
        Diverged, match=r"(training|validation) loss is (nan|inf) (in|after) epoch [12] \(lr 1e\+3"
    ):
        list(fit(run))


def test_sizes_come_from_the_data_and_not_from_its_test_split(corpus: Corpus) -> None:
    features = corpus.features()
    seen = [*corpus.manifest.rows("train"), *corpus.manifest.rows("dev")]
    lengths = np.diff(features.speech.offsets)[features.speech_rows]
    run = begin_small(corpus, "mlp_mixer")
    assert run.dims.speech_positions == lengths[seen].max()
    assert (run.dims.speech_width, run.dims.text_width, run.dims.num_classes) == (48, 32, 4)
    published = begin_small(corpus, "mlp_mixer", masked=False)
    assert (published.dims.speech_positions, published.dims.text_positions) == (512, 128)


@pytest.mark.parametrize("inputs", ["speech", "text"])
@every_architecture
def test_training_on_one_input_zeroes_the_other(
    corpus: Corpus, architecture: str, inputs: str
) -> None:
    run = begin_small(corpus, architecture, inputs=inputs, context=2)
    batch = run.train.batch(torch.arange(5), CPU)
    assert bool(batch.speech.any()) == (inputs == "speech")
    assert bool(batch.text.any()) == (inputs == "text")


def checkpoint(corpus: Corpus, path: Path) -> str:
    return save_checkpoint(trained(corpus, "vanilla_concat", epochs=1), path)


def test_a_checkpoint_with_a_flipped_byte_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    sha256 = checkpoint(corpus, path)
    load_checkpoint(begin_small(corpus, "vanilla_concat"), path, sha256)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"checkpoint: damaged: its checksum is not the one that was recorded"
    ):
        load_checkpoint(begin_small(corpus, "vanilla_concat"), path, sha256)


@pytest.mark.parametrize(
    "damage",
    ["truncated", "half a header", "empty", "no safetensors", "huge header", "no metadata"],
)
def test_a_damaged_checkpoint_is_refused_by_name(
    corpus: Corpus, tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "checkpoint"
    checkpoint(corpus, path)
    content = path.read_bytes()
    if damage == "no metadata":
        save_file(load_file(path), path)
    else:
        path.write_bytes(
            {
                "truncated": content[:-5],
                "half a header": content[:50],
                "empty": b"",
                "no safetensors": b"PK\3\4" + bytes(range(256)) * 9,
                "huge header": struct.pack("<Q", 2**60) + content[8:],
            }[damage]
        )
    run = begin_small(corpus, "vanilla_concat")
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    with pytest.raises(ValueError, match=f"{path}: damaged"):
        load_checkpoint(run, path)
    assert run.epoch == 0
    assert all(torch.equal(before[name], value) for name, value in run.model.state_dict().items())


def test_a_checkpoint_of_other_settings_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    checkpoint(corpus, path)
    with pytest.raises(ValueError, match=r"checkpoint of other settings \(lr differ\)"):
        load_checkpoint(begin_small(corpus, "vanilla_concat", lr=2e-3), path)
    with pytest.raises(ValueError, match=r"architecture.* differ"):
        load_checkpoint(begin_small(corpus, "three_way_concat"), path)
    other = begin(small_config("vanilla_concat"), corpus.features(), objective="accuracy")
    with pytest.raises(ValueError, match=r"\(objective differ\)"):
        load_checkpoint(other, path)
    with pytest.raises(ValueError, match=r"speech_width, speech differ"):
        load_checkpoint(
            begin(small_config("vanilla_concat"), corpus.features("extract_feature")), path
        )


def test_a_checkpoint_before_the_first_epoch_is_a_fresh_run(corpus: Corpus, tmp_path: Path) -> None:
    save_checkpoint(begin_small(corpus, "vanilla_concat"), tmp_path / "checkpoint")
    run = begin_small(corpus, "vanilla_concat")
    load_checkpoint(run, tmp_path / "checkpoint")
    list(fit(run))
    assert_same_run(run, trained(corpus, "vanilla_concat"))


def test_a_device_that_is_not_there_is_refused() -> None:
    assert resolve_device("cpu") == CPU
    for name in ("tpu", "meta", "cpu:x"):
        with pytest.raises(
            ValueError, match=rf"unknown device '{name}'; expected cpu, cuda or cuda:N"
        ):
            resolve_device(name)
    with pytest.raises(
        ValueError, match=r"device 'cuda:99' asked for, but this machine has \d+ usable GPUs"
    ):
        resolve_device("cuda:99")


@every_architecture
def test_every_system_learns_a_batch_by_heart(corpus: Corpus, architecture: str) -> None:
    run = begin_small(
        corpus,
        architecture,
        epochs=80,
        lr=5e-3,
        dropout=0.0,
        weight_decay=0.0,
        batch_size=64,
        label_policy="first",
    )
    run.train = run.train.part(torch.arange(12))
    *_, last = fit(run)
    found = probabilities(run.model, run.train, torch.device("cpu"))
    assert last.train_loss < 0.05
    assert (found.argmax(dim=1) == run.train.labels.argmax(dim=1)).all()
