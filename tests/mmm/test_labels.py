"""Labels as corpora have them: any names, turns without one, classes that a split lacks."""

import csv
import dataclasses
import io
import shlex
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics

from mmm.console import PlainConsole, class_table
from mmm.corpora.kemdy20 import prepare_kemdy20
from mmm.corpora.write import write_prepared
from mmm.labels import notes_of_test
from mmm.manifest import EMOTIONS, ManifestError, class_order
from mmm.manifest_csv import read_manifest
from mmm.markdown import as_markdown
from mmm.metrics import classification_metrics, macro_f1_of_occurring
from mmm.models import PUBLISHED
from mmm.training.baselines import baselines
from mmm.training.batches import labelled_rows
from mmm.training.config import make_config, published_params
from mmm.training.evaluate import forward
from mmm.training.fit import fit
from mmm.training.run import begin
from tests.conftest import HEADER, Corpus, begin_small, encode, write_corpus, write_manifest
from tests.corpus_parts import Kemdy20
from tests.sweep_parts import call_inside

KOREAN = ("가", "나", "다")


def manifest_of(
    folder: Path, splits: Mapping[str, str], header: tuple[str, ...] = HEADER, **more: str
) -> Path:
    """A row a label, `a b;c` being three rows; each split is one dialogue, each row has `more`."""
    (folder / "a.wav").touch()
    rows = []
    for split, labels in splits.items():
        for turn, label in enumerate(labels.split(";")):
            row = [f"{split}{turn}", split, str(turn), split, "A", "x", "a.wav", label, split]
            rows.append([*row, *more.values()])
    return write_manifest(folder / "manifest.csv", rows, [*header, *more])


def faults_of(path: Path) -> tuple[str, ...]:
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    return caught.value.faults


def test_train_decides_the_classes_in_the_published_order_and_then_by_name(tmp_path: Path) -> None:
    path = manifest_of(
        tmp_path, {"train": "sad;[/red];Über;neutral;상처;angry;excited", "dev": "sad"}
    )
    assert read_manifest(path).classes == (
        *("neutral", "angry", "sad"),
        *("[/red]", "excited", "Über", "상처"),
    )
    assert class_order(["b", "A", "fear", "c", "happy"]) == ("happy", "fear", "A", "b", "c")


