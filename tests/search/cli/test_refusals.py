"""What a user gets wrong is refused with one clear message and exit status 2, before Ray is
imported and before anything is written.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mmm.models import SYSTEMS
from spaces.quick import KNOWN_GOOD
from tests.conftest import HEADER, Corpus, write_manifest
from tests.sweep_parts import TIMEOUT_S, call, environment, write_space

# Many command lines in one interpreter, which starts in seconds: each gets its own output, and Ray
# is looked for after it.
_PROBE = """
import contextlib, importlib, io, json, sys, traceback
results = []
for module, arguments in json.load(open(sys.argv[1])):
    main = importlib.import_module(f"{module}.cli.app").main
    sys.argv = ["mmm" if module == "mmm" else "mmm-search", *arguments]
    out, err, status = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as exit:
            status = exit.code
        except BaseException:
            traceback.print_exc()
            status = "raised"
    results.append({"status": status, "out": out.getvalue(), "err": err.getvalue(),
                    "imported": sorted({"ray", "mlflow", "optuna", "search"} & sys.modules.keys())})
json.dump(results, sys.stdout)
"""
_SPACE = "def suggest(trial):\n    return {{'architecture': '{architecture}', {settings}}}\n"
_ONE_OF = ", ".join(SYSTEMS)


def vanilla(settings: str) -> str:
    return _SPACE.format(architecture="vanilla_concat", settings=settings)


def spaces_in(folder: Path) -> dict[str, str]:
    texts = {
        "unknown_architecture": (
            "def suggest(trial):\n    return {'architecture': trial.suggest_categorical('a',"
            " ['mlp_mixer', 'mix'])}\n"
        ),
        "invalid_value": vanilla("'dropout': trial.suggest_float('dropout', 0.0, 1.2)"),
        "unknown_setting": vanilla("'learning_rate': 0.1"),
        "both_balances": vanilla("'weighted_sampling': True, 'shuffle': True"),
        "heads": _SPACE.format(
            architecture="cross_attention",
            settings="'heads': trial.suggest_categorical('heads', [4, 5])",
        ),
        "no_dict": "def suggest(trial):\n    return 5\n",
    }
    return {name: write_space(folder / f"{name}.py", text) for name, text in texts.items()}


def faulty_manifest(corpus: Corpus, path: Path, column: str, value: str) -> Path:
    """The corpus's manifest, in which the second row has another value."""
    rows = [
        [
            u.utterance_id,
            u.dialogue_id,
            str(u.turn),
            u.session,
            u.speaker,
            u.text,
            str(corpus.manifest.audio_path(u)),
            ";".join(u.emotions),
            u.split,
        ]
        for u in corpus.manifest.utterances
    ]
    rows[1][HEADER.index(column)] = value
    return write_manifest(path, rows)


