"""Who may import what: the tables of docs/architecture.md against the sources, read with `ast`."""

import ast
import graphlib
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Which of our own packages each package may import.
ALLOWED = {"mmm": {"mmm"}, "search": {"mmm", "search", "spaces"}, "spaces": {"spaces"}}
MOST_LEVELS = 9
# One door for each: where code is large, slow to import or not everyone's.
DOORS = {
    "ray": {"search/cluster/"},
    "mlflow": {"search/tracking/"},
    "transformers": {"mmm/encoders/"},
    "fsspec": {"search/storage/"},
    "gradio": {"mmm/predict/"},
    "onnxruntime": {"mmm/bundle/"},
    "optuna": {"search/space/", "search/suggest/", "search/results/", "spaces/"},
}
# What runs code that comes with data.
_UNSAFE = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
_ROW = re.compile(r"^\| `([\w/.]+)` \| *(\d+) \| [^|]+ \| ([^|]*) \|$", re.MULTILINE)


@dataclass(frozen=True)
class Row:
    """A folder, or a file directly below its package, as the page has it."""

    level: int
    libraries: frozenset[str]


@cache
def table() -> dict[str, Row]:
    rows = _ROW.findall((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))
    assert len({name for name, _, _ in rows}) == len(rows), "a folder has two rows"
    return {
        name: Row(int(level), frozenset(libraries.replace(",", " ").split()))
        for name, level, libraries in rows
    }


@cache
def sources() -> list[Path]:
    return sorted(file for package in ALLOWED for file in (ROOT / package).rglob("*.py"))


@cache
def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def name_of(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def module_file(module: str) -> Path | None:
    """The file of one of our modules; None where there is none."""
    path = ROOT / module.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return file if file.is_file() else None


def folder_of(file: Path) -> str:
    """The row that a file belongs to."""
    package, *below = name_of(file).split("/")
    if package == "spaces":
        return "spaces/"
    return f"{package}/{below[0]}/" if len(below) > 1 else f"{package}/{below[0]}"


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module that a file imports, inside functions and under TYPE_CHECKING too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import; write the whole name"
            assert node.module is not None
            # `from mmm import files` imports mmm.files, `from mmm.files import write_text` does
            # not import a module.
            parts = [f"{node.module}.{alias.name}" for alias in node.names]
            modules = [
                part for part in parts if part.split(".")[0] in ALLOWED and module_file(part)
            ]
            yield from modules or [node.module]
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in ("__import__", "importlib.import_module", "import_module") and node.args:
                argument = node.args[0]
                if isinstance(argument, ast.Constant):
                    yield str(argument.value)


def own_imports(file: Path) -> Iterator[Path]:
    for module in set(imports(tree_of(file))):
        if module.split(".")[0] in ALLOWED:
            found = module_file(module)
            assert found is not None, f"{name_of(file)} imports {module}, which is no file"
            if found != file:
                yield found


def libraries_of(file: Path) -> set[str]:
    roots = {module.split(".")[0] for module in imports(tree_of(file))}
    return roots - set(sys.stdlib_module_names) - set(ALLOWED)


def test_the_page_lists_every_folder_and_nothing_else() -> None:
    there = {folder_of(file) for file in sources()}
    assert set(table()) == there, "docs/architecture.md and the folders differ"


def test_a_package_imports_only_the_packages_below_it() -> None:
    known = {*ALLOWED, "tests", "benchmarks", "deploy"}
    breaches = [
        f"{name_of(file)} imports {module}"
        for file in sources()
        for module in imports(tree_of(file))
        if (root := module.split(".")[0]) in known
        and root not in ALLOWED[name_of(file).split("/")[0]]
    ]
    assert breaches == []


def test_a_folder_imports_only_folders_on_lower_levels() -> None:
    breaches = [
        f"{name_of(file)} (level {table()[folder_of(file)].level}) imports {name_of(other)}"
        f" (level {table()[folder_of(other)].level})"
        for file in sources()
        for other in own_imports(file)
        if folder_of(other) != folder_of(file)
        and name_of(other).split("/")[0] == name_of(file).split("/")[0]
        and table()[folder_of(other)].level >= table()[folder_of(file)].level
    ]
    assert breaches == []


def test_levels_are_as_low_as_they_can_be_and_at_most_nine() -> None:
    below: dict[str, set[str]] = defaultdict(set)
    for file in sources():
        below[folder_of(file)] |= {
            folder_of(other)
            for other in own_imports(file)
            if name_of(other).split("/")[0] == name_of(file).split("/")[0]
        } - {folder_of(file)}

    def level(folder: str) -> int:
        return 1 + max((level(other) for other in below[folder]), default=0)

    assert {name: row.level for name, row in table().items()} == {
        name: level(name) for name in table()
    }
    assert max(row.level for row in table().values()) <= MOST_LEVELS


def test_files_do_not_import_each_other_in_a_circle() -> None:
    order = graphlib.TopologicalSorter({file: set(own_imports(file)) for file in sources()})
    order.prepare()  # raises CycleError, which names the circle


def test_third_parties_come_in_by_their_doors() -> None:
    found: dict[str, set[str]] = defaultdict(set)
    for file in sources():
        found[folder_of(file)] |= libraries_of(file)
    assert {name: set(row.libraries) for name, row in table().items()} == {
        name: found[name] for name in table()
    }
    for library, doors in DOORS.items():
        assert {name for name in found if library in found[name]} == doors, library


def test_nothing_loads_code_from_data() -> None:
    for file in sources():
        tree = tree_of(file)
        unsafe = {
            node.names[0].name if isinstance(node, ast.Import) else str(node.module)
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            and ast.unparse(node) != "from pickle import UnpicklingError"
        }
        assert unsafe & _UNSAFE == set(), name_of(file)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                _check_call(node, f"{name_of(file)}:{node.lineno}")


def _check_call(node: ast.Call, where: str) -> None:
    called = ast.unparse(node.func)
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
    assert set(imports(ast.parse(code))) == {
        "ray",
        "mlflow.entities",
        "optuna.trial",
        "mmm.files",
        "transformers",
        "soundfile",
        "torchaudio.functional",
    }