def test_a_label_that_only_a_fold_has_is_a_class(tmp_path: Path) -> None:
    path = manifest_of(tmp_path, {"train": "a;b;a;b", "dev": "a;c", "test": "a;d"})
    with open(path, newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    for place, row in enumerate(rows):
        row[1] = f"d{place}"
    assert read_manifest(write_manifest(path, rows, header)).classes == ("a", "b")
    folds = ["1", "2", "1", "2", "1", "2", "", ""]
    rows = [[*row, fold] for row, fold in zip(rows, folds, strict=True)]
    with_folds = read_manifest(write_manifest(path, rows, [*header, "fold"]))
    assert with_folds.classes == ("a", "b", "c")
    assert with_folds.notes == (
        "1 label is in no row of dev ('b'): its F1 counts as 0 there, so that"
        " macro F1 is at most 0.6667; scikit-learn's rule leaves out what is neither in the truth"
        " nor predicted",
    )


SPELLINGS = (
    ("Happy;happy;happy;sad", "happy", "'happy' (3 rows) and 'Happy' (1 rows)", "Happy=happy"),
    ("Calm;Calm;calm;sad", "sad", "'Calm' (2 rows) and 'calm' (1 rows)", "calm=Calm"),
    ("a  b;a b;a b;sad", "sad", "'a b' (2 rows) and 'a  b' (1 rows)", "'a  b=a b'"),
    (
        "가;\u1100\u1161;sad;\u1100\u1161",
        "sad",
        "'가' [U+AC00] (1 rows) and '\u1100\u1161' [U+1100 U+1161] (2 rows)",
        "'\u1100\u1161=가'",
    ),
)


@pytest.mark.parametrize(("train", "dev", "told", "change"), SPELLINGS)
def test_two_spellings_of_a_label_are_one_fault_with_the_option_that_mends_it(
    tmp_path: Path, train: str, dev: str, told: str, change: str
) -> None:
    path = manifest_of(tmp_path, {"train": train, "dev": dev})
    assert faults_of(path) == (
        f"line 1: a label is spelt in several ways: {told}; to spell it one way: mmm prepare csv"
        f" {shlex.quote(str(path))} -o manifest.csv --emotion {change}",
    )


def test_several_labels_in_several_spellings_are_one_fault_votes_too(tmp_path: Path) -> None:
    votes = {"votes": "sad|Happy"}
    path = manifest_of(tmp_path, {"train": "Sad;happy;happy", "dev": "happy"}, **votes)
    (fault,) = faults_of(path)
    assert fault.startswith("line 1: 2 labels are spelt in several ways: ")
    assert fault.endswith(" --emotion Sad=sad --emotion Happy=happy")


def test_turns_without_a_label_are_context_and_neither_trained_on_nor_scored(
    tmp_path: Path,
) -> None:
    path = manifest_of(tmp_path, {"train": "a;;b;a", "dev": ";a;b", "test": "a;;"})
    manifest = read_manifest(path)
    assert (manifest.rows("train"), manifest.turns("train")) == ([0, 2, 3], [0, 1, 2, 3])
    assert (manifest.rows("dev"), manifest.sealed_test_rows()) == ([5, 6], [7])
    assert manifest.history(2, 3) == [2, 1, 0]
    assert manifest.notes == (
        "2 turns have no label (train 1, dev 1): they are context of the turns after them, never"
        " trained on and never scored",
    )
    assert notes_of_test(manifest) == ("2 turns of test have no label: they are not scored",)


def test_of_folds_the_labelled_turns_count(tmp_path: Path) -> None:
    path = manifest_of(tmp_path, {"train": "a;b;;a", "dev": "a;b"})
    with open(path, newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    folds = {"train": "1", "dev": "2"}
    rows = [[*row, folds[row[-1]]] for row in rows]
    manifest = read_manifest(write_manifest(path, rows, [*header, "fold"]))
    assert manifest.fold_rows(2) == ([0, 1, 3], [4, 5])
    assert manifest.rows_in_folds() == [0, 1, 3, 4, 5]
    rows = [[*row[:-1], "3" if row[-2] == "dev" else row[-1]] for row in rows]
    for row in rows[:3]:
        row[1], row[-1] = "other", "2"
    rows[0][7] = rows[1][7] = ""
    assert faults_of(write_manifest(path, rows, [*header, "fold"])) == (
        "line 1: no row of fold 2 has a label",
    )


@pytest.mark.parametrize("split", ["train", "dev"])
def test_a_manifest_without_a_labelled_row_to_train_or_validate_on_is_refused(
    tmp_path: Path, split: str
) -> None:
    path = manifest_of(tmp_path, {"train": "a;b", "dev": "a;b", split: ";"})
    assert faults_of(path) == (
        f"line 1: no row of {split} has a label; every sweep needs labelled rows in train and dev",
    )


def test_a_turn_may_be_written_as_a_spreadsheet_writes_it_and_nobody_need_know_who_speaks(
    tmp_path: Path,
) -> None:
    path = manifest_of(tmp_path, {"train": "a;b", "dev": "a"})
    text = path.read_text().replace(",train,1,", ",train,1.0,").replace(",A,", ",,")
    path.write_text(text)
    one = read_manifest(path).utterances[1]
    assert (one.turn, one.speaker) == (1, "")
    path.write_text(text.replace(",train,0,", ",train,1.00,"))
    assert faults_of(path) == ("line 3: turn 1 of dialogue 'train' is already on line 2",)


UNSEEN = (
    "1 label is in dev and not in train ('calm'; 3 rows): no model can answer it, and those rows"
    " are scored and always wrong. Macro F1 is the mean over 4 classes, this one with 0, so at most"
    " 0.5000; by scikit-learn's rule, over the classes in the truth or predicted, at most 0.6667"
)


def test_classes_that_a_split_lacks_are_told_with_what_they_do_to_macro_f1(tmp_path: Path) -> None:
    path = manifest_of(
        tmp_path, {"train": "a;b;c", "dev": "a;b;calm;calm;calm", "test": "a;odd;calm"}
    )
    manifest = read_manifest(path)
    assert manifest.notes == (
        UNSEEN,
        "1 label is in no row of dev ('c'): its F1 counts as 0 there, so that macro F1 is at most"
        " 0.5000; scikit-learn's rule leaves out what is neither in the truth nor predicted",
    )
    (told,) = notes_of_test(manifest)
    assert told.startswith(
        "2 labels are in test and not in train ('calm', 'odd'; 2 rows): no model"
    )
    assert "odd" not in "".join(manifest.notes)


def test_what_is_told_of_macro_f1_is_what_scikit_learn_computes(tmp_path: Path) -> None:
    manifest = read_manifest(manifest_of(tmp_path, {"train": "a;b;c", "dev": "a;b;calm;calm;calm"}))
    rows = labelled_rows(manifest, manifest.rows("dev"), "expand")
    assert rows.names == ("a", "b", "c", "calm")
    assert rows.truth.tolist() == [0, 1, 3, 3, 3]
    assert rows.shares.tolist() == [[1, 0, 0], [0, 1, 0], *[[0, 0, 0]] * 3]
    true, predicted = rows.truth.numpy(), np.array([0, 1, 0, 1, 0])
    best = np.array([0, 1, 0, 0, 0])
    for found in (predicted, best):
        ours = classification_metrics(true, found, rows.names)
        assert ours["macro_f1"] == pytest.approx(
            sklearn_metrics.f1_score(true, found, labels=range(4), average="macro", zero_division=0)
        )
        assert macro_f1_of_occurring(ours) == pytest.approx(
            sklearn_metrics.f1_score(true, found, average="macro", zero_division=0)
        )


@pytest.fixture
def own(tmp_path: Path) -> Corpus:
    """Labels of its own: `상처` for angry; every fifth turn of train has none, and `calm` is the
    first of dev.
    """
    folder = tmp_path / "corpus"
    path = write_corpus(folder).path
    with open(path, newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    for number, row in enumerate(rows):
        row[7] = row[7].replace("angry", "상처")
        if row[8] == "train" and number % 5 == 4:
            row[7] = ""
    next(row for row in rows if row[8] == "dev")[7] = "calm"
    manifest = read_manifest(write_manifest(path, rows, header))
    encode(manifest, folder / "features")
    return Corpus(manifest, folder / "features")


def test_training_knows_neither_labels_that_are_not_there_nor_those_of_dev_alone(
    own: Corpus,
) -> None:
    manifest = own.manifest
    assert manifest.classes == ("neutral", "happy", "sad", "상처")
    run = begin_small(own, "vanilla_concat", context=3, class_weight="inverse")
    assert set(run.train.indices.tolist()) == set(manifest.rows("train"))
    assert run.dims.num_classes == run.train.labels.shape[1] == run.dev.labels.shape[1] == 4
    assert run.train.labels.sum(dim=1).tolist() == [1.0] * len(run.train)
    *_, last = fit(run)
    assert list(last.metrics["per_class"]) == [*manifest.classes, "calm"]
    assert last.metrics["per_class"]["calm"] == {
        "precision": 0.0,
        "recall": 0.0,
        "f1": 0.0,
        "support": 1,
    }
    assert np.array(last.metrics["confusion_matrix"])[:, -1].sum() == 0
    assert np.isfinite(last.metrics["loss"])
    assert torch.isfinite(
        run.model(*dataclasses.astuple(run.dev.batch(torch.arange(3), run.device))[:4])
    ).all()


def test_baselines_leave_unlabelled_turns_out_and_count_what_dev_alone_has(own: Corpus) -> None:
    found = list(baselines(own.manifest, own.features_dir))
    num_rows = sum(len(own.manifest.utterances[row].emotions) for row in own.manifest.rows("dev"))
    for one in found:
        assert list(one.metrics["per_class"])[-1] == "calm"
        assert sum(own["support"] for own in one.metrics["per_class"].values()) == num_rows


def test_what_unlabelled_turns_say_reaches_the_turns_after_them(own: Corpus) -> None:
    manifest = own.manifest
    bare, after = next(
        (before, row)
        for row in manifest.rows("train")
        for before in manifest.history(row, 3)[1:]
        if not manifest.utterances[before].emotions
    )
    assert bare in own.features(context=3).turns[after].tolist()


def test_one_label_alone_is_nothing_to_train_on(tmp_path: Path) -> None:
    manifest = write_corpus(tmp_path)
    encode(manifest, tmp_path / "features")
    with open(manifest.path, newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    one = read_manifest(
        write_manifest(manifest.path, [[*row[:7], "평온", row[8]] for row in rows], header)
    )
    assert one.notes == ("every labelled row of train is '평온': training needs two labels",)
    with pytest.raises(
        ValueError, match=r"every labelled row of train is '평온'; expected two labels or more"
    ):
        begin_small(Corpus(one, tmp_path / "features"), "vanilla_concat")


def test_prepare_and_the_report_tell_what_the_test_split_alone_has(own: Corpus) -> None:
    told = call_inside("mmm", "corpus-report", own.manifest.path).stdout
    for sentence in (
        "note: 4 turns have no label (train 4, dev 0): they are context",
        "note: 1 label is in dev and not in train ('calm'; 1 rows)",
        "note: 1 label is in test and not in train ('disgust'; 2 rows)",
    ):
        assert sentence in told
    assert "disgust" not in "".join(own.manifest.notes)
    out = own.manifest.path.with_name("again.csv")
    told = call_inside("mmm", "prepare", "csv", own.manifest.path, "-o", out).stdout
    counts = {
        cells[0]: cells[1:4]
        for line in told.splitlines()
        if len(cells := [cell.strip() for cell in line.strip("│ ").split("│")]) == 4
    }
    assert counts["calm"] == ["0", "1", "0"]
    assert counts["disgust"] == ["0", "0", "2"]
    assert counts["without a label"] == ["4", "0", "0"]
    assert "note: 1 label is in test and not in train ('disgust'; 2 rows)" in told
    assert read_manifest(out).utterances == own.manifest.utterances


def test_labels_are_text_in_tables_and_in_markdown() -> None:
    names = ["[/red]", "<b>", "a_b_", "상처"]
    found = classification_metrics(np.arange(4), np.array([0, 1, 2, 2]), names)
    console = PlainConsole(width=140, file=io.StringIO())
    console.print(class_table(found))
    assert all(name in console.file.getvalue() for name in names)
    assert as_markdown("[/red] a_b_ <img>") == r"\[/red\] a\_b\_ \<img\>"


def test_a_confusion_of_many_labels_is_numbered_where_names_take_too_much_room() -> None:
    names = [f"a rather long label {number}" for number in range(12)]
    table = class_table(classification_metrics(np.arange(12), np.arange(12), names))
    assert [str(column.header) for column in table.columns][5:] == [str(n) for n in range(1, 13)]
    assert list(table.columns[0].cells)[11] == "12 a rather long label 11"
    few = class_table(classification_metrics(np.arange(3), np.arange(3), KOREAN))
    assert [str(column.header) for column in few.columns][5:] == list(KOREAN)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_systems_have_seven_outputs_in_the_published_order_on_kemdy20s_layout(
    seven: Corpus, name: str
) -> None:
    assert seven.manifest.classes == EMOTIONS
    config = make_config({**published_params(name), "classifier_hidden": 12})
    run = begin(config, seven.features(*config.features_key))
    batch = run.train.batch(torch.arange(3), run.device)
    assert forward(run.model, batch).shape == (3, 7)
    assert (run.dims.speech_positions, run.dims.text_positions) == (512, 128)


@pytest.fixture(scope="module")
def seven(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """KEMDy20's layout; train has each of the seven, in an order that is not the published one."""
    folder = tmp_path_factory.mktemp("seven")
    layout = Kemdy20(folder / "corpus", num_sessions=4)
    labels = ["fear", "sad", "disqust", "angry", "surprise", "happy", "neutral", "neutral"]
    rows = [row for session in (1, 2) for row in layout.rows[session]]
    for row, label in zip(rows, labels, strict=True):
        row[4::3] = [label] * len(row[4::3])
    prepared = prepare_kemdy20(layout.write(), dev_sessions="3", test_sessions="4")
    write_prepared(prepared, folder / "manifest.csv")
    manifest = read_manifest(folder / "manifest.csv")
    encode(manifest, folder / "features")
    return Corpus(manifest, folder / "features")
