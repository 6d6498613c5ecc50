"""Importing our modules changes nothing in the process: who imports `mmm` in a notebook keeps
logging, warnings, signals and environment.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
OWN = ("mmm", "search", "spaces")

_PROGRAM = """
import importlib, logging, os, signal, socket, sys, threading, warnings

def state():
    named = logging.Logger.manager.loggerDict.items()
    loggers = {name: one for name, one in named if isinstance(one, logging.Logger)}
    loggers["root"] = logging.getLogger()
    found = {
        "environment": dict(os.environ),
        "warnings": [*map(repr, warnings.filters)],
        "showwarning": warnings.showwarning,
        "hooks": (sys.excepthook, threading.excepthook, sys.unraisablehook),
        "path": sys.path[:],
        "signals": [signal.getsignal(number) for number in signal.valid_signals()],
        "socket timeout": socket.getdefaulttimeout(),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        **{f"logger {name}": (one.level, one.handlers[:], one.propagate, one.disabled)
           for name, one in loggers.items()},
    }
    if "matplotlib" in sys.modules:
        settings = sys.modules["matplotlib"].rcParams
        found["matplotlib backend"] = dict.__getitem__(settings, "backend")  # not resolved
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        found["torch"] = (
            torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled(),
            torch.are_deterministic_algorithms_enabled(),
        )
    return found

theirs, ours = (text.split() for text in sys.argv[1:])
for module in theirs:
    importlib.import_module(module)
for module in ours:
    before = state()
    importlib.import_module(module)
    after = state()
    for name in before.keys() & after.keys():
        if before[name] != after[name]:
            print(f"{module} changes {name}")
"""


def _modules() -> dict[str, Path]:
    files = (file for package in OWN for file in sorted((ROOT / package).rglob("*.py")))
    return {
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
        for file in files
    }


def _imported(body: list[ast.stmt]) -> Iterator[str]:
    """Modules that a file imports when it is imported itself."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Try | ast.With):
            yield from _imported(node.body)


def test_importing_a_module_changes_nothing_in_the_process() -> None:
    modules = _modules()
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in modules.values()]
    imported = {name for tree in trees for name in _imported(tree.body)}
    # What others change when they are imported is theirs: they come first.
    theirs = sorted(name for name in imported if name.split(".")[0] not in OWN)
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, " ".join(theirs), " ".join(modules)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