def cases(corpus: Corpus, folder: Path) -> dict[str, tuple[str, list[str], str]]:
    """Name -> module, arguments, and what the message has to hold."""
    manifest, features = str(corpus.manifest.path), str(corpus.features_dir)
    spaces = spaces_in(folder)
    no_wav = str(faulty_manifest(corpus, folder / "no_wav.csv", "audio", "wav/none.wav"))
    no_label = str(faulty_manifest(corpus, folder / "no_label.csv", "emotion", "angry|sad"))
    only_one = folder / "context_1"
    for store in corpus.features_dir.iterdir():
        recipe = store / "recipe.json"
        if recipe.is_file() and json.loads(recipe.read_text()).get("context", 1) == 1:
            shutil.copytree(store, only_one / store.name)
    train = ["train", manifest, "--features", features, "--out", str(folder / "bundle")]
    found: dict[str, tuple[str, list[str], str]] = {
        "train: architecture": (
            "mmm",
            [*train, "--architecture", "mixer"],
            f"unknown architecture 'mixer'; expected one of {_ONE_OF}",
        ),
        "train: sampling and shuffling": (
            "mmm",
            [*train, "--weighted-sampling", "--shuffle"],
            "cannot be combined with shuffling",
        ),
        "train: metric": (
            "mmm",
            [*train, "--metric", "f1"],
            "unknown --metric 'f1'; expected one of macro_f1, ",
        ),
        "train: value": (
            "mmm",
            [*train, "--dropout", "1.5", "--lr", "0"],
            "dropout=1.5 is out of range; expected at least 0 and",
        ),
        "train: label": (
            "mmm",
            [train[0], no_label, *train[2:]],
            "line 3: emotion: label 'angry|sad' holds '|', which divides labels",
        ),
        "train: context": ("mmm", [*train, "--context", "4"], "context=4"),
        "train: device": (
            "mmm",
            [*train, "--device", "tpu"],
            "unknown device 'tpu'; expected cpu, cuda or cuda:N",
        ),
        "encode: wav": (
            "mmm",
            ["encode", no_wav, "--features", str(folder / "new")],
            "line 3: audio file 'wav/none.wav' does not exist",
        ),
        "encode: label": (
            "mmm",
            ["encode", no_label, "--features", str(folder / "new")],
            "line 3: emotion: label 'angry|sad' holds '|'",
        ),
    }

    def sweep(
        case: str,
        message: str,
        *,
        space: str = "quick",
        data: str = manifest,
        store: str = features,
        more: str = "",
    ) -> None:
        arguments = [
            "run",
            space,
            data,
            "--features",
            store,
            "--runs",
            str(folder / "runs"),
            "--name",
            "s",
            *more.split(),
        ]
        found[f"run: {case}"] = ("search", arguments, message)

    sweep("wav", "no speech features for 30 of 30 utterances of", data=no_wav)
    sweep(
        "label", "line 3: emotion: label 'angry|sad' holds '|', which divides labels", data=no_label
    )
    sweep(
        "no manifest",
        "no such manifest; make one with: mmm prepare csv",
        data=str(folder / "none.csv"),
    )
    sweep("no features", "no such features folder; run: mmm encode", store=str(folder / "none"))
    sweep("context", "no features for context=2,3 (found: 1); run: mmm encode", store=str(only_one))
    sweep("contexts", "no features for context=4,5 (found: 1, 2, 3); run: mmm encode", space="full")
    sweep(
        "space",
        "unknown space 'quik'; expected one of quick, full, paper, or path/to/file.py:function",
        space="quik",
    )
    sweep("space's file", "no such file, named by the space", space=str(folder / "none.py:suggest"))
    sweep(
        "architecture",
        f"unknown architecture 'mix'; expected one of {_ONE_OF}\n  suggested: {{'a': 'mix'}}",
        space=spaces["unknown_architecture"],
    )
    sweep(
        "value",
        "is out of range; expected at least 0 and at most 0.99\n  suggested: {'dropout': 1.",
        space=spaces["invalid_value"],
    )
    sweep(
        "setting",
        "unknown setting 'learning_rate'; known: architecture, context",
        space=spaces["unknown_setting"],
    )
    sweep(
        "sampling and shuffling",
        "it cannot be combined with shuffling",
        space=spaces["both_balances"],
    )
    sweep("heads", "heads", space=spaces["heads"])
    sweep("no settings", "the space fails on {}: TypeError", space=spaces["no_dict"])
    sweep(
        "duration",
        "duration '2 hours' is not understood; expected for example 90s, 45m, 2h or 1h30m",
    )
    found["run: duration"][1].extend(["--time-budget", "2 hours"])
    sweep("metric", "unknown --metric 'f1'; expected one of macro_f1, ", more="--metric f1")
    sweep(
        "numbers",
        "--trials 0 is too small; expected at least 1; --workers 0 is too small; expected at"
        " least 1",
        more="--trials 0 --workers 0",
    )
    sweep(
        "huge number",
        "--trials a whole number of 1,329 bits is too large; expected at least 1",
        more=f"--trials 1{'0' * 400}",
    )
    sweep(
        "budgets",
        "--target 1.2 is no score to reach; expected above 0 and at most 1; --patience 0 is out of"
        " range; expected above 0; --max-parameters -5 is out of range; expected above 0;"
        " --max-ms-per-utterance nan is out of range; expected above 0; --max-memory-mb inf is out"
        " of range; expected above 0; unknown --repeats 'never'; expected one of new-seed, reuse;"
        " --gpu-hours without --gpus-per-trial would never be used up; use --compute-budget",
        more=(
            "--patience 0 --max-parameters -5 --max-ms-per-utterance nan --max-memory-mb inf"
            " --target 1.2 --gpu-hours 5 --repeats never"
        ),
    )
    sweep(
        "compute budget",
        "duration '10 hours' is not understood; expected for example 90s, 45m, 2h or 1h30m",
    )
    found["run: compute budget"][1].extend(["--compute-budget", "10 hours"])
    sweep(
        "small model",
        "--max-parameters 10: no model that the space was seen to make is that small",
        more="--max-parameters 10",
    )
    for name, text, message in (
        ("none", None, "no such file"),
        ("not_json", "{", "not JSON: Expecting property name"),
        (
            "no_point",
            "[1]",
            "expected an object of parameters or settings, or a list of such objects",
        ),
        (
            "lacking",
            '{"architecture": "mlp_mixer"}',
            "lacking.json, point 1: context is missing (IntDistribution(",
        ),
        (
            "outside",
            json.dumps([{**KNOWN_GOOD[0]}, {**KNOWN_GOOD[0], "lr": 1.0}]),
            "outside.json, point 2: lr=1.0 is not in the space",
        ),
        (
            "unknown",
            json.dumps({**KNOWN_GOOD[0], "lrr": 1.0}),
            "point 1: not in the space: lrr=1.0 (the space has none)",
        ),
    ):
        if text is not None:
            (folder / f"{name}.json").write_text(text)
        sweep(f"enqueue {name}", message, more=f"--enqueue {folder / name}.json")
    sweep("factor", "--factor 1 is too small; expected at least 2", more="--factor 1")
    sweep("name", "sweep name '../up' is not usable", more="--name ../up")
    sweep(
        "tracking",
        "is no URI; expected for example http://127.0.0.1:5000",
        more="--tracking-uri localhost:5000",
    )
    sweep("address", "--address without --workers", more="--address auto")
    sweep(
        "share of a GPU",
        "--gpus-per-trial 2: a trial computes on one GPU; give it 1, or a share of one such as",
        more="--gpus-per-trial 2",
    )
    if not torch.cuda.is_available():
        sweep(
            "GPU",
            "--gpus-per-trial 1: this machine has 0 usable GPUs; leave it out, or name a cluster",
            more="--gpus-per-trial 1",
        )
        sweep(
            "measured GPU",
            "--gpus-per-trial auto: this machine has 0 usable GPUs; leave it out, or name a",
            more="--gpus-per-trial auto",
        )
    sweep(
        "GPU in words",
        "--gpus-per-trial 'half' is not understood; expected auto or a number, for example 0.25",
        more="--gpus-per-trial half",
    )
    for case in ("wav", "contexts", "value", "numbers"):
        arguments = found[f"run: {case}"][1]
        at = arguments.index("--runs")
        found[f"plan: {case}"] = (
            "search",
            ["plan", *arguments[1:at], *arguments[at + 4 :]],
            found[f"run: {case}"][2],
        )
    for command in ("resume", "status", "report"):
        arguments = [command, "none", "--runs", str(folder / "runs")]
        found[f"{command}: name"] = ("search", arguments, "no sweep 'none' in ")
    found["ui: nothing there"] = (
        "search",
        ["ui", "--runs", str(folder / "runs")],
        "no MLflow store yet; run a sweep first",
    )
    return found


