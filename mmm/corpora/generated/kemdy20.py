"""A made-up corpus in KEMDy20's layout, of its size or smaller, with its class counts, durations,
ties and defects.

mmm/corpora/generated/kemdy20_segments.py decides what is said; here it is spoken, rated and written
as the real files are.
"""

import shutil
import tempfile
import wave
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mmm.corpora.generated.demo import BRIGHTNESS, LOUDNESS_DB, PITCH_FACTOR, VOICE
from mmm.corpora.generated.kemdy20_segments import (
    CLASS_COUNTS,
    MAX_SCRIPTS,
    MAX_SESSIONS,
    Segment,
    num_segments,
    plan,
)
from mmm.corpora.kemdy20 import NUM_RATERS
from mmm.files import write_json

SAMPLE_RATE_HZ = 16_000
MEAN_SECONDS = 5.87
_VERSION = 1
_TAGS_ALONE = 0.004  # of the transcripts, and one at least
_VALENCE_AROUSAL = {
    "neutral": (3.0, 2.9),
    "happy": (3.9, 3.6),
    "surprise": (3.3, 3.9),
    "angry": (1.9, 4.0),
    "sad": (2.0, 2.1),
    "disgust": (2.1, 3.2),
    "fear": (2.1, 3.7),
}
# How far an utterance strays from its voice's means, as in the small demo corpus.
_PITCH_SD, _LOUDNESS_SD_DB, _BRIGHTNESS_SD = 0.11, 3.6, 0.06
_PAUSE_S, _PHRASE_S = 0.25, 2.5
_COARSE = SAMPLE_RATE_HZ // 100  # samples between points of what moves slowly
_HEADERS = (
    "Numb,Wav, ,Segment ID,Total Evaluation, , ,"
    + ",".join(f"Eval{rater + 1:02}{'FMMFFMFFMM'[rater]}, , " for rater in range(NUM_RATERS)),
    " ,start,end, " + ",Emotion,Valence,Arousal" * (NUM_RATERS + 1),
)

Floats = npt.NDArray[np.float32]


def num_bytes(num_sessions: int, num_scripts: int) -> int:
    """About how much disk the wav files take."""
    return round(num_segments(num_sessions, num_scripts) * MEAN_SECONDS * SAMPLE_RATE_HZ * 2)


def make_kemdy20_demo(
    out: Path, *, num_sessions: int = 40, num_scripts: int = 6, seed: int = 1
) -> Iterator[tuple[int, int]]:
    """Write annotation/ and wav/ to the new or empty folder `out`, complete or not at all; yields
    (done, all) utterances.

    Raises ValueError for numbers out of range, a folder that is not empty, or a disk that is too
    full.
    """
    if not 3 <= num_sessions <= MAX_SESSIONS:
        raise ValueError(
            f"--sessions {num_sessions} is out of range; expected 3 to {MAX_SESSIONS} in KEMDy20's"
            " layout"
        )
    if not 1 <= num_scripts <= MAX_SCRIPTS:
        raise ValueError(f"--scripts {num_scripts} is out of range; expected 1 to {MAX_SCRIPTS}")
    if seed < 0:
        raise ValueError(f"--seed {seed} is out of range; expected at least 0")
    target = out.resolve()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"{out}: not an empty folder; name a new one")
    target.parent.mkdir(parents=True, exist_ok=True)
    needed = num_bytes(num_sessions, num_scripts) * 1.05 + 1e8
    free = shutil.disk_usage(target.parent).free
    if needed > free:
        raise ValueError(
            f"{out}: needs about {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; take fewer"
            " --sessions or --scripts"
        )
    dialogues = plan(num_sessions, num_scripts, np.random.default_rng(seed))
    total = sum(map(len, dialogues.values()))
    # Not synced file by file as what cannot be made again is: 27 thousand syncs take longer than
    # all the speech.
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        for session in range(1, num_sessions + 1):
            (scratch / "wav" / f"Session{session:02}").mkdir(parents=True)
        with ThreadPoolExecutor() as pool:  # numpy lets go of the interpreter's lock
            jobs = [
                pool.submit(_write_dialogue, scratch, segments, [seed, session, script])
                for (session, script), segments in dialogues.items()
            ]
            done = 0
            try:
                for job in as_completed(jobs):
                    done += job.result()
                    yield done, total
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        _write_annotations(scratch, dialogues, np.random.default_rng([seed, 0]))
        for name in (".DS_Store", "Thumbs.db"):
            (scratch / "wav" / "Session03" / name).write_bytes(b"\0\0\0\1Bud1")
        about = {"corpus": "kemdy20-demo", "version": _VERSION, "num_sessions": num_sessions}
        write_json(scratch / "demo.json", {**about, "num_scripts": num_scripts, "seed": seed})
        scratch.chmod(0o755)
        if target.exists():
            target.rmdir()
        scratch.rename(target)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def _write_dialogue(folder: Path, segments: Sequence[Segment], seed: Sequence[int]) -> int:
    rng = np.random.default_rng(seed)
    for segment in segments:
        path = folder / "wav" / f"Session{segment.identity[4:6]}" / f"{segment.identity}.wav"
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, SAMPLE_RATE_HZ, 0, "NONE", ""))
            file.writeframes(_speech(rng, segment).tobytes())
        path.with_suffix(".txt").write_bytes(f"{segment.text}\n".encode("cp949"))
    return len(segments)


