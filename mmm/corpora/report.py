"""What is in a corpus: counts, lengths, ties, a majority baseline, and what leaks between splits.

Counts and lengths cover all splits, turns without a label too; what looks at labels one by one
leaves the sealed test split out.
"""

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmm.audio.sound import sound_info
from mmm.corpora.leaks import LINE_WORDS, Placed, leaks, repeated_texts
from mmm.labels import notes_of_test
from mmm.manifest import SPLITS, Manifest, natural_key
from mmm.metrics import classification_metrics, value_of

Table = tuple[str, tuple[str, ...], list[tuple[str, ...]]]  # title, header, rows
# Metrics of the majority baseline.
_MAJORITY = {
    "accuracy": "accuracy",
    "weighted_f1": "weighted F1",
    "macro_f1": "macro F1",
    "unweighted_recall": "UAR",
}
_LONGEST = 5


@dataclass(frozen=True)
class Group:
    """The utterances of a split, session or speaker."""

    name: str
    splits: tuple[str, ...]
    num_utterances: int
    num_dialogues: int
    num_speakers: int
    num_sessions: int
    hours: float
    num_tied: int
    num_unlabelled: int
    classes: dict[str, int]  # an utterance with several emotions counts for each

    def share(self, name: str) -> float:
        """Of the labelled utterances, those that have a label."""
        return self.classes[name] / max(1, self.num_utterances - self.num_unlabelled)


@dataclass(frozen=True)
class Report:
    """Facts of a corpus. `seconds` has a number an utterance, in the manifest's order."""

    manifest: Manifest
    labels: tuple[str, ...]  # the classes, then what only dev or test have
    notes: tuple[str, ...]  # what a split's labels do to scores
    seconds: list[float]
    total: Group
    splits: list[Group]
    sessions: list[Group]
    speakers: list[Group]
    turns: list[int]  # of each dialogue
    ties: dict[str, int]  # `happy;neutral` -> utterances
    # Emotion -> the next turn's, of train and dev, of utterances with one emotion.
    transitions: dict[str, Counter[str]]
    agreement: list[float]  # the share of votes for the most voted class, train and dev
    # Split -> metrics of always naming train's most frequent class.
    majority: dict[str, dict[str, float]]
    leaks: list[str]

    @property
    def split_names(self) -> list[str]:
        return [group.name for group in self.splits]


def durations(clips: Sequence[Path]) -> Iterator[tuple[Path, float]]:
    """Seconds of each clip by its header. Raises AudioError or FileNotFoundError."""
    for clip in clips:
        yield clip, sound_info(clip).seconds


def report(manifest: Manifest, seconds_of_clips: Mapping[Path, float]) -> Report:
    """Everything about a manifest whose clips have these lengths."""
    utterances = manifest.utterances
    seconds = [seconds_of_clips[manifest.audio_path(utterance)] for utterance in utterances]
    everyone = range(len(utterances))
    labels = manifest.classes_of(everyone)
    by_split: dict[str, list[int]] = defaultdict(list)
    by_session: dict[str, list[int]] = defaultdict(list)
    by_speaker: dict[str, list[int]] = defaultdict(list)
    for index, utterance in enumerate(utterances):
        by_split[utterance.split].append(index)
        by_session[utterance.session].append(index)
        by_speaker[utterance.speaker].append(index)

    def group(name: str, indices: Sequence[int]) -> Group:
        chosen = [utterances[index] for index in indices]
        return Group(
            name,
            splits=tuple(split for split in SPLITS if any(one.split == split for one in chosen)),
            num_utterances=len(chosen),
            num_dialogues=len({one.dialogue_id for one in chosen}),
            num_speakers=len({one.speaker for one in chosen if one.speaker}),
            num_sessions=len({one.session for one in chosen}),
            hours=sum(seconds[index] for index in indices) / 3600,
            num_tied=sum(len(one.emotions) > 1 for one in chosen),
            num_unlabelled=sum(not one.emotions for one in chosen),
            classes={name: sum(name in u.emotions for u in chosen) for name in labels},
        )

    def groups(indices: Mapping[str, Sequence[int]]) -> list[Group]:
        names = sorted(indices, key=lambda name: (natural_key(name), name))
        return [group(name, indices[name]) for name in names]

    tied = [";".join(sorted(one.emotions)) for one in utterances if len(one.emotions) > 1]
    seen = [one for one in utterances if one.split != "test"]
    return Report(
        manifest,
        labels,
        (*manifest.notes, *notes_of_test(manifest)),
        seconds,
        total=group("all", everyone),
        splits=[group(split, by_split[split]) for split in SPLITS if split in by_split],
        sessions=groups(by_session),
        speakers=groups(by_speaker),
        turns=sorted(Counter(one.dialogue_id for one in utterances).values()),
        ties=dict(Counter(tied).most_common()),
        transitions=_transitions(manifest),
        agreement=[max(one.shares.values()) for one in seen if any(one.votes)],
        majority=_majority(manifest),
        leaks=list(leaks(_placed(manifest)).values()),
    )


def _transitions(manifest: Manifest) -> dict[str, Counter[str]]:
    names = manifest.classes_of([*manifest.rows("train"), *manifest.rows("dev")])
    found: dict[str, Counter[str]] = {name: Counter() for name in names}
    for one in manifest.utterances:
        if one.split != "test" and one.previous >= 0:
            before = manifest.utterances[one.previous]
            if len(before.emotions) == len(one.emotions) == 1:
                found[before.emotions[0]][one.emotions[0]] += 1
    return found


