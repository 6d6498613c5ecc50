"""What `--precision auto` comes to, and that it is one answer for a whole sweep."""

from dataclasses import replace

import pytest

from mmm.device import training_precision
from search.ledger.spec import SweepSpec
from search.space.settings import sweep_precisions

SPEC = SweepSpec("first", "quick", "manifest.csv", "features", trials=6, epochs=4, workers=2)
PRODUCTS = ("mlp_mixer", "cross_attention")
POOLED = ("vanilla_concat", "three_way_concat", "gated_fusion", "late_fusion")


@pytest.mark.parametrize("architecture", [*PRODUCTS, *POOLED, "linear"])
def test_a_cpu_trains_in_bf16_only_where_that_pays(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMM_CPU_BF16", "on")
    assert training_precision("auto", "cpu", architecture) == (
        "bf16" if architecture in PRODUCTS else "float32"
    )
    assert training_precision("bf16", "cpu", architecture) == "bf16"
    monkeypatch.setenv("MMM_CPU_BF16", "off")
    assert training_precision("auto", "cpu", architecture) == "float32"


def test_on_a_cluster_auto_does_not_depend_on_the_machine_that_starts_the_sweep(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for bf16 in ("on", "off"):
        monkeypatch.setenv("MMM_CPU_BF16", bf16)
        assert set(sweep_precisions(replace(SPEC, address="auto")).values()) == {"float32"}
        assert set(
            sweep_precisions(replace(SPEC, address="auto", gpus_per_trial=0.5)).values()
        ) == {"bf16"}
        assert set(sweep_precisions(replace(SPEC, precision="bf16")).values()) == {"bf16"}
