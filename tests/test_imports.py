"""Who may import what: docs/architecture.md, read from the sources with `ast`."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OWN = ("mmm", "search", "spaces")
# A file imports only files of lower rows; a package in one row (its files know each other) counts
# as one file.
ROWS = {
    "mmm/version": 0,
    "mmm/files": 0,
    "mmm/sound": 0,
    "mmm/metrics": 0,
    "mmm/intervals": 0,
    "mmm/models": 0,
    "mmm/memory": 0,
    "mmm/precision": 0,
    "mmm/dropout": 0,
    "mmm/adamw": 0,
    "mmm/tensors": 0,
    "mmm/terminal": 0,
    "mmm/checksums": 0,
    "mmm/encode_command": 0,
    "mmm/manifest": 1,
    "mmm/store": 1,
    "mmm/scaling": 2,
    "mmm/config": 3,
    "mmm/corpora": 2,
    "mmm/encoders": 2,
    "mmm/partial": 2,
    "mmm/encoding": 3,
    "mmm/clips": 3,
    "mmm/extract": 4,
    "mmm/residence": 2,
    "mmm/batches": 5,
    "mmm/run": 6,
    "mmm/class_weights": 6,
    "mmm/pack": 7,
    "mmm/checkpoint": 7,
    "mmm/linear": 7,
    "mmm/evaluate": 8,
    "mmm/train": 9,
    "mmm/baselines": 10,
    "mmm/pack_size": 10,
    "mmm/products": 0,
    "mmm/profile": 10,
    "mmm/bundle": 10,
    "mmm/predict": 11,
    "mmm/card": 11,
    "mmm/onnx_head": 11,
    "mmm/corpus_report": 3,
    "mmm/corpus_page": 4,
    "mmm/cli_prepare": 11,
    "mmm/cli_encode": 11,
    "mmm/cli_profile": 12,
    "mmm/queries": 12,
    "mmm/verify": 12,
    "mmm/demo_page": 12,
    "mmm/__init__": 13,
    "mmm/cli_predict": 14,
    "mmm/cli": 15,
    "mmm/__main__": 16,
}
# One door for each third party that is large, slow or optional; a folder stands for its files.
DOORS = {
    "transformers": {"mmm/encoders/huggingface", "mmm/encoders/huggingface_text"},
    "huggingface_hub": {"mmm/encoders/pretrained"},
    "torchaudio": {"mmm/encoders"},
    "soundfile": {"mmm/sound", "mmm/corpora"},
    "ray": {
        "search/cluster",
        "search/encode",
        "search/sweep",
        "search/trial",
        "search/searcher",
        "search/scheduler",
        "search/quickstart",
    },
    "mlflow": {"search/mlflow_store", "search/tracking", "search/registry"},
    "onnxruntime": {"mmm/onnx_head"},
    "onnxscript": {"mmm/onnx_head"},
    "gradio": {"mmm/demo_page"},
    "matplotlib": {"search/report", "search/figures"},
    "optuna": {
        "search/searcher",
        "search/draw",
        "search/surrogate",
        "search/enqueue",
        "search/warm_start",
        "search/report",
        "search/study",
        "spaces",
    },
}
# Which of our own packages each package may import.
ALLOWED = {"mmm": {"mmm"}, "search": {"mmm", "search", "spaces"}, "spaces": {"spaces"}}
# What runs code that comes with data.
_UNSAFE = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def sources(*packages: str) -> list[Path]:
    return sorted(file for package in packages for file in (ROOT / package).rglob("*.py"))


def name_of(file: Path) -> str:
    return file.relative_to(ROOT).with_suffix("").as_posix()


def module_file(module: str) -> str | None:
    """The file of one of our modules, as in ROWS; None where there is none."""
    path = module.replace(".", "/")
    if (ROOT / path).is_dir():
        return f"{path}/__init__"
    return path if (ROOT / f"{path}.py").is_file() else None


def imports(tree: ast.AST, file: Path) -> Iterator[str]:
    """Every module that a file imports, inside functions and under TYPE_CHECKING too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: relative import; write the whole name"
            assert node.module is not None
            # `from mmm import files` imports mmm.files, `from mmm.files import write_text` does not
            # import a module.
            parts = [f"{node.module}.{alias.name}" for alias in node.names]
            modules = [part for part in parts if part.split(".")[0] in OWN and module_file(part)]
            yield from modules or [node.module]
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in ("__import__", "importlib.import_module", "import_module") and node.args:
                argument = node.args[0]
                if isinstance(argument, ast.Constant):
                    yield str(argument.value)


