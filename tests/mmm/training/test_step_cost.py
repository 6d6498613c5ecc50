"""What a few training steps of a run take of the device."""

import pytest
import torch

from mmm.training.step_cost import Steps
from tests.conftest import Corpus, begin_small


@pytest.mark.parametrize("num_members", [1, 3])
@pytest.mark.parametrize("architecture", ["vanilla_concat", "cross_attention"])
def test_steps_are_timed_and_the_run_is_left_as_it_is(
    corpus: Corpus, architecture: str, num_members: int
) -> None:
    run = begin_small(corpus, architecture, batch_size=4)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    num_rows, lr = len(run.train), run.config.lr
    steps = Steps(run, num_members)
    assert steps.pass_s > 0
    assert steps.epoch_seconds(2) > 0
    assert steps.peak_bytes >= 0
    assert (run.epoch, run.config.lr, len(run.train)) == (0, lr, num_rows)
    for name, value in run.model.state_dict().items():
        assert torch.equal(value, before[name])
