"""The `mmm encode` that makes what is in a features folder: errors print it, and it has to repair
the fault as printed.
"""

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from mmm.features.recipe import AUDIO_FEATURES, CONTEXTS, LAYERS, Recipe, belongs_to

MANIFEST = Path("manifest.csv")  # where an error does not know which
# Entries of a recipe, their options, and what the command takes where nothing is said: a default
# need not be printed.
_SPEECH_OPTIONS = (
    ("revision", "--audio-revision", None),
    ("layer", "--layer", "last"),
    ("num_mels", "--num-mels", 64),
    ("chunk_s", "--chunk-seconds", 35.0),
    ("padding_s", "--whisper-padding", 30.0),
)
_FBANK_FRAME_RATE = 25.0
_CHAR_NGRAM_OPTIONS = (("width", "--text-width", 256), ("max_tokens", "--max-tokens", 128))


def encode_command(
    manifest: Path | str,
    features: Path | str,
    recipes: Iterable[Recipe] = (),
    *,
    contexts: Iterable[int] = (),
    audio_features: Iterable[str] = (),
    only: Literal["audio", "text"] | None = None,
) -> str:
    """The command that encodes a manifest with the encoders of `recipes`, quoted for a shell.

    Contexts and audio features are those of the recipes, unless it is said which are wanted.
    `only`: speech or text alone, by an encoder that the command names even where it is the default.
    """
    made = list(recipes)
    if only is not None:
        made = [recipe for recipe in made if recipe.get("kind") == only]
    options = encode_options(made, contexts=contexts, audio_features=audio_features)
    for kind, option in (("audio", "--audio-encoder"), ("text", "--text-encoder")):
        if made and only == kind and option not in options:
            options = [option, made[0]["encoder"], *options]
    options += {"audio": ["--speech-only"], "text": ["--text-only"], None: []}[only]
    return shlex.join(["mmm", "encode", str(manifest), "--features", str(features), *options])


def encode_options(
    recipes: Iterable[Recipe],
    *,
    contexts: Iterable[int] = (),
    audio_features: Iterable[str] = (),
) -> list[str]:
    """The options of the command. Of several encoders of a kind it names none: without their
    options the command takes those that the folder holds.
    """
    made = list(recipes)
    audio, text = (
        [recipe for recipe in made if recipe.get("kind") == kind] for kind in ("audio", "text")
    )
    words: list[str] = []
    precisions: list[str] = []
    if speech := _merged(audio):
        if speech["encoder"] == "fbank":
            words += _options(speech, [("frame_rate_hz", "--frame-rate", _FBANK_FRAME_RATE)])
        else:  # without a frame rate it keeps every frame
            words += ["--audio-encoder", speech["encoder"]]
            words += ["--frame-rate", _number(speech.get("frame_rate_hz", 0.0))]
        words += _options(speech, _SPEECH_OPTIONS)
        precisions += [speech["precision"]] if "precision" in speech else []
    if written := _merged(text):
        if written["encoder"] == "char-ngram":
            words += _options(written, _CHAR_NGRAM_OPTIONS)
        else:
            words += ["--text-encoder", written["encoder"]]
            words += _options(written, [("revision", "--text-revision", None)])
            own = written.get("pooling", "first")
            if own != "first" or (Path(written["encoder"]) / "1_Pooling").is_dir():
                words += ["--text-pooling", own]  # of earlier versions: not what the folder says
        words += ["--with-speakers"] if written.get("speakers") else []
        precisions += [written["precision"]] if "precision" in written else []
    if precisions:  # `auto` is another one on another machine
        words += ["--precision", precisions[0]]
        words += ["--device", "cuda"] if precisions[0] == "fp16" else []
    held = {recipe["feature"] for recipe in audio if "feature" in recipe} - {LAYERS}
    kept = set(audio_features) or (held if speech else set())
    if LAYERS in kept:  # each of them is an encoder of its own then, with its frames
        place = words.index("--layer") if "--layer" in words else len(words)
        words[place : place + 2] = ["--layers", "all"]
    elif kept and kept != set(AUDIO_FEATURES):
        words += ["--audio-feature", ",".join(name for name in AUDIO_FEATURES if name in kept)]
    held_contexts = {recipe["context"] for recipe in text if "context" in recipe}
    wanted = set(contexts) or (held_contexts if written else set())
    if wanted and wanted != set(CONTEXTS):
        words += ["--context", ",".join(map(str, sorted(wanted)))]
    return words


def _merged(recipes: Sequence[Recipe]) -> Recipe:
    """What the stores of one encoder say of it together: each leaves out what does not touch its
    features. Nothing where there are several encoders.
    """
    frames = [recipe for recipe in recipes if recipe.get("feature") in (None, AUDIO_FEATURES[0])]
    merged: Recipe = {}
    for recipe in [*frames, *recipes]:
        if not belongs_to((frames or list(recipes))[0], recipe):
            return {}
        merged = {**recipe, **merged}
    return merged


def _options(recipe: Recipe, options: Iterable[tuple[str, str, object]]) -> list[str]:
    return [
        word
        for name, option, usual in options
        if (value := recipe.get(name, usual)) not in (None, usual)
        for word in (option, _number(value))
    ]


def _number(value: object) -> str:
    """Without a needless fraction, but such that it reads as the same number again."""
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)
