"""Where a pretrained model's files are and what pins them: the commit of a hub model, a hash of a
local folder's files.

A model that is on the disk is never asked for on the network; one that is not is downloaded once,
without code.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mmm.features.recipe import Recipe
from mmm.files import sha256_of_file

_SMALL_FILES = ("*.json", "*.txt", "*.model")
_LOADED_FILES = ("*.safetensors", "*.bin", *_SMALL_FILES)
_WHAT_TO_GIVE = (
    "give a Hugging Face id that can be downloaded or is cached, the folder of a downloaded model, "
    "or a built-in encoder (fbank, voice, char-ngram)"
)


Kind = Literal["speech", "text", "other"]


class WrongEncoder(ValueError):
    """An encoder of another kind than is asked for."""

    def __init__(self, name: str, kind: Kind, what: str, expected: str) -> None:
        self.kind = kind
        super().__init__(f"encoder {name!r} is {what}; expected {expected}")


def kind_of(model_type: str) -> Kind:
    """What a model of transformers takes."""
    from transformers.models.auto import modeling_auto as known

    of_speech = (
        known.MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES,
        known.MODEL_FOR_CTC_MAPPING_NAMES,
        known.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES,
    )
    of_text = (
        known.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        known.MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES,
        known.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    )
    if any(model_type in names for names in of_speech):
        return "speech"
    return "text" if any(model_type in names for names in of_text) else "other"


@dataclass(frozen=True)
class Pretrained:
    """A model's folder and the entries of a recipe that pin it."""

    folder: Path
    identity: Recipe


def find_pretrained(
    name: str, revision: str | None = None, *, only_local: bool = False
) -> Pretrained:
    """Raises ValueError where there is no such model, with `only_local` FileNotFoundError where it
    is not on this machine.
    """
    folder = Path(name)
    if folder.is_dir():
        digest = hashlib.sha256()
        for file in sorted({file for pattern in _LOADED_FILES for file in folder.glob(pattern)}):
            digest.update(f"{file.name}\0{sha256_of_file(file)}\n".encode())
        identity: Recipe = {"encoder": str(folder.resolve()), "revision": None}
        return Pretrained(folder, {**identity, "files_sha256": digest.hexdigest()})
    snapshot = _snapshot(name, revision, only_local)
    # The hub's cache names snapshots by their commit.
    return Pretrained(snapshot, {"encoder": name, "revision": snapshot.name})


def _snapshot(name: str, revision: str | None, only_local: bool) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError

    def fetch(patterns: tuple[str, ...], **where: Any) -> Path:
        return Path(
            huggingface_hub.snapshot_download(
                name, revision=revision, allow_patterns=list(patterns), **where
            )
        )

    try:
        try:
            cached = fetch(_LOADED_FILES, local_files_only=True)
            if _has_weights(cached):
                return cached
        except (OSError, ValueError):
            pass  # not on the disk
        if only_local:
            pinned = f" --revision {revision}" if revision else ""
            raise FileNotFoundError(
                f"encoder {name!r}, which the features were made with, is not on this machine; get"
                f" it with: hf download {name}{pinned}"
            )
        found = fetch(("*.safetensors", *_SMALL_FILES))
        return found if _has_weights(found) else fetch(_LOADED_FILES)
    except HFValidationError as error:
        raise cannot_load(name, error) from error
    except (OSError, ValueError) as error:
        if only_local:
            raise
        raise cannot_load(name, error) from error


def _has_weights(folder: Path) -> bool:
    return (folder / "config.json").is_file() and any(
        (*folder.glob("*.safetensors"), *folder.glob("*.bin"))
    )


def cannot_load(name: str, error: Exception) -> ValueError:
    """What to tell of a model that cannot be loaded."""
    return ValueError(
        f"encoder {name!r} cannot be loaded:"
        f" {(str(error).strip() or type(error).__name__).splitlines()[0]}; {_WHAT_TO_GIVE}"
    )


def load_part(loader: Any, name: str, folder: Path) -> Any:
    """`loader.from_pretrained` without network and without the model's own code. Raises
    ValueError.
    """
    from pickle import UnpicklingError

    from safetensors import SafetensorError

    try:
        return loader.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (EOFError, RuntimeError, SafetensorError, UnpicklingError) as error:
        # Not torch's own message: it advises to load the file without care.
        raise ValueError(
            f"encoder {name!r} cannot be loaded: its weights file is damaged, or holds more than"
            f" weights, which could run code ({type(error).__name__}); download it again from a"
            " source you trust"
        ) from error
    except (OSError, ValueError) as error:
        raise cannot_load(name, error) from error
