"""A made-up conversation corpus in which speech, text and context each tell a part of the emotion.

An emotion is a situation, which the words tell, and an excitement, which the voice tells:

                 calm       loud     high
    pleasant     neutral    happy    surprise
    hostile      disgust    angry
    threatening  sad                 fear

Emotions run on from turn to turn, and half of the turns are fillers ("yes I see") whose words tell
nothing: there only an earlier turn tells the situation. Speakers differ in pitch and loudness.
benchmarks/demo_ablation.py measures it.
"""

import io
import re
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import soundfile

from mmm.files import new_directory, sha256_of_file, write_json
from mmm.manifest import COLUMNS, SPLITS

SAMPLE_RATE_HZ = 16_000
_VERSION = 1  # raise it when the corpus of a seed changes
_DIALOGUES_A_SESSION = 4
_TURNS = (9, 13)  # fewest and most of a dialogue
_HELD_OUT_SHARE = 0.21  # of the sessions for dev, and again for test: 5 and 5 of 24
_MIN_SESSIONS, _MAX_SESSIONS = 3, 999
_CLIP = re.compile(r"session\d+_dialogue\d+_turn\d+\.wav")
_ENTRIES = {"audio", "demo.json", "manifest.csv"}

SITUATION = {"neutral": 0, "happy": 0, "surprise": 0, "angry": 1, "disgust": 1, "sad": 2, "fear": 2}
VOICE = {"neutral": 0, "disgust": 0, "sad": 0, "happy": 1, "angry": 1, "surprise": 2, "fear": 2}
# Neutral is 7 of 26.
_SHARE = {"neutral": 7, "happy": 4, "surprise": 3, "angry": 3, "sad": 3, "disgust": 3, "fear": 3}

_PERSISTENCE = 0.82  # chance that a turn keeps the emotion of the turn before it
_FILLER_CHANCE = 0.7  # of a turn that may be a filler, which leaves about half of all turns
# On end, so that of three turns one has words that tell; a dialogue opens with such words.
_MOST_FILLERS = 2
_MISLEADING_SHARE = 0.05  # of the other turns: words of another situation, as in irony


def phrases_in(text: str) -> list[str]:
    """`one; another` -> ["one", "another"]."""
    return text.split("; ")


_FILLERS = phrases_in(
    "okay; yes I see; right; well then; hm okay; I know; so it is; yes right; ah I see; you know; "
    "oh well; and then; is that so; let me see; hm yes; go on"
)
_OPENERS = (*[""] * 8, "well", "so", "you know", "oh")
# By situation.
_PHRASES = [
    phrases_in(
        "lovely garden; dinner was delicious; our holiday starts; my friend is coming; "
        "a gift arrived; she passed; lovely concert; sunny morning; the baby is smiling; "
        "my friend won; a delicious gift; holiday morning"
    ),
    phrases_in(
        "you broke it; he lied; filthy kitchen; they cheated; stop shouting; rotten thief; "
        "you never clean; he stole it; what a disgrace; filthy liar; rotten food; stop cheating"
    ),
    phrases_in(
        "grandfather is in hospital; steps outside; we lost the house; somebody is following; "
        "the funeral is tomorrow; I am all alone; the lights went out; lost and alone; "
        "hospital tomorrow; a dark house; the storm comes closer; somebody died"
    ),
]

# By voice (calm, loud, high); each utterance strays from its voice's means by the deviations below.
PITCH_FACTOR = np.array([0.95, 1.10, 1.45])
LOUDNESS_DB = np.array([-6.0, 4.0, -1.0])
RATE_HZ = np.array([3.6, 4.6, 5.6])  # syllables a second
BRIGHTNESS = np.array([0.62, 0.84, 0.74])  # each harmonic's amplitude over that of the one below it
_PITCH_SD, _LOUDNESS_SD_DB, _RATE_SD_HZ, _BRIGHTNESS_SD = 0.11, 3.6, 0.5, 0.06
_SPEAKER_LOUDNESS_SD_DB = 2.0
_SYLLABLES_A_WORD = 1.6
_SECONDS = (0.6, 2.0)  # shortest and longest utterance

