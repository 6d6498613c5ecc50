"""Code of the user's own, `path/to/file.py:name`: loaded here alone, and only where a command names
the file.
"""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any


def user_code(reference: str, kind: str) -> tuple[ModuleType, Callable[..., Any]]:
    """The module of a file and what the file calls `name`; `kind` says what it is to be, such as a
    space. Raises ValueError or FileNotFoundError.

    Only while the file is loaded it may import its neighbours, and what is installed goes before
    them: a `random.py` or `search.py` beside it is not what anybody else means by that name.
    """
    path, _, name = reference.rpartition(":")
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file, named by the {kind} {reference!r}")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    folder = str(Path(path).resolve().parent)
    sys.path.append(folder)
    compiles = sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # nobody asked for a __pycache__ beside the file
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(
            f"{path}: cannot be loaded as a {kind}: {type(error).__name__}: {error}"
        ) from error
    finally:
        sys.dont_write_bytecode = compiles
        del sys.path[len(sys.path) - 1 - sys.path[::-1].index(folder)]
    found = getattr(module, name, None)
    if not callable(found):
        named = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
        raise ValueError(f"{path}: no function {name!r} (found: {', '.join(named) or 'none'})")
    return module, found