def _speech(rng: np.random.Generator, segment: Segment) -> npt.NDArray[np.int16]:
    """(S,) samples: harmonics under an envelope of syllables and phrases, breath noise beside
    them.
    """
    voice = VOICE[segment.told]
    pitch_hz = segment.voice[0] * PITCH_FACTOR[voice] * np.exp(rng.normal(0, _PITCH_SD))
    loudness_db = segment.voice[1] + rng.normal(LOUDNESS_DB[voice], _LOUDNESS_SD_DB)
    brightness = np.float32(np.clip(rng.normal(BRIGHTNESS[voice], _BRIGHTNESS_SD), 0.3, 0.92))
    num_samples = round(segment.seconds * SAMPLE_RATE_HZ)
    # What moves slowly is drawn 100 times a second and joined by straight lines.
    coarse = np.arange(num_samples // _COARSE + 2) * (_COARSE / SAMPLE_RATE_HZ)
    within = (coarse + rng.uniform(0, _PHRASE_S)) % _PHRASE_S  # pitch falls over each phrase
    vibrato = 0.03 * np.sin(2 * np.pi * 5.0 * coarse + rng.uniform(0, 2 * np.pi))
    bent = pitch_hz * (1.06 - 0.12 * within / _PHRASE_S + vibrato)
    syllables = 0.25 + 0.75 * np.sin(np.pi * segment.rate_hz * coarse) ** 2
    envelope = syllables * np.clip(within / _PAUSE_S, 0.02, 1.0)
    edges = np.clip(np.minimum(coarse, segment.seconds - coarse) / 0.03, 0.0, 1.0)
    envelope *= edges * (0.05 * 10 ** (loudness_db / 20))
    steps = (bent[1:] + bent[:-1]) * (np.pi * _COARSE / SAMPLE_RATE_HZ)
    starts = np.concatenate([[0.0], np.cumsum(steps)[:-1]]) % (2 * np.pi)
    phase = _straight(starts, steps)[:num_samples]
    smooth = _straight(envelope[:-1], np.diff(envelope))[:num_samples]
    noise = rng.standard_normal(num_samples, dtype=np.float32)
    # The sum over k of brightness^k sin(k phase), in its closed form: all harmonics at the price of
    # one.
    below = 1 - 2 * brightness * np.cos(phase) + brightness * brightness
    sound = brightness * np.sin(phase) / below
    sound += np.float32(0.05) * noise
    sound *= smooth
    sound += np.float32(0.0005) * noise
    sound *= np.float32(32767.0)
    samples: npt.NDArray[np.int16] = np.clip(sound, -32767, 32767).astype("<i2")
    return samples


def _straight(starts: npt.NDArray[np.float64], steps: npt.NDArray[np.float64]) -> Floats:
    """Lines of _COARSE samples each, from each start up by its step."""
    ramp = np.arange(_COARSE, dtype=np.float32) / np.float32(_COARSE)
    lines: Floats = starts.astype(np.float32)[:, None] + steps.astype(np.float32)[:, None] * ramp
    return lines.ravel()


def _votes(rng: np.random.Generator, emotions: tuple[str, ...]) -> list[str]:
    """Ten votes whose most frequent classes are exactly `emotions`, in the order of their first
    mention.
    """
    others = [name for name in CLASS_COUNTS if name not in emotions]
    if len(emotions) == 1:
        most = int(rng.choice([5, 6, 7, 8, 9, 10], p=[0.05, 0.1, 0.15, 0.2, 0.25, 0.25]))
    else:
        most = int(rng.choice([4, 5]))
    votes = [name for name in emotions for _ in range(most)]
    while len(votes) < NUM_RATERS:
        name = "neutral"
        if "neutral" not in others or rng.random() >= 0.7:
            name = others[int(rng.integers(len(others)))]
        if votes.count(name) < most - 1:
            votes.append(name)
    return votes


def _rating(rng: np.random.Generator, emotions: tuple[str, ...]) -> list[int]:
    """A rater's valence and arousal, 1 to 5."""
    means = np.mean([_VALENCE_AROUSAL[name] for name in emotions], axis=0)
    return [int(np.clip(round(rng.normal(mean, 0.7)), 1, 5)) for mean in means]


def _write_annotations(
    folder: Path, dialogues: dict[tuple[int, int], list[Segment]], rng: np.random.Generator
) -> None:
    (folder / "annotation").mkdir()
    sessions = sorted({session for session, _ in dialogues})
    everything = [segment for segments in dialogues.values() for segment in segments]
    for index in rng.permutation(len(everything))[: max(1, round(_TAGS_ALONE * len(everything)))]:
        identity = everything[index].identity
        transcript = folder / "wav" / f"Session{identity[4:6]}" / f"{identity}.txt"
        transcript.write_bytes("n/ u/\n".encode("cp949"))
    for session in sessions:
        lines = list(_HEADERS)
        for (number, _), segments in sorted(dialogues.items()):
            start_s = 1.5
            for segment in segments if number == session else ():
                votes = _votes(rng, segment.emotions)
                ratings = [_rating(rng, segment.emotions) for _ in votes]
                means = [sum(pair[axis] for pair in ratings) / len(ratings) for axis in (0, 1)]
                identity = segment.identity
                if session == min(17, len(sessions) - 1):
                    identity = f"Sess42{identity[6:]}"  # as Sess17_eval.csv names its segments
                fields = [
                    str(len(lines) - 1),
                    f"{start_s:.7f}",
                    f"{start_s + segment.seconds:.6f}",
                    identity,
                    ";".join(segment.emotions),
                    *(f"{mean:.1f}" for mean in means),
                ]
                for vote, pair in zip(votes, ratings, strict=True):
                    fields += [vote, *map(str, pair)]
                # Spelt as in the real files.
                lines.append(",".join(fields).replace("disgust", "disqust"))
                start_s += segment.seconds + float(rng.uniform(0.05, 0.6))
        content = "\r\n".join(lines) + "\r\n"
        file = folder / "annotation" / f"Sess{session:02}_eval.csv"
        file.write_text(content, encoding="utf-8", newline="")