Floats = npt.NDArray[np.float32]


def _emotions(rng: np.random.Generator, spoken: Counter[str], num_turns: int) -> list[str]:
    """Emotions of a dialogue's turns, which are added to `spoken`, the counts of its split."""
    found: list[str] = []
    for _ in range(num_turns):
        # The one furthest behind its share: runs drawn freely would starve some class of a split
        # this small.
        next_emotion = min(_SHARE, key=lambda name: spoken[name] / _SHARE[name])
        found.append(found[-1] if found and rng.random() < _PERSISTENCE else next_emotion)
        spoken[found[-1]] += 1
    return found


def _texts(rng: np.random.Generator, emotions: list[str]) -> list[str]:
    found: list[str] = []
    num_fillers = _MOST_FILLERS
    for emotion in emotions:
        if num_fillers < _MOST_FILLERS and rng.random() < _FILLER_CHANCE:
            num_fillers += 1
            found.append(str(rng.choice(_FILLERS)))
            continue
        num_fillers = 0
        situation = SITUATION[emotion]
        if rng.random() < _MISLEADING_SHARE:
            situation = int(rng.integers(len(_PHRASES)))
        found.append(f"{rng.choice(_OPENERS)} {rng.choice(_PHRASES[situation])}".strip())
    return found


def _speech(
    rng: np.random.Generator, emotion: str, num_words: int, pitch_hz: float, loudness_db: float
) -> Floats:
    """(S,) samples: harmonics under an envelope of syllables, breath noise beside them."""
    voice = VOICE[emotion]
    pitch_hz *= PITCH_FACTOR[voice] * np.exp(rng.normal(0, _PITCH_SD))
    loudness_db += rng.normal(LOUDNESS_DB[voice], _LOUDNESS_SD_DB)
    rate_hz = max(2.0, rng.normal(RATE_HZ[voice], _RATE_SD_HZ))
    brightness = np.clip(rng.normal(BRIGHTNESS[voice], _BRIGHTNESS_SD), 0.3, 0.92)
    seconds = np.clip(_SYLLABLES_A_WORD * num_words / rate_hz, *_SECONDS)
    time = np.arange(round(seconds * SAMPLE_RATE_HZ), dtype=np.float32) / np.float32(SAMPLE_RATE_HZ)
    vibrato = 0.03 * np.sin(2 * np.pi * 5.0 * time + rng.uniform(0, 2 * np.pi))
    # Speech falls towards its end; float64 because a phase of thousands of radians is to keep its
    # decimals.
    bent = pitch_hz * (1.06 - 0.12 * time / seconds + vibrato)
    phase = np.cumsum(bent, dtype=np.float64) * (2 * np.pi / SAMPLE_RATE_HZ) % (2 * np.pi)
    phase32 = phase.astype(np.float32)
    # The sum over k of brightness^k sin(k phase), in its closed form: all harmonics at the price of
    # one.
    below = 1 - 2 * brightness * np.cos(phase32) + brightness**2
    harmonics = brightness * np.sin(phase32) / below
    syllables = 0.25 + 0.75 * np.sin(np.pi * rate_hz * time) ** 2
    edges = np.minimum(1.0, np.minimum(time, time[::-1]) / 0.03)
    noise = rng.standard_normal(len(time), dtype=np.float32)
    loudness = 0.05 * 10 ** (loudness_db / 20)
    wave = (harmonics + 0.05 * noise) * syllables * edges * loudness + 0.0005 * noise
    samples: Floats = np.clip(wave, -1.0, 1.0).astype(np.float32)
    return samples


def _split(session: int, num_sessions: int) -> str:
    num_held_out = max(1, round(num_sessions * _HELD_OUT_SHARE))
    if session >= num_sessions - num_held_out:
        return "test"
    return "dev" if session >= num_sessions - 2 * num_held_out else "train"


