"""Packs: several runs trained as one model, each with the numbers that it would have alone."""

from typing import Any

import pytest
import torch

from mmm.models import ARCHITECTURES
from mmm.models.token_product import token_product, token_product_in_one
from mmm.training.checkpoint import load_checkpoint
from mmm.training.dropout import Dropout, HashedDropout
from mmm.training.evaluate import pack_probabilities, probabilities
from mmm.training.fit import Diverged, EpochResult, fit, fit_pack, train_epoch
from mmm.training.pack import Pack, pack_shape
from mmm.training.run import Run
from tests.conftest import Corpus, begin_small, save_checkpoint, small_config, trained

CPU = torch.device("cpu")
every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)
MEMBERS: list[dict[str, Any]] = [
    {"lr": 1e-3, "dropout": 0.3, "seed": 1},
    {"lr": 3e-4, "dropout": 0.0, "seed": 2, "class_weight": "inverse", "weight_decay": 0.2},
    {"lr": 2e-3, "dropout": 0.6, "seed": 3, "weighted_sampling": True, "label_smoothing": 0.1},
    {"lr": 1e-4, "dropout": 0.1, "seed": 4, "class_weight": "effective_number", "shuffle": False},
]


def begin_members(corpus: Corpus, architecture: str, **changes: Any) -> list[Run]:
    return [
        begin_small(corpus, architecture, **{"epochs": 3, **member, **changes})
        for member in MEMBERS
    ]


def assert_same_numbers(one: Run, other: Run) -> None:
    """What a user sees of them: probabilities of every validation row, to 1e-5.

    Not each weight: the gradient of attention's key bias is zero but for rounding, which Adam turns
    into steps.
    """
    found = [probabilities(run.model, run.dev, CPU) for run in (one, other)]
    torch.testing.assert_close(*found, rtol=0, atol=1e-5)


@every_architecture
@pytest.mark.parametrize(
    "changes",
    [
        {"context": 2},
        {"masked": False, "accumulate": 2},
        {"accumulate": 2, "accumulation": "published", "input_scaling": "none"},
    ],
    ids=str,
)
def test_each_member_gets_the_numbers_that_it_would_get_alone(
    corpus: Corpus, architecture: str, changes: dict[str, Any]
) -> None:
    assert_each_as_alone(*(begin_members(corpus, architecture, **changes) for _ in range(2)))