@pytest.fixture(scope="module")
def refusals(
    corpus: Corpus, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, tuple[str, str, dict[str, Any]]]]:
    """The folder they ran in, and for each case its module, the message it has to hold and what
    came of it.
    """
    folder = tmp_path_factory.mktemp("refusals")
    all_cases = cases(corpus, folder)
    (folder / "cases.json").write_text(json.dumps([case[:2] for case in all_cases.values()]))
    done = subprocess.run(
        [sys.executable, "-c", _PROBE, str(folder / "cases.json")],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=True,
    )
    found = json.loads(done.stdout)
    return folder, {
        name: (module, message, result)
        for (name, (module, _, message)), result in zip(all_cases.items(), found, strict=True)
    }


Refusals = tuple[Path, dict[str, tuple[str, str, dict[str, Any]]]]


def test_each_is_refused_with_its_message_and_status_2(refusals: Refusals) -> None:
    for name, (_, message, result) in refusals[1].items():
        assert message in result["err"], (name, result)
        assert result["err"].startswith("error: "), (name, result)
        assert "Traceback" not in result["err"], name
        assert result["status"] == 2, (name, result)


def test_plan_and_run_refuse_with_the_same_words(refusals: Refusals) -> None:
    plans = [name for name in refusals[1] if name.startswith("plan: ")]
    for name in plans:
        assert refusals[1][name][2]["err"] == refusals[1][f"run: {name[6:]}"][2]["err"]
    assert plans


def test_nothing_is_written(refusals: Refusals) -> None:
    for name in ("runs", "new", "bundle", "s", "up"):
        assert not (refusals[0] / name).exists()


def test_ray_and_mlflow_are_never_imported_and_mmm_imports_nothing_of_the_search(
    refusals: Refusals,
) -> None:
    for name, (module, _, result) in refusals[1].items():
        assert not {"ray", "mlflow"} & set(result["imported"]), name
        if module == "mmm":
            assert result["imported"] == [], name


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch sees a GPU here")
def test_a_gpu_that_is_not_there_is_refused_instead_of_waited_for(refusals: Refusals) -> None:
    assert refusals[1]["run: GPU"][2]["status"] == 2


def test_a_refusal_through_the_real_programs_is_one_message_on_stderr(
    corpus: Corpus, tmp_path: Path
) -> None:
    places = [corpus.manifest.path, "--features", corpus.features_dir]
    refused = call(
        "search", "run", "quik", *places, "--name", "s", "--runs", tmp_path / "runs", status=2
    )
    assert (
        refused.stderr == "error: unknown space 'quik'; expected one of quick, full, paper, or"
        " path/to/file.py:function\n"
    )
    assert refused.stdout == ""
    refused = call(
        "mmm", "train", *places, "--out", tmp_path / "bundle", "--architecture", "mixer", status=2
    )
    assert refused.stderr == f"error: unknown architecture 'mixer'; expected one of {_ONE_OF}\n"
    assert list(tmp_path.iterdir()) == []
