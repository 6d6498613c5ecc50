"""A fusion system of the user's own, `path/to/file.py:Class`.

Its file is run only where a command names it: `load_system` does it, and nothing that is read from
a bundle or a checkpoint comes there. What was loaded is remembered by class and SHA-256 of the
file, and settings that were recorded find it by these.
"""

import hashlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from mmm.user_code import user_code

# What a constructor may ask for by name: sizes that the data decide, and settings that our systems
# have. All else that it takes is a setting of its own.
SIZES = ("speech_width", "text_width", "speech_positions", "text_positions", "num_classes")
OURS = (
    *("context", "width", "classifier_hidden", "masked"),
    *("num_blocks", "residual", "layers", "heads"),
)
_KINDS = (bool, int, float, str)

OwnValue = str | int | float | bool


class UnnamedSystem(ValueError):
    """Settings of a system whose file no command has named."""


@dataclass(frozen=True)
class OwnSystem:
    """A class of the user's that is loaded."""

    reference: str  # absolute path and class
    sha256: str  # of the file
    make: type[nn.Module]
    is_pooled: bool
    takes: frozenset[str]  # of SIZES and OURS
    own: Mapping[str, OwnValue]  # its own settings with their defaults

    @property
    def name(self) -> str:
        return self.make.__name__


_loaded: dict[tuple[str, str], OwnSystem] = {}  # by class and SHA-256
_latest: dict[str, OwnSystem] = {}  # by reference


def loaded_files() -> list[Path]:
    """The file of each system that a command has named, where it is still there."""
    files = {Path(reference.rpartition(":")[0]) for reference in _latest}
    return sorted(file for file in files if file.is_file())


def is_reference(architecture: object) -> bool:
    """Whether it names a file and a class in it."""
    return isinstance(architecture, str) and architecture.rpartition(":")[0].endswith(".py")


def load_system(reference: str, folder: Path | None = None, sha256: object = None) -> OwnSystem:
    """Run a file that a command names, once; relative paths are those of `folder`, or of where the
    command runs.

    Raises FileNotFoundError, or ValueError where it is no such file, not what `sha256` says, or the
    class cannot be one of ours.
    """
    path, _, name = reference.rpartition(":")
    if not is_reference(reference):
        raise ValueError(f"{reference!r} names no system; expected path/to/file.py:Class")
    file = Path(folder or "", path).resolve()
    digest = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""
    if digest and sha256 is not None and digest != sha256:
        raise ValueError(
            f"{file}: not the file that was used: its SHA-256 is {digest[:16]}..., recorded is"
            f" {str(sha256)[:16]}...; name the file as it was"
        )
    if (name, digest) not in _loaded:
        _, made = user_code(f"{file}:{name}", "system")
        _loaded[name, digest] = _checked(f"{file}:{name}", digest, made)
    # A copy of a file that is loaded is the same system in another place.
    found = replace(_loaded[name, digest], reference=f"{file}:{name}")
    _latest[found.reference] = found
    return found


def load_recorded(settings: Mapping[str, object]) -> None:
    """Load the system that a sweep's recorded settings name, if they name one, unless a command has
    named its file in another place. Raises as `load_system`: its file may have been changed since.
    """
    reference, sha256 = settings.get("system"), settings.get("system_sha256")
    if reference is None or (str(settings.get("architecture")), str(sha256)) in _loaded:
        return
    try:
        load_system(str(reference), sha256=sha256)
    except FileNotFoundError as error:
        _, _, name = str(reference).rpartition(":")
        raise FileNotFoundError(
            f"{error}; if it is elsewhere now, say where: --system path/to/file.py:{name}"
        ) from None


def as_loaded(settings: Mapping[str, OwnValue | None]) -> Mapping[str, OwnValue | None]:
    """Recorded settings, with the file of a system of the user's own where it was loaded from."""
    key = str(settings.get("architecture")), str(settings.get("system_sha256"))
    found = _loaded.get(key)
    return settings if found is None else {**settings, "system": found.reference}


def loaded_system(settings: Mapping[str, object]) -> OwnSystem | None:
    """The system that settings ask for, None where it is one of ours. Raises UnnamedSystem where no
    command has named its file.
    """
    architecture, sha256 = settings.get("architecture"), settings.get("system_sha256")
    if is_reference(architecture):
        if architecture not in _latest:
            raise UnnamedSystem(
                f"{architecture}: a file of the user's own is only loaded where a command or a"
                " space names it"
            )
        return _latest[str(architecture)]
    if sha256 is None:
        return None
    if (found := _loaded.get((str(architecture), str(sha256)))) is not None:
        return found
    others = [digest[:16] for name, digest in _loaded if name == architecture]
    named = f" (the file that was named has {' and '.join(others)}...)" if others else ""
    raise UnnamedSystem(
        f"made with a system of its author's own, the class {architecture} of a file whose SHA-256"
        f" is {str(sha256)[:16]}...{named}; nothing was run; if you have the file and trust it,"
        f" name it: --system path/to/file.py:{architecture}, or mmm.load(..., system=...)"
    )


def _checked(reference: str, sha256: str, found: object) -> OwnSystem:
    """Raises ValueError with every fault of a class."""
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ValueError(f"{reference}: no torch.nn.Module, but {found!r}")
    from mmm.models import SYSTEMS

    faults = []
    if found.__name__ in SYSTEMS:
        faults.append(f"{found.__name__} is the name of one of our systems; choose another")
    if not isinstance(is_pooled := getattr(found, "is_pooled", None), bool):
        faults.append(
            "says not what it takes: add a line to the class, is_pooled = True for one vector an"
            " utterance, is_pooled = False for sequences"
        )
    takes, own = set(), {}
    for parameter in list(inspect.signature(found).parameters.values()):
        name, default = parameter.name, parameter.default
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
            faults.append(f"its constructor takes {name} by position; every argument has a name")
        elif name in (*SIZES, *OURS):
            takes.add(name)
        elif parameter.kind == parameter.VAR_KEYWORD:
            faults.append(f"its constructor takes **{name}, which says not what it takes")
        elif type(default) not in _KINDS:
            what = "no default" if default is parameter.empty else f"the default {default!r}"
            faults.append(
                f"{name} of its constructor is none of {', '.join((*SIZES, *OURS))}, and as a"
                f" setting of its own it has {what}; expected one that is text, a number, True or"
                " False"
            )
        else:
            own[name] = default
    if faults:
        raise ValueError(f"{reference}: {'; '.join(faults)}")
    return OwnSystem(reference, sha256, found, bool(is_pooled), frozenset(takes), own)


def own_settings(
    system: OwnSystem | None, architecture: object, params: Mapping[str, object], faults: list[str]
) -> tuple[tuple[str, OwnValue], ...] | None:
    """Settings named `own.NAME` of all those in `params`, completed; what is wrong with them is
    added to `faults`.
    """
    given = {name.removeprefix("own."): params[name] for name in params if name[:4] == "own."}
    if system is None:
        faults += [f"own.{name} does not apply to {architecture}, one of ours" for name in given]
        return None
    found = dict(system.own)
    for name, value in given.items():
        if name not in system.own:
            known = ", ".join(f"own.{one}" for one in system.own) or "none"
            faults.append(f"unknown setting 'own.{name}' of {system.name}; known: {known}")
            continue
        kind = type(system.own[name])
        if kind is float and type(value) is int:
            value = float(value)
        if not isinstance(value, kind) or type(value) is not kind:
            faults.append(
                f"own.{name}={value!r} is not like its default {system.own[name]!r}"
                f" ({kind.__name__})"
            )
            continue
        found[name] = value
    return tuple(sorted(found.items())) or None
