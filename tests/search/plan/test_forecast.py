"""`mmm-search plan`: the space as a tree, what the rungs let through, what it costs, and the
refusals of `run`.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mmm.training.fit import fit
from search.plan.cost import measure
from search.plan.rungs import expected_rungs
from search.space.sampling import draw
from search.space.tree import SpaceTree
from spaces import SPACES, Space
from tests.conftest import Corpus, begin_small, names_in, save_checkpoint, small_config
from tests.sweep_parts import TIMEOUT_S, call_here, environment, small_spec, write_space

SPACE = """
def suggest(trial):
    architecture = trial.suggest_categorical("architecture", ["vanilla_concat", "three_way_concat"])
    return {"architecture": architecture, "context": trial.suggest_int("context", 1, 3),
            "classifier_hidden": 12, "batch_size": 6,
            "width": trial.suggest_categorical("width", [8, 16]),
            "lr": trial.suggest_float("lr", 1e-3, 1e-2, log=True)}

KNOWN_GOOD = ({"architecture": "vanilla_concat", "context": 1, "width": 8, "lr": 1e-3},)
"""


def suggest_with_conditions(trial: Any) -> dict[str, Any]:
    """Parameters that depend on one choice, on two at once, on either of two, on a number, on
    nothing countable.
    """
    kind = trial.suggest_categorical("kind", ["a", "b", "c"])
    depth = trial.suggest_int("depth", 1, 3)
    rate = trial.suggest_float("rate", 0.0, 1.0)
    if kind == "c":
        inner = trial.suggest_categorical("inner", [1, None])
        if inner is None:
            trial.suggest_float("innermost", 0.0, 1.0, step=0.25)
    if kind == "a" and depth == 2:
        trial.suggest_int("both", 1, 4)
    if kind == "b" or depth == 3:
        trial.suggest_categorical("either", [True, False])
    trial.suggest_int("ranged", 1, 2 if kind == "a" else 5)
    if rate > 0.5:
        trial.suggest_int("steep", 1, 10)
    return {}


def tree_of(space: Space) -> SpaceTree:
    return SpaceTree((params, distributions) for params, distributions, _ in draw(space, 1000))


def test_the_tree_says_which_parameters_exist_under_which_choices() -> None:
    lines = [
        f"{name} {words}".rstrip()
        for name, words in tree_of(Space(suggest_with_conditions)).root.lines()
    ]
    assert lines[:3] == ["kind one of a, b, c", "depth 1 .. 3", "rate 0 .. 1"]
    text = "\n".join(lines)
    for expected in (
        "kind = c:\n  inner one of 1, None\n  inner = None:\n    innermost 0 .. 1 step 0.25",
        "kind = a:\n  ranged 1 .. 2\n  depth = 2:\n    both 1 .. 4",
        "kind = b or c:\n  ranged 1 .. 5",
        "kind = b:\n  either one of True, False",
        "kind = a or c:\n  depth = 3:\n    either one of True, False",
    ):
        assert expected in text, text
    assert re.search(r"sometimes \(\d\d%\):\n  steep 1 \.\. 10", text), text


def test_combinations_are_as_many_as_there_are() -> None:
    def suggest_countable(trial: Any) -> dict[str, Any]:
        kind = trial.suggest_categorical("kind", ["a", "b", "c"])
        depth = trial.suggest_int("depth", 1, 3)
        if kind == "c":
            trial.suggest_categorical("inner", [1, 2])
        if kind == "a" and depth == 2:
            trial.suggest_int("both", 1, 4)
        if kind == "b" or depth == 3:
            trial.suggest_categorical("either", [True, False])
        return {}

    distinct = {
        tuple(sorted(params.items())) for params, _, _ in draw(Space(suggest_countable), 1000)
    }
    assert tree_of(Space(suggest_countable)).num_combinations() == (len(distinct), True)


def test_shipped_spaces_are_counted_and_their_continuous_parameters_named() -> None:
    full = tree_of(SPACES["full"])
    per_choice = 4 * 5 * 2 * 3  # balance, context, audio_feature, batch_size
    pooled = 4 * 3 * 2  # systems, widths, poolings
    assert full.num_combinations() == (per_choice * (pooled + 2 * 3 + 3 * 4), True)
    assert full.continuous == ["lr", "dropout", "weight_decay", "label_smoothing"]
    assert tree_of(SPACES["paper"]).num_combinations() == (4, True)


def test_a_parameter_that_depends_on_nothing_countable_makes_the_count_a_lower_bound() -> None:
    assert tree_of(Space(suggest_with_conditions)).num_combinations()[1] is False


def test_about_one_in_factor_goes_on_at_each_rung_and_more_where_the_sampler_learns(
    corpus: Corpus,
) -> None:
    spec = small_spec(corpus, trials=90, epochs=27, workers=2)
    rungs = expected_rungs(spec)
    assert rungs.epochs == (3, 9, 27)
    assert rungs.trials[0] == 90
    assert 30 <= rungs.trials[1] <= 40
    assert 10 <= rungs.trials[2] <= 20
    assert rungs.total_epochs == pytest.approx(90 * 3 + rungs.trials[1] * 6 + rungs.trials[2] * 18)
    assert expected_rungs(spec, 1.0).total_epochs > rungs.total_epochs
    assert expected_rungs(spec) == rungs
    unbroken = expected_rungs(small_spec(corpus, trials=5, epochs=3))
    assert (unbroken.trials, unbroken.total_epochs) == ((5.0,), 15.0)


def test_a_measured_setting_has_the_size_of_the_real_one_and_of_its_checkpoint(
    corpus: Corpus, tmp_path: Path
) -> None:
    for architecture in ("vanilla_concat", "mlp_mixer"):
        config = small_config(
            architecture, width=64, lr=1e9
        )  # a rate that diverges costs what another does
        found = measure(config, corpus.features(), torch.device("cpu"))
        run = begin_small(corpus, architecture, width=64, epochs=1)
        next(fit(run))
        save_checkpoint(run, tmp_path / "checkpoint")
        best_is_last = (tmp_path / "checkpoint").stat().st_size
        run.epoch += (
            1  # as after an epoch that was no better: the best weights are not the last ones
        )
        save_checkpoint(run, tmp_path / "checkpoint")
        assert (
            abs((tmp_path / "checkpoint").stat().st_size - best_is_last - 4 * found.parameters)
            < 10_000
        )
        assert found.parameters == sum(weight.numel() for weight in run.model.parameters())
        # Weights, best weights, two moments, in float32; names and metrics beside it.
        assert 0 < (tmp_path / "checkpoint").stat().st_size - 4 * 4 * found.parameters < 20_000
        assert found.seconds > 0
        assert found.peak_bytes > 50e6


def test_plan_prints_it_all_writes_only_its_json_and_needs_neither_ray_nor_mlflow(
    corpus: Corpus, tmp_path: Path
) -> None:
    space = write_space(tmp_path / "space.py", SPACE)
    arguments = [
        "plan",
        space,
        corpus.manifest.path,
        "--features",
        corpus.features_dir,
        "--trials",
        9,
        "--epochs",
        4,
        "--first-rung",
        3,
    ]
    probe = (
        "import sys\nfrom search.cli.app import main\ntry:\n    main()\nfinally:\n    assert not"
        " {'ray', 'mlflow'} & sys.modules.keys()"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe, *map(str, arguments), "--json", "plan.json"],
        env=environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert names_in(tmp_path) == ["plan.json", "space.py"]
    for expected in (
        ": 12 combinations x any lr\n",
        "  context       1 .. 3\n",
        "always: classifier_hidden=12 batch_size=6",
        "first: 1\n",
        "trained up to epoch",
        "three_way_concat",
        "nothing would be refused",
    ):
        assert expected in done.stdout, done.stdout
    found = json.loads((tmp_path / "plan.json").read_text())
    assert found["space"]["combinations"] == 12
    assert found["rungs"]["epochs"] == [3, 4]
    assert sum(cost["share"] for cost in found["costs"].values()) == pytest.approx(1.0)
    for cost in found["costs"].values():
        assert 0 < cost["typical"]["seconds_per_epoch"] <= cost["costliest"]["seconds_per_epoch"]
    recipes = {
        file.parent: json.loads(file.read_text())
        for file in corpus.features_dir.glob("*/recipe.json")
    }
    used = [
        store for store, recipe in recipes.items() if recipe.get("feature") != "extract_feature"
    ]
    assert found["memory_bytes"]["stores"] == sum(
        file.stat().st_size for store in used for file in store.iterdir()
    )
    assert found["refused"] == []


def test_what_run_would_refuse_plan_refuses_in_the_same_words(
    corpus: Corpus,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    places = [corpus.manifest.path, "--features", corpus.features_dir]
    wide = SPACE.replace("[8, 16]", "[8, 0]")
    cases: list[list[Any]] = [
        ["quik", *places],
        ["full", *places],
        ["quick", *places, "--trials", 0, "--factor", 1, "--metric", "f1"],
        [write_space(tmp_path / "wide.py", wide), *places],
        [write_space(tmp_path / "broken.py", "def suggest(trial):\n    return 5\n"), *places],
        ["quick", tmp_path / "none.csv", "--features", corpus.features_dir],
        ["quick", corpus.manifest.path, "--features", tmp_path / "none"],
    ]
    for case in cases:
        status, _, told = call_here(
            capsys, monkeypatch, "run", *case, "--name", "s", "--runs", tmp_path / "runs"
        )
        assert status == 2
        assert call_here(capsys, monkeypatch, "plan", *case) == (2, "", told)
    assert names_in(tmp_path) == ["broken.py", "wide.py"]


def test_plan_lists_every_fault_at_once(
    corpus: Corpus,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    faulty = SPACE.replace("[8, 16]", "[8, 0]").replace('("context", 1, 3)', '("context", 1, 9)')
    space = write_space(tmp_path / "faulty.py", faulty)
    status, _, told = call_here(
        capsys,
        monkeypatch,
        "plan",
        space,
        tmp_path / "none.csv",
        "--features",
        corpus.features_dir,
        "--epochs",
        0,
    )
    assert status == 2
    for expected in (
        "error: --epochs 0 is too small",
        "also: ",
        "no such manifest",
        "context=",
        "width=0 is out of range",
    ):
        assert expected in told
    assert told.count("epochs") == 1
