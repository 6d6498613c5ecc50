"""Multi-modal (speech and text) emotion recognition in conversation: corpora, features, models,
training, bundles.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from mmm.version import VERSION

if TYPE_CHECKING:
    from mmm.predict.predictor import Predictor

__all__ = ["__version__", "load"]
__version__ = VERSION


def load(
    bundle: str | Path,
    *,
    audio_encoder: str | Path | None = None,
    text_encoder: str | Path | None = None,
    system: str | None = None,
    calibrated: bool = False,
) -> "Predictor":
    """A bundle (or an ensemble of bundles) ready to predict; its encoders are loaded once.

    `audio_encoder` and `text_encoder` say where the folder of an encoder lies now, when it moved
    since the features were made. `system` names the file of a system of its author's own,
    `path/to/file.py:Class`, which is run; without it such a bundle is refused. `calibrated`
    applies the bundle's temperature to every answer. Raises FileNotFoundError, BundleError for a
    damaged bundle, ValueError where an encoder is not on this machine or there is no temperature.
    """
    # torch takes a second to import, which `import mmm` must not cost.
    from mmm.bundle.read import load_bundle_or_ensemble
    from mmm.predict.predictor import Predictor

    if system is not None:
        from mmm.training.own_system import load_system

        load_system(system)
    folders = [None if folder is None else Path(folder) for folder in (audio_encoder, text_encoder)]
    return Predictor(
        load_bundle_or_ensemble(Path(bundle)),
        audio_encoder=folders[0],
        text_encoder=folders[1],
        calibrated=calibrated,
    )
