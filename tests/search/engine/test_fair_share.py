"""`--min-per-system`: every system gets its trials before the sampler may leave it out."""

from collections import Counter
from pathlib import Path

import pytest
from optuna import Trial as Suggester

from mmm.training.config import Params
from search.plan.checks import check
from search.suggest.fair_share import FairShare
from spaces import Space
from tests.conftest import Corpus
from tests.search.engine.test_controller import Sweep
from tests.sweep_parts import SMALL, SMALL_SPACE, small_spec, trial_with


def suggest_rarely(suggester: Suggester) -> Params:
    """Three systems, of which the known good points have one."""
    return {
        "architecture": suggester.suggest_categorical(
            "architecture", ["vanilla_concat", "three_way_concat", "late_fusion"]
        ),
        "context": suggester.suggest_int("context", 1, 3),
        **SMALL,
    }


RARE = Space(
    suggest_rarely,
    known_good=tuple({"architecture": "vanilla_concat", "context": k} for k in (1, 2, 3)),
)


def test_each_system_has_its_share_before_the_sampler_may_leave_it_out(
    corpus: Corpus, tmp_path: Path
) -> None:
    sweep = Sweep(tmp_path, small_spec(corpus, trials=9, epochs=1, min_per_system=3), RARE)
    sweep.run(trials=5)
    history = sweep.run(trials=9)
    systems = [trial.params["architecture"] for trial in history.trials.values()]
    # The queue first, then whichever has had the fewest, also in another session.
    assert systems[:3] == ["vanilla_concat"] * 3
    assert systems[3:] == ["three_way_concat", "late_fusion"] * 3


def test_packs_do_not_take_the_trials_that_other_systems_are_owed(
    corpus: Corpus, tmp_path: Path
) -> None:
    spec = small_spec(corpus, trials=8, epochs=1, min_per_system=4, packs=8)
    sweep = Sweep(tmp_path, spec)
    controller = sweep.controller()
    while controller.next_orders():
        pass
    counts = Counter(trial.params["architecture"] for trial in controller.trials.values())
    assert counts == {"vanilla_concat": 4, "three_way_concat": 4}


def test_a_system_that_fails_has_had_its_share() -> None:
    share = FairShare(SMALL_SPACE, 1)
    failed = trial_with(0, {}, "failed")
    failed.params = {"architecture": "vanilla_concat"}
    assert share.next({}) == {"architecture": "vanilla_concat"}
    assert share.next({0: failed}) == {"architecture": "three_way_concat"}
    assert FairShare(SMALL_SPACE, None).next({}) is None


def test_a_share_that_cannot_be_had_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--min-per-system 20: 6 systems need 120 trials"):
        check(small_spec(corpus, min_per_system=20, trials=60))
    file = tmp_path / "one.py"
    file.write_text(
        "def suggest(trial):\n"
        "    lr = trial.suggest_float('lr', 1e-4, 1e-2)\n"
        "    return {'architecture': 'vanilla_concat', 'lr': lr}\n"
    )
    with pytest.raises(ValueError, match="the space has no choice named 'architecture'"):
        check(small_spec(corpus, space=f"{file}:suggest", min_per_system=2))
