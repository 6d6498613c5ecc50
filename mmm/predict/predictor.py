"""Prediction from a bundle, on raw speech and text."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mmm.audio.speech import decode_speech, read_speech
from mmm.bundle.read import COPY_AGAIN, Bundle, BundleError, Ensemble, mean_answer
from mmm.calibration import with_temperature
from mmm.encoders import Floats, SpeechEncoder, TextEncoder
from mmm.encoders.make import speech_encoder_of, text_encoder_of
from mmm.features.recipe import identity_of, recipe_hash
from mmm.features.store import Encoded, encoded
from mmm.manifest import with_speaker
from mmm.training.batches import Batch, without_input
from mmm.training.evaluate import forward
from mmm.training.vectors import speech_vector

_BATCH_SIZE = 32
_REMEMBERED_CLIPS = 256  # in one call of predict_many, where earlier turns come again and again


@dataclass(frozen=True, eq=False)
class Speech:
    """One utterance's speech, encoded: for each recipe's hash what a feature store would hold."""

    features: dict[str, Encoded]


# A file, 16 kHz mono samples, a file's content, or what `Predictor.hear` gave.
Audio = Path | Floats | bytes | Speech
# (speech, text), and who speaks: needed by a bundle that reads it, "" where nobody knows.
Turn = tuple[Audio | None, str] | tuple[Audio | None, str, str | None]
# (speech, text), the turns before, oldest first, and who speaks.
Utterance = (
    tuple[Audio, str]
    | tuple[Audio, str, Sequence[Turn]]
    | tuple[Audio, str, Sequence[Turn], str | None]
)


class Predictor:
    """A bundle or an ensemble with its encoders, loaded once.

    `audio_encoder` and `text_encoder` are the folders of encoders that moved. `calibrated` applies
    the temperature that was fitted on validation. Raises FileNotFoundError or ValueError where an
    encoder is not on this machine, with how to get it, or there is no temperature; nothing is
    downloaded.
    """

    def __init__(
        self,
        bundle: Bundle | Ensemble,
        *,
        audio_encoder: Path | None = None,
        text_encoder: Path | None = None,
        calibrated: bool = False,
    ) -> None:
        self.bundle = bundle
        if calibrated and bundle.temperature is None:
            raise ValueError(
                f"{bundle.path}: has no temperature to calibrate with; a bundle has one that"
                " mmm-search export made of a sweep with a validation split: export it again, or"
                " leave --calibrated (calibrated=) out"
            )
        self._temperature = bundle.temperature if calibrated else None
        # Members of an ensemble that have encoders in common share them.
        self._heard = [member.audio_recipe for member in bundle.members]
        self._speech: dict[str, SpeechEncoder] = {}
        self._text: dict[str, TextEncoder] = {}
        for member in bundle.members:
            speech, text = member.audio_recipe, member.text_recipe
            try:
                if (identity := identity_of(speech)) not in self._speech:
                    self._speech[identity] = speech_encoder_of(speech, audio_encoder)
                if (identity := identity_of(text)) not in self._text:
                    self._text[identity] = text_encoder_of(text, text_encoder)
            except ValueError as error:
                raise ValueError(f"{member.path}: {error}") from error
            self._check_widths(member)

    def _check_widths(self, member: Bundle) -> None:
        """Raises BundleError where a head reads other numbers than its encoders give."""
        speech, text, dims = member.audio_recipe, member.text_recipe, member.dims
        frame = self._speech[identity_of(speech)].width(speech["feature"])
        parts = (2 if member.config.pooling == "mean_std" else 1) * dims.speech_layers
        given = frame * parts, self._text[identity_of(text)].width()
        if given != (dims.speech_width, dims.text_width):
            raise BundleError(
                f"{member.path}/config.json: its head reads {dims.speech_width} numbers of speech"
                f" and {dims.text_width} of text, its encoders give {given[0]} and {given[1]};"
                f" {COPY_AGAIN}"
            )

    @property
    def labels(self) -> tuple[str, ...]:
        return self.bundle.labels

    @property
    def context(self) -> int:
        """Turns that are looked at, the current one included."""
        return max(member.config.context for member in self.bundle.members)

    @property
    def with_speakers(self) -> bool:
        """Whether it reads who speaks: every turn then needs its speaker."""
        return any(member.text_recipe.get("speakers") for member in self.bundle.members)

    @property
    def is_light(self) -> bool:
        """Whether both encoders are the built-in ones, which one thread runs in milliseconds."""
        used = {
            recipe["encoder"]
            for member in self.bundle.members
            for recipe in (member.audio_recipe, member.text_recipe)
        }
        return used <= {"fbank", "char-ngram"}

    def hear(self, audio: Audio) -> Speech:
        """Encode speech, to use it for several predictions. Raises FileNotFoundError or
        AudioError.
        """
        if isinstance(audio, Speech):
            return audio
        if isinstance(audio, bytes):
            audio = decode_speech(audio, "the speech")
        wave = read_speech(audio) if isinstance(audio, Path) else audio
        features: dict[str, Encoded] = {}
        for identity, encoder in self._speech.items():
            wanted = {
                recipe["feature"]: recipe_hash(recipe)
                for recipe in self._heard
                if identity_of(recipe) == identity
            }
            for name, frames in encoder.encode(wave, list(wanted)).items():
                kept = encoded(frames, "audio", encoder.frames_per_mean(name))
                features[wanted[name]] = kept
        return Speech(features)

    def predict(
        self,
        audio: Audio,
        text: str,
        history: Sequence[Turn] = (),
        *,
        speaker: str | None = None,
    ) -> dict[str, float]:
        """Probability of each class for one utterance.

        `history` holds the turns before, oldest first, as (audio or None, text) or (audio or None,
        text, speaker). Turns beyond the bundle's context are not used. Speakers are read by bundles
        of features `--with-speakers` alone; these raise ValueError for a turn without one, and take
        "" where nobody knows. Raises FileNotFoundError or AudioError.
        """
        return self._answer([(audio, text, history, speaker)], self.hear)[0]

    def predict_many(self, utterances: Sequence[Utterance]) -> list[dict[str, float]]:
        """The same for many (audio, text), (audio, text, history) or (audio, text, history,
        speaker), in their order; models see them in batches.
        """
        remembered = functools.lru_cache(maxsize=_REMEMBERED_CLIPS)(lambda path: self.hear(path))

        def hear(audio: Audio) -> Speech:
            return remembered(audio) if isinstance(audio, Path) else self.hear(audio)

        found: list[dict[str, float]] = []
        for start in range(0, len(utterances), _BATCH_SIZE):
            found += self._answer(utterances[start : start + _BATCH_SIZE], hear)
        return found

    def predict_dialogue(self, turns: Sequence[Turn]) -> list[dict[str, float] | None]:
        """The same for each turn of a dialogue, oldest first, each with the turns before it; None
        where a turn has no speech.

        Every clip is encoded once.
        """
        self._check_speakers(turns)
        heard = [
            (None if audio is None else self.hear(audio), text, speaker)
            for audio, text, speaker in map(_named, turns)
        ]
        spoken = [place for place, (audio, _, _) in enumerate(heard) if audio is not None]
        earlier = [heard[max(0, place + 1 - self.context) : place] for place in spoken]
        queries: list[Utterance] = [
            (audio, text, before, speaker)
            for place, before in zip(spoken, earlier, strict=True)
            for audio, text, speaker in [heard[place]]
            if audio is not None
        ]
        found: list[dict[str, float] | None] = [None] * len(turns)
        for place, answer in zip(spoken, self.predict_many(queries), strict=True):
            found[place] = answer
        return found

    def inputs(self, member: Bundle, utterances: Sequence[Utterance]) -> Batch:
        """What a member's model (or its model.onnx) takes, of utterances as `predict_many` has
        them; labels are zeros.
        """
        return self._inputs(member, utterances, self.hear)

    def _check_speakers(self, turns: Sequence[Turn]) -> None:
        """Raises ValueError where the bundle reads who speaks and a turn does not say."""
        for _, text, speaker in map(_named, turns) if self.with_speakers else ():
            if speaker is None:
                raise ValueError(
                    f"bundle {self.bundle.name!r} reads who speaks, and the turn {text[:40]!r} has"
                    " no speaker; give each turn one, '' where nobody knows (--speaker and"
                    " --history-speaker, a column or field speaker, speaker= from Python)"
                )

    def _answer(
        self, utterances: Sequence[Utterance], hear: Callable[[Audio], Speech]
    ) -> list[dict[str, float]]:
        with torch.inference_mode():
            found = [
                forward(member.model, self._inputs(member, utterances, hear)).softmax(dim=-1)
                for member in self.bundle.members
            ]
            mean = mean_answer(self.bundle, found)
        rows = mean.tolist()
        if self._temperature is not None:
            rows = with_temperature(mean.numpy(), self._temperature).tolist()
        return [dict(zip(self.labels, row, strict=True)) for row in rows]

    def _inputs(
        self, member: Bundle, utterances: Sequence[Utterance], hear: Callable[[Audio], Speech]
    ) -> Batch:
        config, dims, recipe = member.config, member.dims, member.audio_recipe
        feature = recipe_hash(recipe)
        pooling = config.pooling or "mean", config.layer_mix or "one"
        reader = self._text[identity_of(member.text_recipe)].for_context(config.context)
        with_speakers = member.text_recipe.get("speakers", False)
        speech: list[npt.NDArray[np.float16]] = []
        speech_masks: list[npt.NDArray[np.bool_]] = []
        words: list[npt.NDArray[np.float16]] = []
        for audio, text, *rest in utterances:
            before, speaker = _rest(*rest)
            earlier = list(reversed(before))[: config.context - 1]
            turns: list[Turn] = [(audio, text, speaker), *earlier]
            if with_speakers:
                self._check_speakers(turns)
                lines = [with_speaker(name or "", line) for _, line, name in map(_named, turns)]
            else:
                lines = [turn[1] for turn in turns]
            tokens = encoded(reader.encode(lines), "text")
            if config.is_pooled and config.takes_frames:
                heard_turns = [
                    None
                    if clip is None
                    else hear(clip).features[feature].values[: dims.speech_positions]
                    for clip, *_ in turns
                ]
                frames, mask = _side_by_side(heard_turns, config.context, dims.speech_width)
                speech.append(frames)
                speech_masks.append(mask)
                words.append(tokens.pooled)
            elif config.is_pooled:
                vectors = np.zeros((config.context, dims.speech_width), dtype=np.float16)
                mask = np.zeros(config.context, dtype=bool)
                for place, (clip, *_) in enumerate(turns):
                    if clip is not None:
                        heard_clip = hear(clip).features[feature]
                        vectors[place] = speech_vector(heard_clip, recipe, *pooling)
                        mask[place] = True
                speech.append(vectors)
                speech_masks.append(mask)
                words.append(tokens.pooled)
            else:
                frames = hear(audio).features[feature].values[: dims.speech_positions]
                speech.append(frames)
                speech_masks.append(np.ones(len(frames), dtype=bool))
                words.append(tokens.values[: dims.text_positions])
        text_masks = [
            np.ones(1 if config.is_pooled else len(tokens), dtype=bool) for tokens in words
        ]
        heard, heard_mask, read, read_mask = (
            _padded(rows) for rows in (speech, speech_masks, words, text_masks)
        )
        if config.inputs == "text":
            heard, heard_mask = without_input(heard, heard_mask, config.takes_frames)
        elif config.inputs == "speech":
            read, read_mask = without_input(read, read_mask, not config.is_pooled)
        labels = torch.zeros(len(words), dims.num_classes)
        return Batch(heard, heard_mask, read, read_mask, labels)


def _rest(
    before: Sequence[Turn] = (), speaker: str | None = None
) -> tuple[Sequence[Turn], str | None]:
    """What an utterance may have behind its speech and text."""
    return before, speaker


def _named(turn: Turn) -> tuple[Audio | None, str, str | None]:
    return turn if len(turn) == 3 else (*turn, None)


def _side_by_side(
    turns: Sequence[npt.NDArray[np.float16] | None], context: int, width: int
) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.bool_]]:
    """Frames (T, F) of each turn -> (K, A, F), zeros behind them, and where they are, (K, A)."""
    longest = max(len(turn) for turn in turns if turn is not None)
    frames = np.zeros((context, longest, width), dtype=np.float16)
    mask = np.zeros((context, longest), dtype=bool)
    for place, turn in enumerate(turns):
        if turn is not None:
            frames[place, : len(turn)], mask[place, : len(turn)] = turn, True
    return frames, mask


def _padded(rows: Sequence[npt.NDArray[Any]]) -> torch.Tensor:
    """(B, ...) with zeros behind what is shorter along any axis, float16 as float32."""
    longest = np.max([row.shape for row in rows], axis=0)
    dtype = bool if rows[0].dtype == bool else np.float32
    whole = np.zeros((len(rows), *longest), dtype=dtype)
    for place, row in enumerate(rows):
        own = tuple(slice(length) for length in row.shape)
        whole[place][own] = row
    return torch.from_numpy(whole)
