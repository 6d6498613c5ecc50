"""`pip install .` alone predicts: mmm needs nothing of the search, and its dependencies are those
it imports.
"""

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import mmm
from mmm.bundle.write import save_run_bundle
from tests.conftest import Corpus, trained
from tests.sweep_parts import TIMEOUT_S, environment

_ROOT = Path(__file__).parent.parent
# What the extras bring, and what is not in the wheel's part that predicts: importing any of it
# fails in the child.
_PLAIN = """
import runpy, sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {MISSING}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
runpy.run_module(sys.argv.pop(1), run_name="__main__")
"""
_MODULES = {"scikit-learn": "sklearn"}  # where they are not named as their package


def _dependencies(extra: str | None = None) -> set[str]:
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    lines = project["dependencies"] if extra is None else project["optional-dependencies"][extra]
    names = [re.split(r"[\[<>=]", line)[0].strip() for line in lines]
    return {_MODULES.get(name, name).replace("-", "_") for name in names}


def _imports_of(package: str) -> set[str]:
    found = set()
    for file in (_ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.split(".")[0])
    return {
        name
        for name in found
        if name not in sys.stdlib_module_names and name not in ("mmm", "search", "spaces")
    }


def test_the_dependencies_are_what_mmm_imports_and_no_more() -> None:
    optional = _dependencies("onnx") | _dependencies("demo") | {"fastapi"}  # fastapi is Gradio's
    assert _imports_of("mmm") - optional == _dependencies()


def test_the_search_brings_what_it_imports() -> None:
    brought = _dependencies() | _dependencies("search")
    assert (_imports_of("search") | _imports_of("spaces")) - brought <= {
        "sqlalchemy"
    }  # Optuna's and MLflow's own


def test_a_bundle_in_another_folder_predicts_without_ray_optuna_mlflow_and_the_search(
    corpus: Corpus, tmp_path: Path
) -> None:
    save_run_bundle(
        trained(corpus, "vanilla_concat", lr=1e-2, context=2),
        tmp_path / "made",
        name="b",
    )
    manifest = corpus.manifest
    audio = manifest.audio_path(manifest.utterances[2])
    expected = mmm.load(tmp_path / "made").predict(audio, "great")
    shutil.move(tmp_path / "made", tmp_path / "elsewhere")
    missing = {
        "search",
        "spaces",
        "ray",
        "optuna",
        "mlflow",
        "matplotlib",
        "onnx",
        "onnxruntime",
        "gradio",
    }
    arguments = [
        "predict",
        str(tmp_path / "elsewhere"),
        "--audio",
        str(audio),
        "--text",
        "great",
        "--json",
    ]
    done = subprocess.run(
        [sys.executable, "-c", _PLAIN.replace("{MISSING}", repr(missing)), "mmm", *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        cwd=_ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == pytest.approx(expected, abs=1e-5)


def test_the_search_without_its_extra_says_what_to_install() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PLAIN.replace("{MISSING}", "{'optuna'}"), "search", "resume", "x"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        cwd=_ROOT,
    )
    assert (done.returncode, done.stderr) == (
        2,
        "error: mmm-search needs optuna; install it with: pip install 'mmm-search[search]'\n",
    )


def test_importing_mmm_imports_no_torch() -> None:
    text = (
        "import sys, mmm; print(mmm.__version__, sorted({'torch', 'pandas', 'numpy', 'sklearn',"
        " 'transformers'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", text],
        capture_output=True,
        text=True,
        check=True,
        env=environment(),
        cwd=_ROOT,
    )
    assert done.stdout == f"{mmm.__version__} []\n"


def test_predicting_imports_neither_pandas_nor_scikit_learn_nor_transformers() -> None:
    text = (
        "import sys, mmm.predict.predictor, mmm.predict.inputs;"
        " print(sorted({'pandas', 'sklearn', 'scipy',"
        " 'transformers'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", text],
        capture_output=True,
        text=True,
        check=True,
        env=environment(),
        cwd=_ROOT,
    )
    assert done.stdout == "[]\n"