def imports_of(file: Path) -> set[str]:
    return set(imports(ast.parse(file.read_text(encoding="utf-8")), file))


def row_name(file: str) -> str:
    """The entry of ROWS that a file belongs to: itself, or its package."""
    package = file.rsplit("/", 1)[0]
    return package if package in ROWS else file


def test_every_file_of_mmm_has_a_row() -> None:
    without = {name_of(file) for file in sources("mmm") if row_name(name_of(file)) not in ROWS}
    assert without == set(), (
        "a newcomer needs a row in tests/test_imports.py: above all it imports, below all that"
        " import it"
    )


def test_every_row_has_a_file() -> None:
    assert set(ROWS) - {row_name(name_of(file)) for file in sources("mmm")} == set()


@pytest.mark.parametrize("file", sources("mmm"), ids=name_of)
def test_a_file_of_mmm_imports_only_lower_rows(file: Path) -> None:
    mine = row_name(name_of(file))
    for module in imports_of(file):
        found = module_file(module) if module.split(".")[0] in OWN else None
        theirs = row_name(found) if found else mine
        assert theirs == mine or ROWS[theirs] < ROWS[mine], (
            f"{name_of(file)} imports {module}, which is not below it"
        )


@pytest.mark.parametrize("file", sources(*OWN), ids=name_of)
def test_a_package_imports_only_the_packages_below_it(file: Path) -> None:
    package = name_of(file).split("/")[0]
    breaches = {
        module
        for module in imports_of(file)
        if module.split(".")[0] in {*OWN, "tests", "benchmarks", "deploy"}
        and module.split(".")[0] not in ALLOWED[package]
    }
    assert breaches == set(), f"{name_of(file)} must not import {', '.join(sorted(breaches))}"


@pytest.mark.parametrize("file", sources(*OWN), ids=name_of)
def test_third_parties_come_in_by_their_door(file: Path) -> None:
    name = name_of(file)
    for module in imports_of(file):
        doors = DOORS.get(module.split(".")[0])
        if doors is not None:
            open_here = any(name == door or name.startswith(f"{door}/") for door in doors)
            assert open_here, f"{name} imports {module}; only {', '.join(sorted(doors))} may"


@pytest.mark.parametrize("file", sources(*OWN), ids=name_of)
def test_nothing_loads_code_from_data(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    unsafe = {
        node.names[0].name if isinstance(node, ast.Import) else str(node.module)
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        and ast.unparse(node) != "from pickle import UnpicklingError"
    }
    assert unsafe & _UNSAFE == set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called, where = ast.unparse(node.func), f"{name_of(file)}:{node.lineno}"
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        assert called not in ("eval", "exec", "yaml.load", "torch.hub.load"), where
        assert called != "torch.load" or keywords.get("weights_only") == "True", where
        assert called != "np.load" or keywords.get("allow_pickle") == "False", where
        assert keywords.get("trust_remote_code", "False") == "False", where


def test_the_check_sees_every_way_of_importing() -> None:
    code = """
import ray
import mlflow.entities as entities
from optuna.trial import Trial
from mmm import files, __version__
def late():
    from transformers import AutoModel
    __import__("soundfile")
    importlib.import_module("torchaudio.functional")
"""
    found = set(imports(ast.parse(code), Path("x.py")))
    assert found == {
        "ray",
        "mlflow.entities",
        "optuna.trial",
        "mmm.files",
        "transformers",
        "soundfile",
        "torchaudio.functional",
    }
