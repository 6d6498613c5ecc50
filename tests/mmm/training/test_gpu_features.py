"""Where features are while a model trains: what fits a device, and that a batch is the same from
either place.
"""

import pytest
import torch

from mmm.device import training_precision
from mmm.models import ARCHITECTURES
from mmm.training import gpu_features as residence
from mmm.training.fit import fit, fit_pack
from mmm.training.gpu_features import fits, gather, source
from mmm.training.run import begin
from tests.conftest import Corpus, begin_small, small_config

GIB = 1024**3
needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA GPU, none is here"
)
every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)


@pytest.mark.parametrize(
    ("needed", "free", "expected"),
    [
        (1, 80, True),
        (39, 80, True),
        (41, 80, False),
        (2, 3, False),
        (1, 3, True),
        (0.4, 1, False),
        (5, 4, False),
    ],
)
def test_a_corpus_goes_to_the_device_where_it_leaves_half_of_it_and_two_gigabytes(
    needed: float, free: float, expected: bool
) -> None:
    assert fits(int(needed * GIB), int(free * GIB)) is expected


def test_on_the_cpu_features_stay_in_the_memory_map(corpus: Corpus) -> None:
    store = corpus.features().speech
    found = source(store, "values", torch.device("cpu"))
    assert found.data_ptr() == store.values.ctypes.data
    rows = torch.tensor([3, 0, 3])
    assert torch.equal(
        gather(found, rows, torch.device("cpu")), torch.from_numpy(store.values[[3, 0, 3]]).float()
    )


def test_training_in_fp16_is_refused() -> None:
    with pytest.raises(ValueError, match="--precision fp16 is not for training"):
        training_precision("fp16", "cuda", "mlp_mixer")


@every_architecture
def test_training_in_bf16_learns_what_float32_learns_and_is_validated_in_float32(
    corpus: Corpus, architecture: str
) -> None:
    config = small_config(architecture, epochs=3)
    losses = []
    for precision in ("float32", "bf16"):
        run = begin(config, corpus.features(), precision=precision)
        losses.append([result.train_loss for result in fit(run)])
        assert {weight.dtype for weight in run.model.parameters()} == {torch.float32}
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], abs=0.03)


@needs_gpu
@every_architecture
def test_a_batch_on_the_gpu_is_that_of_the_cpu(
    corpus: Corpus, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = torch.device("cuda", 0)
    run = begin_small(corpus, architecture)
    rows = torch.arange(7)
    expected = run.train.batch(rows, torch.device("cpu"))
    for share in (0.5, 0.0):  # on the device, and sent from pinned memory
        monkeypatch.setattr(residence, "_SHARE", share)
        residence._resident.clear()
        found = run.train.batch(rows, gpu)
        for name in ("speech", "speech_mask", "text", "text_mask", "labels"):
            assert torch.equal(getattr(found, name).cpu(), getattr(expected, name)), name


@needs_gpu
@every_architecture
def test_training_on_the_gpu_agrees_with_the_cpu_alone_and_in_a_pack(
    corpus: Corpus, architecture: str
) -> None:
    config, gpu = small_config(architecture, epochs=2, dropout=0.0), torch.device("cuda", 0)
    expected = [result.metrics["loss"] for result in fit(begin(config, corpus.features()))]
    alone = [result.metrics["loss"] for result in fit(begin(config, corpus.features(), device=gpu))]
    assert alone == pytest.approx(expected, abs=1e-3)
    members = [begin(config, corpus.features(), device=gpu) for _ in range(3)]
    for epoch, outcomes in enumerate(fit_pack(members)):
        for _, outcome in outcomes:
            assert outcome.metrics["loss"] == pytest.approx(expected[epoch], abs=1e-3)  # type: ignore[union-attr]
