"""`mmm prepare ravdess`, `crema-d` and `emodb`: acted clips whose file names say all there is to
know: who speaks, which sentence, which emotion.

Each clip is a dialogue of its own and a session is a speaker. They are dealt to splits by speaker.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mmm.corpora.account import Account, is_stray, usable_sound
from mmm.corpora.clips import FORMATS, clips_by
from mmm.corpora.label_sets import CREMA_D, EMODB, NAMED, RAVDESS
from mmm.corpora.options import PrepareOptions
from mmm.corpora.prepared import PLACE, Prepared, prepare
from mmm.faults import Faults
from mmm.manifest import ManifestError

# Livingstone and Russo 2018: modality, vocal channel, emotion, intensity, statement, repetition,
# actor; odd actors are male.
_RAVDESS = re.compile(
    r"(?P<modality>0[1-3])-(?P<channel>0[12])-(?P<emotion>[0-9]{2})-[0-9]{2}-(?P<sentence>0[12])"
    r"-[0-9]{2}-(?P<speaker>[0-9]{2})"
)
_RAVDESS_TEXTS = {"01": "Kids are talking by the door.", "02": "Dogs are sitting by the door."}
# Cao et al. 2014: actor, sentence, emotion, intensity.
_CREMA_D = re.compile(
    r"(?P<speaker>1[0-9]{3})_(?P<sentence>[A-Z]{3})_(?P<emotion>[A-Z]{3})_(?:LO|MD|HI|XX?)"
)
_CREMA_D_TEXTS = {
    "IEO": "It's eleven o'clock.",
    "TIE": "That is exactly what happened.",
    "IOM": "I'm on my way to the meeting.",
    "IWW": "I wonder what this is about.",
    "TAI": "The airplane is almost full.",
    "MTI": "Maybe tomorrow it will be cold.",
    "IWL": "I would like a new alarm clock.",
    "ITH": "I think I have a doctor's appointment.",
    "DFA": "Don't forget a jacket.",
    "ITS": "I think I've seen this before.",
    "TSI": "The surface is slick.",
    "WSI": "We'll stop in a couple of minutes.",
}
# Burkhardt et al. 2005: speaker, sentence, emotion, version.
_EMODB = re.compile(r"(?P<speaker>[0-9]{2})(?P<sentence>[ab][0-9]{2})(?P<emotion>[A-Z])[a-z]")
_EMODB_TEXTS = {
    "a01": "Der Lappen liegt auf dem Eisschrank.",
    "a02": "Das will sie am Mittwoch abgeben.",
    "a04": "Heute abend könnte ich es ihm sagen.",
    "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück.",
    "a07": "In sieben Stunden wird es soweit sein.",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
}


@dataclass(frozen=True)
class _Corpus:
    """`name` has the groups speaker, sentence and emotion; `texts` are the sentences by their
    codes; `skip` says why a clip is not read, or nothing.
    """

    title: str
    name: re.Pattern[str]
    example: str
    labels: Mapping[str, str]
    texts: Mapping[str, str]
    speaker: str
    skip: Callable[[re.Match[str]], str] = lambda match: ""


def _of_ravdess(match: re.Match[str]) -> str:
    if match["channel"] == "02":
        return "songs (vocal channel 02)"
    return "films without sound (modality 02)" if match["modality"] == "02" else ""


_RAVDESS_CORPUS = _Corpus(
    "RAVDESS",
    _RAVDESS,
    "03-01-06-01-02-01-12.wav",
    {**NAMED, **RAVDESS, "calm": "calm"},
    _RAVDESS_TEXTS,
    "Actor_{}",
    _of_ravdess,
)
_CREMA_D_CORPUS = _Corpus(
    "CREMA-D", _CREMA_D, "1001_DFA_ANG_XX.wav", {**NAMED, **CREMA_D}, _CREMA_D_TEXTS, "{}"
)
_EMODB_CORPUS = _Corpus(
    "EmoDB",
    _EMODB,
    "03a01Fa.wav",
    {**NAMED, **EMODB, "boredom": "boredom"},
    _EMODB_TEXTS,
    "speaker{}",
)


def prepare_ravdess(path: Path, options: PrepareOptions | None = None) -> Prepared:
    """Read RAVDESS' speech. Raises FileNotFoundError, or ManifestError with every fault."""
    return _read(path, _RAVDESS_CORPUS, options)


def prepare_crema_d(path: Path, options: PrepareOptions | None = None) -> Prepared:
    """Read CREMA-D. Raises FileNotFoundError, or ManifestError with every fault."""
    return _read(path, _CREMA_D_CORPUS, options)


def prepare_emodb(path: Path, options: PrepareOptions | None = None) -> Prepared:
    """Read EmoDB. Raises FileNotFoundError, or ManifestError with every fault."""
    return _read(path, _EMODB_CORPUS, options)


def _read(path: Path, corpus: _Corpus, options: PrepareOptions | None) -> Prepared:
    if not path.is_dir():
        raise FileNotFoundError(
            f"{path}: no such folder; expected the one with {corpus.title}'s clips, such as"
            f" {corpus.example}"
        )
    prepared = prepare(path, options or PrepareOptions(), corpus.labels)
    prepared.split_by = prepared.fold_by = "speaker"
    account = prepared.account
    files = [file for file in sorted(path.rglob("*")) if file.is_file()]
    named, twice = clips_by(path, files, lambda file: _name_of(file, corpus, account), account)
    _account_for_others(path, files, corpus, account)
    faults = Faults()
    for stem, clip in named.items():
        match = corpus.name.fullmatch(stem)
        assert match, stem
        where = str(clip.relative_to(path))
        if why := corpus.skip(match):
            account.leave_out(why, where)
            continue
        if match["sentence"] not in corpus.texts:
            expected = f"expected one of {', '.join(corpus.texts)}"
            faults.add(f"unknown sentence {match['sentence']!r}", where, expected)
            continue
        emotions = prepared.labels.read(match["emotion"], where, faults)
        if emotions is None or usable_sound(clip, account, where) is None:
            continue
        speaker = corpus.speaker.format(match["speaker"])
        prepared.rows.append(
            {
                "utterance_id": stem,
                "dialogue_id": stem,
                "turn": "0",
                "session": speaker,
                "speaker": speaker,
                "text": corpus.texts[match["sentence"]],
                "audio": str(clip.resolve()),
                "emotion": ";".join(emotions),
                "split": "",
                PLACE: where,
            }
        )
    if twice or faults:
        raise ManifestError(path, [*twice, *faults.texts()])
    if not prepared.rows:
        raise ManifestError(
            path, [f"no clip of {corpus.title} that can be used; expected {corpus.example}"]
        )
    return prepared


def _name_of(file: Path, corpus: _Corpus, account: Account) -> str | None:
    if corpus.name.fullmatch(file.stem):
        return file.stem
    if not is_stray(file.name):
        account.leave_out(f"sound files that are not named as {corpus.title}'s", file.name)
    return None


def _account_for_others(path: Path, files: list[Path], corpus: _Corpus, account: Account) -> None:
    for file in files:
        where = str(file.relative_to(path))
        if is_stray(file.name):
            account.leave_out("stray files", where)
        elif corpus.name.fullmatch(file.stem) and file.suffix.lower() not in FORMATS:
            account.leave_out(f"clips as {file.suffix}, which is not read", where)
