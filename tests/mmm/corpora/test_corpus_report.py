"""The corpus report: its numbers counted by hand, the leaks it has to find, and the page it
writes.
"""

import re
import shutil
from html import unescape
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from mmm.corpora.kemdy20 import prepare_kemdy20
from mmm.corpora.report import Report, durations, report, tables
from mmm.corpora.report_page import bar_edges, page
from mmm.corpora.write import write_prepared
from mmm.manifest import Manifest
from mmm.manifest_csv import read_manifest
from tests.conftest import HEADER, Corpus, write_manifest, write_wav
from tests.corpus_parts import Kemdy20


def report_of(manifest: Manifest) -> Report:
    return report(
        manifest, dict(durations([manifest.audio_path(one) for one in manifest.utterances]))
    )


@pytest.fixture(scope="module")
def found(corpus: Corpus) -> Report:
    return report_of(corpus.manifest)


def cells(found: Report, title: str) -> dict[str, list[str]]:
    for name, _, rows in tables(found):
        if name.startswith(title):
            return {row[0]: list(row[1:]) for row in rows}
    raise AssertionError(title)


def test_counts_are_those_of_the_manifest(found: Report, corpus: Corpus) -> None:
    assert cells(found, str(corpus.manifest.path)) == {
        "utterances": ["20", "10", "10", "40"],
        "dialogues": ["4", "2", "2", "8"],
        "sessions": ["2", "1", "1", "4"],
        "speakers": ["4", "2", "2", "8"],
        "hours of speech": ["0.00", "0.00", "0.00", "0.01"],
        "tied votes": ["3", "2", "1", "6"],
    }
    assert cells(found, "tied votes") == {"happy;neutral": ["6"]}
    for place, split in enumerate(("train", "dev", "test")):
        for name, row in cells(found, "classes").items():
            count = sum(
                name in one.emotions for one in corpus.manifest.utterances if one.split == split
            )
            assert row[place].split()[0] == str(count)
    assert cells(found, "dialogues")["turns"] == ["2", "5", "8"]
    assert cells(found, "sessions")["session2"][:3] == ["train", "13", "2"]
    assert cells(found, "speakers")["speaker30"][:3] == ["dev", "5", "2"]


def test_the_majority_baseline_is_worked_out_by_hand(found: Report, corpus: Corpus) -> None:
    labels = [
        name
        for row in corpus.manifest.rows("dev")
        for name in corpus.manifest.utterances[row].emotions
    ]
    share = labels.count("neutral") / len(labels)
    f1 = 2 * share / (share + 1)
    assert found.majority["dev"] == pytest.approx(
        {
            "accuracy": share,
            "weighted_f1": share * f1,
            "macro_f1": f1 / len(corpus.manifest.classes),
            "unweighted_recall": 1 / len(set(labels)),
        }
    )
    assert set(found.majority) == {"train", "dev"}


def test_durations_are_those_of_the_headers(found: Report) -> None:
    assert found.seconds[0] == pytest.approx(0.3)
    assert cells(found, "durations")["all"] == ["0.30", "0.72", "0.71", "1.14", "1.14"]


def test_disjoint_splits_have_no_leaks(found: Report) -> None:
    assert found.leaks == []
    assert "No leaks" in page(found)