def _write(folder: Path, num_sessions: int, rng: np.random.Generator) -> None:
    (folder / "audio").mkdir()
    spoken: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    rows: list[tuple[str, ...]] = []
    for session in range(num_sessions):
        name, split = f"session{session + 1:02d}", _split(session, num_sessions)
        # One lower and one higher voice a session, as in most dialogue corpora.
        voices = [
            (rng.uniform(low, high), rng.normal(0, _SPEAKER_LOUDNESS_SD_DB))
            for low, high in ((95, 140), (165, 230))
        ]
        for dialogue in range(_DIALOGUES_A_SESSION):
            first = int(rng.integers(2))
            emotions = _emotions(rng, spoken[split], int(rng.integers(_TURNS[0], _TURNS[1] + 1)))
            texts = _texts(rng, emotions)
            for turn, (emotion, text) in enumerate(zip(emotions, texts, strict=True)):
                speaker = (first + turn) % 2
                wave = _speech(rng, emotion, len(text.split()), *voices[speaker])
                dialogue_id = f"{name}_dialogue{dialogue + 1}"
                utterance_id = f"{dialogue_id}_turn{turn + 1:02d}"
                audio = f"audio/{utterance_id}.wav"
                sound = io.BytesIO()  # libsndfile by itself does not say that a disk is full
                soundfile.write(sound, wave, SAMPLE_RATE_HZ, format="WAV", subtype="PCM_16")
                (folder / audio).write_bytes(sound.getbuffer())
                who = f"{name}_{'AB'[speaker]}"
                said = (utterance_id, dialogue_id, str(turn + 1), name, who, text, audio, emotion)
                rows.append((*said, split))
    pd.DataFrame(rows, columns=[*COLUMNS, "split"]).to_csv(
        folder / "manifest.csv", index=False, lineterminator="\n"
    )


def _foreign(folder: Path) -> list[str]:
    """What a non-empty folder holds, lacks or has changed that makes it other than a demo corpus as
    it was written.
    """
    found = {entry.name for entry in folder.iterdir()}
    if found != _ENTRIES:
        return sorted(found - _ENTRIES) or [f"no {name}" for name in sorted(_ENTRIES - found)]
    if not (folder / "audio").is_dir():
        return ["audio is no folder"]
    recorded = (folder / "demo.json").read_text(errors="replace")
    if sha256_of_file(folder / "manifest.csv") not in recorded:
        return ["manifest.csv is not as written"]
    names = sorted(path.name for path in (folder / "audio").iterdir())
    return [f"audio/{name}" for name in names if not _CLIP.fullmatch(name)]


def make_demo_corpus(out: Path, *, num_sessions: int = 24, seed: int = 1) -> Path:
    """Write the corpus to the folder `out`, complete or not at all, and return its manifest's path.

    24 sessions are about 1,050 utterances of 0.6 to 2 s. Splits are by session and share no
    speaker; from 8 sessions on each has every emotion. A demo corpus that is there is replaced;
    raises ValueError rather than touch anything else, and for numbers out of range.
    """
    if not _MIN_SESSIONS <= num_sessions <= _MAX_SESSIONS:
        raise ValueError(
            f"num_sessions={num_sessions} is out of range; expected {_MIN_SESSIONS} to"
            f" {_MAX_SESSIONS}"
        )
    if seed < 0:
        raise ValueError(f"seed={seed} is out of range; expected at least 0")
    target = out.resolve()
    if target.exists() and not target.is_dir():
        raise ValueError(f"{out}: a file is in the way; expected a new or empty folder")
    # Whoever put features or recordings into the corpus' own folder, or relabelled it, must not
    # lose that either.
    if target.is_dir() and any(target.iterdir()) and (foreign := _foreign(target)):
        shown = ", ".join(foreign[:3])
        raise ValueError(
            f"{out}: not empty and not just a demo corpus (found: {shown}); name a new folder or"
            " empty it"
        )
    with new_directory(target) as folder:
        _write(folder, num_sessions, np.random.default_rng(seed))
        about = {"corpus": "demo", "version": _VERSION, "num_sessions": num_sessions, "seed": seed}
        digest = sha256_of_file(folder / "manifest.csv")
        write_json(folder / "demo.json", {**about, "manifest_sha256": digest})
    return out / "manifest.csv"
