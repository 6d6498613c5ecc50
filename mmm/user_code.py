"""Code of the user's own, `path/to/file.py:name`: loaded here alone, and only where a command names
the file.
"""

import contextlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

_LONGEST = 1000  # letters of an error that are shown


def fault_of(error: BaseException) -> str:
    """An error that code of the user's own raised, in words: `ValueError: ...`."""
    try:
        text = str(error)
    except Exception:  # that is code of the user's own, too
        text = "an error without a text"
    cut = f"... ({len(text):,} letters)" if len(text) > _LONGEST else ""
    return f"{type(error).__name__}: {text[:_LONGEST]}{cut}"


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
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # sys.exit() among them, which would end the command silently
        raise ValueError(f"{path}: cannot be loaded as a {kind}: {fault_of(error)}") from error
    finally:
        sys.dont_write_bytecode = compiles
        with contextlib.suppress(ValueError):  # the file may have changed the path itself
            del sys.path[len(sys.path) - 1 - sys.path[::-1].index(folder)]
    found = getattr(module, name, None)
    if not callable(found):
        named = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
        raise ValueError(f"{path}: no function {name!r} (found: {', '.join(named) or 'none'})")
    return module, found