@pytest.mark.parametrize("architecture", ["cross_attention", "mlp_mixer"])
def test_batches_cut_into_parts_change_nothing_of_that(
    corpus: Corpus, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, together = (begin_members(corpus, architecture, batch_size=7) for _ in range(2))
    run = alone[0]
    at_once = 2 * (run.dims.speech_positions + run.dims.text_positions)
    monkeypatch.setattr("mmm.training.batches._CPU_POSITIONS", at_once)
    assert [len(part) for part in run.train.parts(torch.arange(7), CPU)] == [2, 2, 2, 1]
    assert_each_as_alone(alone, together)


def assert_each_as_alone(alone: list[Run], together: list[Run]) -> None:
    expected = [list(fit(run)) for run in alone]
    found = list(fit_pack(list(together)))
    for member, run in enumerate(together):
        for epoch, outcomes in enumerate(found):
            assert outcomes[member][0] is run
            one, other = outcomes[member][1], expected[member][epoch]
            assert isinstance(one, EpochResult)
            assert (one.epoch, one.is_best) == (other.epoch, other.is_best)
            assert abs(one.train_loss - other.train_loss) < 1e-5
            assert abs(one.metrics["loss"] - other.metrics["loss"]) < 1e-5
            assert one.metrics["confusion_matrix"] == other.metrics["confusion_matrix"]
        assert_same_numbers(run, alone[member])


@every_architecture
def test_a_member_that_leaves_or_joins_changes_nothing_for_the_others(
    corpus: Corpus, architecture: str
) -> None:
    alone, (first, second, third, late) = (
        begin_members(corpus, architecture, epochs=4) for _ in range(2)
    )
    for run in alone:
        list(fit(run))
    members = [first, second, third]
    epochs = fit_pack(members)
    next(epochs)
    members.remove(second)
    members.append(late)
    next(epochs)
    left = {name: weight.clone() for name, weight in second.model.state_dict().items()}
    list(epochs)
    assert [run.epoch for run in (first, second, third, late)] == [4, 1, 4, 4]
    assert members == []
    for run, expected in ((first, alone[0]), (third, alone[2]), (late, alone[3])):
        assert_same_numbers(run, expected)
    assert all(
        torch.equal(left[name], weight) for name, weight in second.model.state_dict().items()
    )
    assert all(
        weight.untyped_storage().nbytes() == weight.nbytes for weight in second.model.parameters()
    )
    list(fit(second))  # what left goes on alone
    assert_same_numbers(second, alone[1])


def test_a_member_that_diverges_leaves_with_its_reason_and_the_others_go_on(corpus: Corpus) -> None:
    alone, together = (begin_members(corpus, "three_way_concat") for _ in range(2))
    wild = begin_small(corpus, "three_way_concat", lr=1e38, epochs=3)
    for run in alone:
        list(fit(run))
    members = [together[0], wild, together[1]]
    outcomes = [outcome for epoch in fit_pack(members) for run, outcome in epoch if run is wild]
    assert isinstance(outcomes[-1], Diverged)
    assert "loss is nan" in str(outcomes[-1])
    assert len(outcomes) <= 2
    for run, expected in zip(together[:2], alone, strict=False):
        assert run.epoch == 3
        assert_same_numbers(run, expected)


def test_runs_of_different_shapes_are_refused(corpus: Corpus) -> None:
    runs = [
        begin_small(corpus, "vanilla_concat", width=width, batch_size=size)
        for width, size in ((8, 6), (16, 6), (8, 12))
    ]
    with pytest.raises(ValueError, match=r"cannot train in one pack; batch_size, width differ"):
        next(fit_pack(runs))


@every_architecture
def test_what_members_may_differ_in_is_not_in_the_shape(architecture: str) -> None:
    shapes = {
        pack_shape(small_config(architecture, epochs=epochs, **member))
        for epochs, member in enumerate(MEMBERS, start=1)
    }
    assert len(shapes) == 1
    assert pack_shape(small_config(architecture, context=2)) not in shapes


def test_a_checkpoint_of_a_member_goes_on_alone(corpus: Corpus, tmp_path: Any) -> None:
    together = begin_members(corpus, "mlp_mixer", epochs=2)
    list(fit_pack(list(together)))
    save_checkpoint(together[2], tmp_path / "checkpoint")
    resumed = begin_small(corpus, "mlp_mixer", epochs=4, **MEMBERS[2])
    load_checkpoint(resumed, tmp_path / "checkpoint")
    list(fit(resumed))
    assert_same_numbers(resumed, trained(corpus, "mlp_mixer", epochs=4, **MEMBERS[2]))


def test_seconds_of_an_epoch_are_shared_among_the_members(corpus: Corpus) -> None:
    (outcomes,) = fit_pack(begin_members(corpus, "vanilla_concat", epochs=1))
    results = [outcome for _, outcome in outcomes if isinstance(outcome, EpochResult)]
    assert (
        len({(result.seconds, result.cpu_seconds, result.eval_seconds) for result in results}) == 1
    )
    assert len(results) == 4
    assert 0 < results[0].eval_seconds < results[0].seconds


@every_architecture
def test_predictions_of_a_pack_are_those_of_its_members(corpus: Corpus, architecture: str) -> None:
    runs = begin_members(corpus, architecture)
    found = pack_probabilities(Pack(runs), runs[0].dev, CPU)
    for one, run in zip(found, runs, strict=True):
        torch.testing.assert_close(one, probabilities(run.model, run.dev, CPU), rtol=0, atol=1e-6)


def test_dropout_keeps_its_share_and_the_expectation() -> None:
    values = torch.ones(3, 40, 1000)
    dropped = Dropout([0.0, 0.25, 0.6], [1, 2, 3])(values)
    assert torch.equal(dropped[0], values[0])
    for member, rate in ((1, 0.25), (2, 0.6)):
        kept = dropped[member] != 0
        assert abs(1 - kept.double().mean() - rate) < 0.01
        assert torch.allclose(dropped[member][kept], torch.tensor(1 / (1 - rate)), rtol=1e-4)


def test_dropout_of_a_member_is_what_it_would_be_alone() -> None:
    values = torch.randn(2, 7, 11)
    together = Dropout([0.5, 0.3], [8, 9])
    for _ in range(2):
        dropped = together(values)
    for member, (rate, seed) in enumerate(((0.5, 8), (0.3, 9))):
        alone = Dropout([rate], [seed])
        for _ in range(2):
            expected = alone(values[member])
        assert torch.equal(dropped[member], expected)


# What a GPU computes in other ways than a CPU, computed on a CPU.


def test_hashed_dropout_keeps_its_share_and_the_expectation() -> None:
    values = torch.ones(3, 40, 1000)
    drop = HashedDropout([0.0, 0.25, 0.6], [1, 2, 3], CPU)
    first, second = drop(values), drop(values)
    assert torch.equal(first[0], values[0])
    for member, rate in ((1, 0.25), (2, 0.6)):
        kept = first[member] != 0
        assert abs(1 - kept.double().mean() - rate) < 0.01
        assert torch.allclose(first[member][kept], torch.tensor(1 / (1 - rate)), rtol=1e-4)
        # Neither a row, a column, a neighbour nor the next call tells of another.
        assert (kept.double().mean(dim=0) - (1 - rate)).abs().max() < 0.45
        assert (kept.double().mean(dim=1) - (1 - rate)).abs().max() < 0.1
        both = (kept[:, 1:] & kept[:, :-1]).double().mean()
        assert abs(both - (1 - rate) ** 2) < 0.01
        both = (kept & (second[member] != 0)).double().mean()
        assert abs(both - (1 - rate) ** 2) < 0.01


def test_hashed_dropout_of_a_member_is_what_it_would_be_alone_however_it_is_padded() -> None:
    lengths = torch.tensor([[3, 5, 1], [2, 4, 4]])
    mask = torch.arange(7) < lengths.unsqueeze(-1)
    values = torch.randn(2, 3, 7, 11) * mask.unsqueeze(-1)
    together = HashedDropout([0.5, 0.3], [8, 9], CPU)
    for _ in range(300):  # beyond the keys that are drawn at a time
        dropped = together(values, mask)
    for member, (rate, seed) in enumerate(((0.5, 8), (0.3, 9))):
        alone = HashedDropout([rate], [seed], CPU)
        for _ in range(300):  # as a single run has it: the real positions, side by side
            expected = alone(values[member][mask[member]])
        assert torch.equal(dropped[member][mask[member]], expected)


def test_one_optimizer_for_all_members_does_what_theirs_would(corpus: Corpus) -> None:
    def four() -> list[Run]:
        runs = begin_members(corpus, "vanilla_concat", dropout=0.0, context=2, epochs=4)
        next(fit(runs[2]))  # that one is an epoch ahead
        return runs

    theirs, ours = four(), four()
    packs = Pack(theirs, is_side_by_side=False), Pack(ours, is_side_by_side=True)
    for pack in packs:
        for _ in range(2):
            train_epoch(pack)
        pack.dissolve()
    for one, other in zip(theirs, ours, strict=True):
        for expected, found in zip(one.model.parameters(), other.model.parameters(), strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)
            assert found.untyped_storage().nbytes() == found.nbytes
        states = one.optimizer.state_dict()["state"], other.optimizer.state_dict()["state"]
        assert states[0].keys() == states[1].keys()
        for place, state in states[0].items():
            assert state["step"] == states[1][place]["step"]
            for name in ("exp_avg", "exp_avg_sq"):
                torch.testing.assert_close(states[1][place][name], state[name], rtol=0, atol=1e-6)
        assert list(fit(one))[-1].metrics["loss"] == pytest.approx(
            list(fit(other))[-1].metrics["loss"], abs=1e-5
        )


@pytest.mark.parametrize("shape", [(), (3,)], ids=["alone", "pack"])
def test_one_product_over_positions_is_what_many_small_ones_are(shape: tuple[int, ...]) -> None:
    weight, bias = torch.randn(*shape, 5, 7), torch.randn(*shape, 5)
    values = torch.randn(*shape, 4, 7, 6)
    found = []
    for product in (token_product, token_product_in_one):
        leaves = [each.clone().requires_grad_() for each in (weight, bias, values)]
        mixed = product(*leaves)
        mixed.square().sum().backward()
        found.append([mixed.detach(), *(leaf.grad for leaf in leaves)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