def _majority(manifest: Manifest) -> dict[str, dict[str, float]]:
    def labels(split: str) -> list[str]:
        return [name for row in manifest.rows(split) for name in manifest.utterances[row].emotions]

    counts = Counter(labels("train"))
    most = max(range(len(manifest.classes)), key=lambda one: counts[manifest.classes[one]])
    found = {}
    for split in ("train", "dev"):
        names = manifest.classes_of(manifest.rows(split))
        true = np.array([names.index(name) for name in labels(split)], dtype=np.int64)
        metrics = classification_metrics(true, np.full_like(true, most), names)
        found[split] = {name: value_of(metrics, name) for name in _MAJORITY}
    return found


def _placed(manifest: Manifest) -> list[Placed]:
    return [
        Placed(
            one.split,
            one.utterance_id,
            one.speaker,
            one.session,
            one.text,
            manifest.audio_path(one),
        )
        for one in manifest.utterances
    ]


def percentile(values: Sequence[float], percent: float) -> float:
    return float(np.percentile(values, percent))


def _group_rows(groups: Sequence[Group], classes: Sequence[str]) -> list[tuple[str, ...]]:
    return [
        (
            group.name,
            ", ".join(group.splits),
            str(group.num_utterances),
            str(group.num_dialogues),
            f"{60 * group.hours:.1f}",
            str(group.num_tied),
            *(str(group.classes[name]) for name in classes),
        )
        for group in groups
    ]


def tables(facts: Report) -> list[Table]:
    """The report as tables of text; the first column is a name, the others are numbers."""
    manifest, classes = facts.manifest, facts.labels
    all_and_splits, turns = [*facts.splits, facts.total], facts.turns

    def share(group: Group, name: str) -> str:
        return f"{group.classes[name]} ({group.share(name):.1%})"

    overview: list[tuple[str, ...]] = [
        ("utterances", *(str(group.num_utterances) for group in all_and_splits)),
        ("dialogues", *(str(group.num_dialogues) for group in all_and_splits)),
        ("sessions", *(str(group.num_sessions) for group in all_and_splits)),
        ("speakers", *(str(group.num_speakers) for group in all_and_splits)),
        ("hours of speech", *(f"{group.hours:.2f}" for group in all_and_splits)),
        ("tied votes", *(str(group.num_tied) for group in all_and_splits)),
    ]
    if facts.total.num_unlabelled:
        overview.append(
            ("without a label", *(str(group.num_unlabelled) for group in all_and_splits))
        )
    header = ("", *facts.split_names, "all")
    result: list[Table] = [
        (str(manifest.path), header, overview),
        (
            "classes (an utterance with several emotions counts for each)",
            header,
            [(name, *(share(group, name) for group in all_and_splits)) for name in classes],
        ),
        (
            "durations, s",
            ("", "shortest", "median", "mean", "95 %", "longest"),
            _duration_rows(facts),
        ),
        (
            "majority baseline (test is sealed)",
            (
                f"always {max(manifest.classes, key=lambda name: facts.splits[0].classes[name])}",
                *_MAJORITY.values(),
            ),
            [
                (split, *(f"{value:.4f}" for value in metrics.values()))
                for split, metrics in facts.majority.items()
            ],
        ),
        (
            "dialogues",
            ("", "shortest", "median", "longest"),
            [("turns", str(turns[0]), f"{statistics.median(turns):g}", str(turns[-1]))],
        ),
    ]
    if facts.ties:
        ties: list[tuple[str, ...]] = [(name, str(count)) for name, count in facts.ties.items()]
        result.append(("tied votes", ("", "utterances"), ties))
    if repeated := _repeated_texts(manifest):
        columns = ("", "utterances", f"of {LINE_WORDS} words or more")
        result.append(("texts that train has too, word for word", columns, repeated))
    group_header = ("", "split", "utterances", "dialogues", "min", "tied", *classes)
    result += [
        longest(facts),
        ("sessions", group_header, _group_rows(facts.sessions, classes)),
        ("speakers", group_header, _group_rows(facts.speakers, classes)),
    ]
    return result


def _repeated_texts(manifest: Manifest) -> list[tuple[str, ...]]:
    """How many utterances of dev and test say what one of train says."""
    return [
        (split, *(f"{count} ({count / total:.1%})" for count in (repeated, lines)))
        for split, repeated, lines, total in repeated_texts(_placed(manifest))
    ]


def _duration_rows(found: Report) -> list[tuple[str, ...]]:
    utterances = found.manifest.utterances
    rows = []
    for name, is_label in (  # a label may be called as a split is
        *((name, False) for name in found.split_names),
        *((name, True) for name in found.labels),
        ("all", False),
    ):
        values = [
            seconds
            for one, seconds in zip(utterances, found.seconds, strict=True)
            if (
                name in one.emotions and one.split != "test"
                if is_label
                else name in ("all", one.split)
            )
        ]
        if values:
            middle = statistics.median(values), statistics.fmean(values), percentile(values, 95)
            numbers = min(values), *middle, max(values)
            rows.append((name, *(f"{number:.2f}" for number in numbers)))
    return rows


def longest(found: Report) -> Table:
    """The longest in speech and in text: what decides memory."""
    utterances, everyone = found.manifest.utterances, range(len(found.seconds))
    in_speech = sorted(everyone, key=lambda index: -found.seconds[index])[:_LONGEST]
    in_text = sorted(everyone, key=lambda index: -len(utterances[index].text))[:_LONGEST]
    rows: list[tuple[str, ...]] = []
    for index in dict.fromkeys([*in_speech, *in_text]):
        one = utterances[index]
        words = str(len(one.text)), str(len(one.text.split()))
        rows.append((one.utterance_id, one.split, f"{found.seconds[index]:.2f}", *words))
    return ("longest utterances", ("", "split", "s", "characters", "words"), rows)