def test_every_kind_of_leak_is_found(tmp_path: Path) -> None:
    for number, name in enumerate("abcd"):
        write_wav(tmp_path / f"{name}.wav", 0.1, 200.0, number)
    shutil.copy(tmp_path / "a.wav", tmp_path / "copy.wav")
    rows = [
        ["u1", "d1", "1", "s1", "A", "hello", "a.wav", "sad", "train"],
        ["u2", "d2", "1", "s2", "A", "other", "b.wav", "happy", "dev"],  # speaker
        ["u3", "d3", "1", "s1", "C", "third", "c.wav", "sad", "dev"],  # session
        ["u4", "d4", "1", "s4", "D", "fourth", "b.wav", "sad", "test"],  # audio file
        [
            "u5",
            "d5",
            "1",
            "s5",
            "E",
            "hello",
            "copy.wav",
            "sad",
            "test",
        ],  # audio content, with its text
    ]
    leaks = report_of(read_manifest(write_manifest(tmp_path / "manifest.csv", rows, HEADER))).leaks
    assert leaks == [
        "1 speaker is in more than one split: A (train, dev)",
        "1 session is in more than one split: s1 (train, dev)",
        "1 audio file is in more than one split: u2 (dev) and u4 (test)",
        (
            "2 audio contents are in more than one split: u1 (train) and u5 (test), u2 (dev) and u4"
            " (test)"
        ),
        "1 line of text with its audio is in more than one split: u1 (train) and u5 (test)",
    ]


def test_texts_that_train_has_too_are_counted(tmp_path: Path, found: Report) -> None:
    write_wav(tmp_path / "a.wav", 0.1, 200.0, 0)
    texts = {
        "train": ["yes", "well I never did", ""],
        "dev": ["yes", "well I never did", "", "no"],
        "test": ["yes", "other"],
    }
    rows = [
        [f"{split}{turn}", split, str(turn), split, split, text, "a.wav", "sad", split]
        for split, said in texts.items()
        for turn, text in enumerate(said)
    ]
    repeated = report_of(read_manifest(write_manifest(tmp_path / "manifest.csv", rows, HEADER)))
    assert cells(repeated, "texts that train has too") == {
        "dev": ["2 (50.0%)", "1 (25.0%)"],
        "test": ["1 (50.0%)", "0 (0.0%)"],
    }
    assert "texts that train has too" in page(repeated)
    with pytest.raises(AssertionError):
        cells(found, "texts that train has too")


def test_labels_of_the_test_split_are_only_counted(found: Report, corpus: Corpus) -> None:
    seen = [one for one in corpus.manifest.utterances if one.split != "test" and one.previous >= 0]
    assert sum(sum(after.values()) for after in found.transitions.values()) <= len(seen)
    disgusted = cells(found, "durations").get("disgust")
    assert disgusted is None  # of the 40 utterances only test ones are


def test_the_page_is_one_file_of_well_formed_pictures(tmp_path: Path) -> None:
    layout = Kemdy20(tmp_path / "corpus")
    layout.texts = dict.fromkeys(layout.texts, b"<b>&")
    prepared = prepare_kemdy20(layout.write(), dev_sessions="2", test_sessions="3", text="none")
    write_prepared(prepared, tmp_path / "manifest.csv")
    content = page(report_of(read_manifest(tmp_path / "manifest.csv")))
    pictures = re.findall(r"<svg.*?</svg>", content, re.DOTALL)
    assert len(pictures) == 8
    texts = []
    for picture in pictures:
        tree = ElementTree.fromstring(picture)
        assert tree.attrib["aria-label"] in unescape(content.replace(picture, ""))  # its caption
        texts.append({element.text for element in tree.iter("{http://www.w3.org/2000/svg}text")})
    assert {"train", "dev", "test", "neutral"} <= texts[0]
    assert {"Sess01", "Sess02", "Sess03"} <= texts[6]
    assert not re.search(r"(src|href)=\"(?!#)", content)
    assert "NaN" not in content


def test_a_histogram_counts_a_multiple_of_its_step_in_the_bar_that_begins_there() -> None:
    shares = [0.4, 0.6, 0.6, 0.7, 1.0]
    edges = bar_edges(shares, 0.05)
    lefts = np.repeat(edges[:-1], np.histogram(shares, edges)[0])
    assert lefts.round(6).tolist() == shares
    assert np.diff(bar_edges([0.67, 35.2])).round(6).tolist() == [1.0] * 36
    assert np.diff(bar_edges([3.0, 79.0], is_whole=True)).round(6).tolist() == [2.0] * 39
