"""Names of encoders: made of model and layer, and kept in `names.json` of a features folder."""

import re
import shlex
from collections.abc import Collection, Iterator
from pathlib import Path

from mmm.features.recipe import LAYERS, Recipe, identity_of
from mmm.files import parse_json

NAMES = "names.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_HASH = re.compile(r"[0-9a-f]{16}")


def default_name(recipe: Recipe) -> str:
    """Made of model and layer: `fbank`, `whisper-base-l4`, `char-ngram`."""
    model = recipe["encoder"].rstrip("/").rpartition("/")[2]
    model = re.sub(r"[^A-Za-z0-9._+-]+", "-", model).strip("-.")[:40] or "encoder"
    layer = recipe.get("layer", "last")
    if layer != "last" and recipe.get("feature") != LAYERS:
        number = layer.replace(":", "").replace(",", "+")
        model += f"-l{number}" if number[0].isdigit() else f"-{number}"
    return model + ("-speakers" if recipe.get("speakers") else "")


def free_name(recipe: Recipe, taken: Collection[str]) -> str:
    """The default name, with the frame rate or some of the identity where others have it."""
    name = default_name(recipe)
    rate = recipe.get("frame_rate_hz")
    at_rate = f"{name}-{rate:g}hz" if rate else f"{name}-every-frame"
    for one in (name, at_rate if recipe["kind"] == "audio" else name):
        if one not in taken:
            return one
    return f"{name}-{identity_of(recipe)[:4]}"


def check_name(name: str) -> None:
    """Raises ValueError where an encoder cannot be called so."""
    if not _NAME.fullmatch(name) or _HASH.fullmatch(name):
        raise ValueError(
            f"{name!r} is no name for an encoder; expected up to 64 letters, digits and . _ + -,"
            " for example whisper-base-l4"
        )


def read_names(features: Path) -> dict[str, str]:
    """Names by the identities of encoders, as the folder records them. Raises ValueError."""
    file = features / NAMES
    try:
        content = parse_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        content = None
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and _NAME.fullmatch(name) for name in content.values()
    ):
        raise ValueError(
            f"{file}: damaged: expected names by the identities of encoders; remove it, and names"
            f" are made of model and layer: {shlex.join(['rm', str(file)])}"
        )
    return content


def describe(recipe: Recipe) -> str:
    """An encoder in a few words: `whisper-base, layer 4, 12.5 frames a second`."""
    return ", ".join(_words(recipe))


def _words(recipe: Recipe) -> Iterator[str]:
    yield recipe["encoder"].rstrip("/").rpartition("/")[2]
    if "layer" in recipe:
        yield f"layer {recipe['layer']}"
    if recipe["kind"] == "audio":
        rate = recipe.get("frame_rate_hz")
        yield f"{rate:g} frames a second" if rate else "every frame"
    if recipe.get("revision"):
        yield f"revision {str(recipe['revision'])[:8]}"
    if recipe.get("speakers"):
        yield "with speakers"
