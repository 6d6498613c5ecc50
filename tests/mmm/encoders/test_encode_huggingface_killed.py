"""`mmm encode` with pretrained models, killed and finished: padded batches have to be the same ones
again.
"""

import signal
from pathlib import Path

import pytest
import torch
from transformers import Wav2Vec2Config, Wav2Vec2Model
from typer.testing import CliRunner

from mmm.cli.app import app
from mmm.features.store import list_recipes
from tests.conftest import Corpus, names_in
from tests.encode_parts import contents, encode_until, num_done
from tests.mmm.encoders.test_huggingface import SPEECH, save_electra, save_speech_model

NUM_SPEECH, NUM_TEXT = 80, 40  # rows: 40 utterances, two speech stores, one text store
KILLED_AT = (9, 30, 60)  # rows of one run; 80 of them would be all of speech


@pytest.mark.slow
def test_pretrained_features_are_the_same_bytes_after_kills(corpus: Corpus, tmp_path: Path) -> None:
    torch.manual_seed(0)
    # With a layer norm files of different lengths share a padded batch, so which ones do can be
    # seen in the last bits.
    model = Wav2Vec2Model(
        Wav2Vec2Config(**SPEECH, feat_extract_norm="layer", do_stable_layer_norm=True)
    )
    speech, text = (
        save_speech_model(tmp_path / "wav2vec2", model),
        save_electra(tmp_path / "electra"),
    )
    words = [
        "encode",
        str(corpus.manifest.path),
        "--audio-encoder",
        str(speech),
        "--text-encoder",
        str(text),
        "--batch-seconds",
        "4",
        "--context",
        "2",
        "--threads",
        "2",
        "--precision",
        "float32",
    ]

    def run(features: Path, num_rows: int | None = None) -> int | None:
        return encode_until([*words, "--features", str(features)], num_rows)

    undisturbed, features = tmp_path / "undisturbed", tmp_path / "features"
    done = CliRunner().invoke(app, [*words, "--features", str(undisturbed)])
    assert done.exit_code == 0, done.output
    rows = [0]
    for num_rows in KILLED_AT:
        assert run(features, num_rows) == -signal.SIGKILL
        rows.append(num_done(features))
    # Each run went on where the one before it was killed, and the last one died in text.
    assert rows == sorted(rows) and 0 < rows[1] < NUM_SPEECH <= rows[-1] < NUM_SPEECH + NUM_TEXT, (
        rows
    )
    assert run(features) == 0
    found, expected = contents(features), contents(undisturbed)
    assert len(list_recipes(features)) == 3 and found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []
    assert [name for name in names_in(features) if name.startswith(".") and name != ".lock"] == []
