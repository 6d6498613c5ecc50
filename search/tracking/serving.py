"""What MLflow serves: a bundle as a pyfunc, by the name of this module and the bundle's folder. No
pickled object.

`mlflow models serve --env-manager local` imports it; it needs neither Ray nor Optuna, nor MLflow
itself.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import mmm
from mmm.predict.inputs import decode_base64

_NEEDED = ("audio", "text")


class ServedBundle:
    """Answers tables with the columns audio (a speech file's content as base64) and text, a row an
    utterance.

    Optional: history and history_audio, lists of the texts and the speech (base64, "" for none) of
    earlier turns, oldest first; speaker and history_speaker, who speaks, for a bundle that reads it
    ("" where nobody knows). The answer has a column of probabilities a class.
    """

    def __init__(self, bundle: Path) -> None:
        self.predictor = mmm.load(bundle)

    def predict(
        self, model_input: pd.DataFrame, params: Mapping[str, object] | None = None
    ) -> pd.DataFrame:
        """Raises ValueError, naming row and column."""
        missing = [name for name in _NEEDED if name not in model_input.columns]
        if missing:
            raise ValueError(
                f"column {', '.join(missing)} is missing; expected audio (base64 of a wav) and"
                " text, and optional history and history_audio (lists), speaker and"
                " history_speaker (a list)"
            )
        utterances = []
        for row, values in enumerate(model_input.to_dict("records")):
            texts, clips, names = (
                _items(values.get(name), f"row {row}, {name}")
                for name in ("history", "history_audio", "history_speaker")
            )
            if clips and len(clips) != len(texts):
                raise ValueError(
                    f"row {row}: {len(clips)} history_audio for {len(texts)} history; give one for"
                    " each, and '' for a turn without speech"
                )
            if names and len(names) != len(texts):
                raise ValueError(
                    f"row {row}: {len(names)} history_speaker for {len(texts)} history; give one"
                    " for each, and '' where nobody knows"
                )
            speaker = values.get("speaker")
            speech = [
                decode_base64(clip, f"row {row}, history_audio") if clip else None
                for clip in clips or [""] * len(texts)
            ]
            for name in _NEEDED:
                if not isinstance(values[name], str):
                    raise ValueError(
                        f"row {row}, {name}: expected text, found {type(values[name]).__name__}"
                    )
            utterances.append(
                (
                    decode_base64(values["audio"], f"row {row}, audio"),
                    values["text"],
                    [
                        (clip, text, names[place] if names else None)
                        for place, (clip, text) in enumerate(zip(speech, texts, strict=True))
                    ],
                    speaker if isinstance(speaker, str) else None,
                )
            )
        return pd.DataFrame(
            self.predictor.predict_many(utterances), columns=list(self.predictor.labels)
        )


def _items(value: Any, where: str) -> list[str]:
    """An optional list: MLflow fills what is left out with None or NaN, and turns lists into
    arrays.
    """
    if value is None or (isinstance(value, float) and value != value):
        return []
    if isinstance(value, str) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{where}: expected a list of texts")
    return list(value)


def _load_pyfunc(data_path: str) -> ServedBundle:
    """Called by MLflow with the bundle's folder."""
    served = ServedBundle(Path(data_path))
    if served.predictor.is_light:
        torch.set_num_threads(1)  # as mmm predict does
    return served
