"""Splits and folds as options of `mmm prepare`: what is dealt, what is told of leaks, and what each
refusal says to type.
"""

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from mmm.corpora.csv_file import prepare_csv
from mmm.corpora.dealing import parse_shares
from mmm.corpora.iemocap import prepare_iemocap
from mmm.corpora.options import PrepareOptions
from mmm.corpora.prepared import Prepared
from mmm.corpora.write import write_prepared
from mmm.manifest import Manifest
from mmm.manifest_csv import read_manifest
from tests.conftest import write_manifest, write_wav
from tests.mmm.corpora.test_other_corpora import write_iemocap

_EMOTIONS = ("neutral", "happy", "angry", "sad")
_HEADER = ("id", "dialogue", "turn", "session", "speaker", "text", "path", "label")


def table(
    folder: Path,
    *,
    num_sessions: int = 6,
    same_audio: Sequence[tuple[int, int]] = (),
    roaming: bool = False,
) -> Path:
    """Sessions of two dialogues of four turns between two speakers, who are the session's own, or,
    `roaming`, of a dialogue each and everywhere. The second of each pair of `same_audio` has the
    audio of the first.
    """
    rows = []
    audio = dict.fromkeys(range(8 * num_sessions), 0)
    audio = {n: n for n in audio} | {second: first for first, second in same_audio}
    for n, sound in audio.items():
        write_wav(folder / f"wav/{n:03}.wav", 0.05 + 0.01 * (sound % 3), 200.0, sound)
        session, dialogue = n // 8, n // 4
        speaker = f"p{dialogue % 3}" if roaming else f"p{session}{n % 2}"
        rows.append(
            [
                *(f"u{n}", f"d{dialogue}", str(n % 4), f"s{session}", speaker, f"line {n}"),
                *(f"wav/{n:03}.wav", _EMOTIONS[(n + n // 8) % 4]),
            ]
        )
    return write_manifest(folder / "x.csv", rows, _HEADER)


def prepared_of(source: Path, **options: object) -> tuple[Prepared, Manifest, list[str], str]:
    out = source.parent / "manifest.csv"
    prepared = prepare_csv(source, PrepareOptions(**options))  # type: ignore[arg-type]
    _, shared, to_type = write_prepared(prepared, out)
    return prepared, read_manifest(out), shared, to_type


def refusal(source: Path, **options: object) -> str:
    with pytest.raises(ValueError) as caught:
        prepared_of(source, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("key", "attribute"),
    [("speaker", "speaker"), ("session", "session"), ("dialogue", "dialogue_id")],
)
def test_no_group_is_in_two_splits_and_classes_are_spread(
    tmp_path: Path, key: str, attribute: str
) -> None:
    source = table(tmp_path, num_sessions=10)
    _, manifest, _, _ = prepared_of(source, split_by=key)
    homes = {(getattr(one, attribute), one.split) for one in manifest.utterances}
    assert len(homes) == len({name for name, _ in homes})
    counts = Counter((one.split, one.emotions[0]) for one in manifest.utterances)
    assert {counts["train", name] for name in _EMOTIONS} == {16}
    assert {counts[split, name] for split in ("dev", "test") for name in _EMOTIONS} == {2}
    again = [one.split for one in prepared_of(source, split_by=key)[1].utterances]
    assert again == [one.split for one in manifest.utterances]
    other = [one.split for one in prepared_of(source, split_by=key, seed=2)[1].utterances]
    assert other != again


def test_shares_may_leave_test_out(tmp_path: Path) -> None:
    _, manifest, _, _ = prepared_of(table(tmp_path), shares="75,25,0", split_by="session")
    counts = Counter(one.split for one in manifest.utterances)
    assert counts.keys() == {"train", "dev"}
    assert counts["dev"] in (8, 16)


@pytest.mark.parametrize("shares", ["0.8,0.2", "1,1,1", "0.8,0.3,-0.1", "most,some,few", ""])
def test_shares_that_do_not_sum_to_one_are_refused(shares: str) -> None:
    with pytest.raises(ValueError, match=r"--shares '.*': expected those of train, dev and test"):
        parse_shares(shares)


def test_train_and_dev_need_a_share(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"train and dev need a share each; test may have 0"):
        parse_shares("0.9,0,0.1")
    assert parse_shares("0.9,0,0.1", has_folds=True) == [0.9, 0.0, 0.1]


def test_leaks_are_told_with_numbers_and_what_to_type_and_refused_when_strict(
    tmp_path: Path,
) -> None:
    source = table(tmp_path, same_audio=[(0, 46), (1, 47)])
    text = source.read_text().replace(",p51,", ",p01,")  # a speaker of the first session in test
    source.write_text(text)
    _, manifest, shared, to_type = prepared_of(source)
    assert [one.split for one in manifest.utterances[::8]] == ["train"] * 4 + ["dev", "test"]
    assert shared == [
        "1 speaker is in more than one split: p01 (train, test)",
        "2 audio contents are in more than one split: u0 (train) and u46 (test), u1 (train) and"
        " u47 (test)",
    ]
    assert to_type == "--split-by speaker"
    told = refusal(source, strict=True)
    assert told == (
        f"{source}: --strict refuses what is shared:\n  {shared[0]}\n  {shared[1]}\n"
        "deal so that less is: --split-by speaker; or leave --strict out"
    )
    words = shlex.split(to_type)
    prepared, mended, shared, _ = prepared_of(source, strict=True, split_by=words[1])
    assert shared == []
    assert mended.utterances[0].split == mended.utterances[46].split
    assert len({one.split for one in mended.utterances}) == 3
    assert "groups by speaker joined, since they have audio in common" not in prepared.account.noted


def test_groups_that_have_audio_in_common_are_joined(tmp_path: Path) -> None:
    source = table(tmp_path, same_audio=[(0, 46), (8, 16)])
    prepared, manifest, shared, _ = prepared_of(source, split_by="session", strict=True)
    assert shared == []
    joined = prepared.account.noted["groups by session joined, since they have audio in common"]
    assert joined == ["6 became 4"]
    splits = [one.split for one in manifest.utterances]
    assert (splits[0], splits[8]) == (splits[46], splits[16])


def test_where_joining_leaves_too_few_groups_shared_audio_is_told(tmp_path: Path) -> None:
    source = table(tmp_path, same_audio=[(0, n) for n in range(8, 48, 8)])
    _, _, shared, to_type = prepared_of(source, split_by="session")
    assert [text.split(":")[0] for text in shared] == ["1 audio content is in more than one split"]
    assert to_type == ""
    assert "no other dealing shares less; or leave --strict out" in refusal(
        source, split_by="session", strict=True
    )


def test_texts_that_train_has_too_are_told_and_not_refused(tmp_path: Path) -> None:
    source = table(tmp_path)
    source.write_text(source.read_text().replace(",line ", ",one of the same ten lines "))
    lines = source.read_text().splitlines()
    for n in range(4):
        lines[41 + n] = lines[41 + n].replace(f"lines {40 + n}", f"lines {n}")
    source.write_text("\n".join(lines))
    prepared, _, shared, _ = prepared_of(source, strict=True)
    assert shared == []
    assert prepared.account.noted["texts of 4 words or more that train has too, word for word"] == [
        "4 of 8 test"
    ]


def test_too_few_groups_are_refused_with_what_makes_enough(tmp_path: Path) -> None:
    source = table(tmp_path, num_sessions=2)
    assert refusal(source, split_by="session") == (
        "--split-by session makes 2 groups, too few for 3 splits (those with a dialogue in common"
        " are one); deal by another: --split-by dialogue"
    )
    assert refusal(source, folds="5", fold_by="speaker") == (
        "--fold-by speaker makes 2 groups, too few for 5 folds (those with a dialogue in common"
        " are one); fewer: --folds 2"
    )
    assert refusal(source, split_by="actor") == (
        "unknown --split-by 'actor'; expected one of speaker, session, dialogue"
    )
    source.write_text(source.read_text().replace(",p01,", ",,"))
    assert refusal(source, split_by="speaker") == (
        "--split-by speaker: speaker is empty in 4 rows, the first: line 3; deal by another:"
        " --split-by session"
    )


def test_without_an_option_speakers_are_kept_whole_where_they_can_be(tmp_path: Path) -> None:
    source = table(tmp_path)
    lines = [line.split(",") for line in source.read_text().splitlines()]
    without_session = "\n".join(",".join([*line[:3], *line[4:]]) for line in lines)
    source.write_text(without_session)
    prepared, _, shared, _ = prepared_of(source)
    assert shared == []
    assert "dealt to splits by speaker, 6 groups" in " ".join(prepared.account.noted)
    roaming = table(tmp_path / "r", roaming=True)
    lines = [line.split(",") for line in roaming.read_text().splitlines()]
    roaming.write_text("\n".join(",".join([*line[:3], *line[4:]]) for line in lines[:9]))
    prepared, _, shared, _ = prepared_of(roaming, shares="0.5,0.5,0")
    assert "dealt to splits by speaker, 2 groups" in " ".join(prepared.account.noted)


# Folds


def test_folds_hold_each_group_out_once_and_fold_1_is_dev(tmp_path: Path) -> None:
    prepared, manifest, shared, _ = prepared_of(table(tmp_path), folds="3", fold_by="session")
    assert manifest.num_folds == 3
    assert shared == []
    homes = {(one.session, one.fold) for one in manifest.utterances}
    assert len(homes) == 6
    assert Counter(fold for _, fold in homes) == {1: 2, 2: 2, 3: 2}
    assert {(one.split, one.fold == 1) for one in manifest.utterances} == {
        ("dev", True),
        ("train", False),
    }
    for fold in (1, 2, 3):
        train, held_out = manifest.fold_rows(fold)
        assert sorted([*train, *held_out]) == list(range(48))
        classes = Counter(manifest.utterances[row].emotions[0] for row in held_out)
        assert set(classes.values()) == {4}
    noted = prepared.account.noted["3 folds by session, each held out once"]
    assert len(noted) == 3
    assert noted[0].startswith("fold 1: 16 rows of s")


def test_all_makes_a_fold_of_each_group_in_their_order(tmp_path: Path) -> None:
    _, manifest, _, _ = prepared_of(
        table(tmp_path, num_sessions=11), folds="all", fold_by="session"
    )
    assert {one.session: one.fold for one in manifest.utterances} == {
        f"s{n}": n + 1 for n in range(11)
    }


def test_test_rows_are_in_no_fold(tmp_path: Path) -> None:
    _, manifest, _, _ = prepared_of(
        table(tmp_path), folds="2", fold_by="session", split_by="session", shares="0.5,0.2,0.3"
    )
    assert {(one.split, one.fold) for one in manifest.utterances} == {
        ("dev", 1),
        ("train", 2),
        ("test", None),
    }


def test_a_corpus_own_splits_stay_beside_its_folds(tmp_path: Path) -> None:
    source = table(tmp_path)
    header, *lines = source.read_text().splitlines()
    splits = ["train"] * 24 + ["dev"] * 8 + ["test"] * 16
    rows = [f"{line},{split}" for line, split in zip(lines, splits, strict=True)]
    source.write_text("\n".join([f"{header},split", *rows]))
    _, manifest, _, _ = prepared_of(source, folds="all", fold_by="session")
    assert [one.split for one in manifest.utterances] == splits
    assert [one.fold for one in manifest.utterances[::8]] == [1, 2, 3, 4, None, None]


def test_what_folds_share_is_told_and_refused_when_strict(tmp_path: Path) -> None:
    source = table(tmp_path, roaming=True)
    _, _, shared, _ = prepared_of(source, folds="3", fold_by="session")
    assert [text.split(":")[0] for text in shared] == ["3 speakers are in more than one fold"]
    assert "deal so that less is: --fold-by speaker" in refusal(
        source, folds="3", fold_by="session", strict=True
    )
    _, _, shared, _ = prepared_of(source, folds="3", fold_by="speaker", strict=False)
    assert [text.split(":")[0] for text in shared] == ["6 sessions are in more than one fold"]


def test_classes_that_a_fold_leaves_nothing_of_are_told(tmp_path: Path) -> None:
    source = table(tmp_path)
    text = source.read_text().splitlines()
    text[9:11] = [line.rpartition(",")[0] + ",calm" for line in text[9:11]]
    source.write_text("\n".join(text))
    prepared, _, _, _ = prepared_of(source, folds="all", fold_by="session")
    assert prepared.account.noted["classes that a fold holds out whole"] == ["fold 2: calm"]


@pytest.mark.parametrize("folds", ["1", "0", "five", "-2", "2.5", "٣"])
def test_a_number_of_folds_that_is_none_is_refused(tmp_path: Path, folds: str) -> None:
    assert refusal(table(tmp_path, num_sessions=1), folds=folds) == (
        f"--folds {folds!r}: expected a number from 2 on, or all"
    )


def test_fold_by_alone_is_refused(tmp_path: Path) -> None:
    assert refusal(table(tmp_path), fold_by="session") == (
        "--fold-by says what folds are dealt by; say how many: --folds 5"
    )


def test_iemocap_leaves_one_session_out_with_one_option(tmp_path: Path) -> None:
    prepared = prepare_iemocap(
        write_iemocap(tmp_path / "i"), labels="6-way", options=PrepareOptions(folds="all")
    )
    write_prepared(prepared, tmp_path / "manifest.csv")
    manifest = read_manifest(tmp_path / "manifest.csv")
    assert {one.session: (one.fold, one.split) for one in manifest.utterances} == {
        f"Session{n}": (n, "dev" if n == 1 else "train") for n in range(1, 6)
    }
    assert manifest.classes == ("neutral", "excited", "frustrated")
    assert [one.emotions for one in manifest.utterances[:4]] == [
        ("excited",),
        ("neutral",),
        (),
        ("frustrated",),
    ]
    train, held_out = manifest.fold_rows(1)
    assert (len(train), held_out) == (12, [0, 1, 3])
    with_test = prepare_iemocap(
        tmp_path / "i", test_sessions="5", options=PrepareOptions(folds="all")
    )
    write_prepared(with_test, tmp_path / "manifest.csv")
    manifest = read_manifest(tmp_path / "manifest.csv")
    assert manifest.num_folds == 4
    assert {one.split for one in manifest.utterances if one.session == "Session5"} == {"test"}
