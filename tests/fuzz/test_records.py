"""Feature stores, recipes and ledgers: a bit that is another is told of by name, or means the
same.
"""

import json
import shutil
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from mmm.features.checksums import CHECKSUMS, checksums_of
from mmm.features.store import LARGE_FILES, small_files
from mmm.files import write_json
from tests.conftest import Corpus
from tests.fuzz.parts import content_of, damaged, inputs, json_text, told_by


@inputs(0.06)
@given(data=st.data())
def test_features_that_are_not_what_was_written_are_not_trained_on(
    corpus: Corpus, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as name:
        features = Path(shutil.copytree(corpus.features_dir, Path(name) / "features"))
        before = content_of(features)
        file = features / data.draw(
            st.sampled_from(sorted(name for name in before if name != ".lock"))
        )
        # Without checksums it is a store of an earlier version, which is said; without a recipe
        # none, which is said where it is wanted.
        if file.name not in (CHECKSUMS, "recipe.json") and data.draw(st.integers(0, 9)) == 0:
            file.unlink()
        else:
            file.write_bytes(data.draw(damaged(before[str(file.relative_to(features))])))
        now = content_of(features)
        is_same = now.keys() == before.keys() and all(
            # What follows a large array is not read.
            now[one].startswith(before[one]) if Path(one).name in LARGE_FILES else now[one] == was
            for one, was in before.items()
        )
        # Every store is opened and every block of it looked at.
        told = told_by(
            "damaged features", "search", "doctor", "--features", features, statuses=(0, 1, 2)
        )
        assert (told.status == 0) == is_same or "names.json" in str(file), (file, told)


@inputs(0.06)
@given(data=st.data())
def test_a_recipe_that_is_none_is_refused_by_name(corpus: Corpus, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        features = Path(shutil.copytree(corpus.features_dir, Path(name) / "features"))
        if data.draw(st.integers(0, 3)) == 0:
            file = features / "names.json"
            file.write_text(data.draw(json_text({"0123456789abcdef": "fbank"})), errors="replace")
        else:
            file = data.draw(st.sampled_from(sorted(features.glob("*/recipe.json"))))
            recipe = json.loads(file.read_text())
            file.write_text(data.draw(json_text(recipe)), errors="replace")
            store = file.parent
            sums = checksums_of(store, small_files(store), LARGE_FILES)
            write_json(store / CHECKSUMS, sums.as_json())
        told = told_by("poisoned recipes", "mmm", "features", features)
        assert told.is_accepted or str(features) in told.err


@inputs(0.06)
@given(data=st.data())
def test_a_ledger_with_another_byte_is_refused_or_tells_the_same(
    sweep: Path, data: st.DataObject
) -> None:
    good = told_by("ledgers", "search", "status", "small", "--runs", sweep.parent)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(shutil.copytree(sweep, Path(name) / "small"))
        file = folder / "ledger.sqlite"
        content = data.draw(damaged(file.read_bytes()))
        file.write_bytes(content)
        told = told_by("ledgers", "search", "status", "small", "--runs", name)
        assert told.is_accepted or str(file) in told.err
        assert not told.is_accepted or told.out == good.out
        assert file.read_bytes() == content
