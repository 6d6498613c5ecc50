"""What `mmm profile` counts and says."""

from collections import Counter

import pytest
import torch
from torch import nn

from mmm.models import ARCHITECTURES
from mmm.training.matmul_rate import executed, main_products, make_operands, product_rate
from mmm.training.profile import PARTS, Profile, profile
from tests.conftest import Corpus, begin_small
from tests.sweep_parts import call, call_inside


def test_products_and_operations_are_those_executed() -> None:
    layer = nn.Linear(30, 20)
    rows = torch.randn(50, 30)
    products, operations = executed(lambda: layer(rows).sum().backward())
    # Forward, and the weight's gradient; the input's is not asked for.
    assert products == Counter({(1, 50, 30, 20): 1, (1, 20, 50, 30): 1})
    assert operations == 2 * 2 * 50 * 30 * 20


def test_attention_is_counted_forward_and_backward() -> None:
    query, key, value = (torch.randn(2, 4, length, 8, requires_grad=True) for length in (10, 6, 6))
    _, operations = executed(
        lambda: nn.functional.scaled_dot_product_attention(query, key, value).sum().backward()
    )
    product = 2 * 2 * 4 * 10 * 6 * 8
    assert operations == (2 + 5) * product


def test_main_products_are_the_largest_until_their_share_is_reached() -> None:
    products = Counter({(1, 100, 100, 100): 2, (4, 50, 50, 50): 1, (1, 2, 2, 2): 1})
    assert main_products(products, share=0.75) == Counter({(1, 100, 100, 100): 2})
    assert len(main_products(products, share=0.999)) == 2
    assert product_rate(make_operands(products, torch.float32)) > 0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_profile_accounts_for_the_whole_step(corpus: Corpus, architecture: str) -> None:
    found = profile(
        [begin_small(corpus, architecture, batch_size=12, seed=seed) for seed in range(2)],
        num_steps=3,
    )
    assert tuple(found.seconds) == PARTS
    assert all(seconds > 0 for seconds in found.seconds.values())
    assert (found.num_members, found.batch_size) == (2, 12)
    assert found.operations > 0
    assert found.peak_mb > 50


def test_what_bounds_a_step_is_what_takes_most_of_it() -> None:
    def bound(seconds: list[float], product_s: float) -> str:
        return Profile(dict(zip(PARTS, seconds, strict=True)), product_s, 1.0, 0.1, 8, 1, 1.0).bound

    assert bound([1, 4, 5, 1, 0], 7.0).startswith("matrix products (64%")
    assert bound([1, 4, 5, 1, 0], 2.0).startswith("what is done element by element")
    assert bound([20, 4, 5, 1, 0], 7.0).startswith("reading features")
    assert bound([1, 4, 5, 30, 0], 7.0).startswith("the optimizer")


def test_the_command_prints_a_table_and_refuses_nonsense(corpus: Corpus) -> None:
    arguments = ("profile", corpus.manifest.path, "--features", corpus.features_dir)
    told = call(
        "mmm",
        *arguments,
        "--architecture",
        "three_way_concat",
        "--batch-size",
        8,
        "--pack",
        4,
        "--threads",
        1,
    ).stdout
    for expected in (
        "three_way_concat",
        "4 trials in a pack, float32, 1 threads",
        "reading",
        "optimizer",
        "GFLOP/s",
        "bound by",
    ):
        assert expected in told
    refused = call_inside("mmm", *arguments, "--pack", 0, status=2)
    assert "--pack 0 is too small; expected at least 1" in refused.stderr
