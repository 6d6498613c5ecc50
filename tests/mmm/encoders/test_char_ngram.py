"""The built-in text encoder: its numbers are those of version 1, whatever it costs to compute them,
and no word takes the machine.
"""

import hashlib
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from mmm.encoders.char_ngram import CharNgram
from tests.conftest import HEADER, write_manifest, write_wav
from tests.sweep_parts import TIMEOUT_S, environment

# Of ["그래, okay", "no!"] with width 16: position 0, the first word, the separator, "!".
ROWS = {
    0: [
        -0.7438,
        -1.4141,
        1.2561,
        2.1699,
        1.0323,
        1.3324,
        0.0209,
        0.4187,
        0.23,
        -1.2765,
        -1.5678,
        0.0,
        0.0,
        0.4747,
        0.4187,
        -1.439,
    ],
    1: [
        0.0,
        1.633,
        0.0,
        0.0,
        0.0,
        0.0,
        -1.633,
        0.0,
        1.633,
        1.633,
        0.0,
        0.0,
        1.633,
        0.0,
        0.0,
        1.633,
    ],
    4: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    5: [
        -1.7056,
        0.0,
        0.0,
        0.0,
        -0.8528,
        0.0,
        -2.5584,
        -0.8528,
        0.0,
        2.0,
        -0.8528,
        0.0,
        -0.8528,
        0.0,
        1.7056,
        -0.8528,
    ],
}
LONG = 200_000


def test_the_numbers_of_version_1_have_not_changed() -> None:
    encoder = CharNgram(width=16)
    assert encoder.recipe()["version"] == 1
    found = encoder.encode(["그래, okay", "no!"])
    assert found.shape == (7, 16)
    for row, values in ROWS.items():
        assert found[row] == pytest.approx(np.array(values), abs=1e-4)


def by_definition(word: str, width: int) -> npt.NDArray[np.float32]:
    """All n-grams of the marked word, and the word itself as often as it has letters, hashed one by
    one.
    """
    marked = f"<{word}>"
    grams = [
        marked[start : start + n] for n in (1, 2, 3, 4, 5) for start in range(len(marked) - n + 1)
    ]
    grams += [f"={word}"] * max(1, len(word))
    vector = np.zeros(width, dtype=np.float32)
    for gram in grams:
        value = int.from_bytes(hashlib.blake2b(gram.encode(), digest_size=8).digest(), "little")
        vector[(value >> 1) % width] += 1.0 if value & 1 else -1.0
    return vector / np.float32(np.linalg.norm(vector)) * np.float32(width**0.5)


@pytest.mark.parametrize("length", [1, 2, 7, 99, 100, 101, 3000])
def test_a_word_of_any_length_is_what_its_definition_says(length: int) -> None:
    draw = random.Random(length)
    word = "".join(draw.choice("abc그래😀") for _ in range(length)).replace("😀", "z")
    found = CharNgram(width=64).encode([word])[1]
    np.testing.assert_allclose(found, by_definition(word, 64), rtol=0, atol=1e-5)


def test_words_beyond_the_tokens_count_for_the_whole_alone() -> None:
    words = [f"word{number}" for number in range(300)]
    found = CharNgram(width=32, max_tokens=20).encode([" ".join(words), "before"])
    assert found.shape == (20, 32)
    longer = CharNgram(width=32, max_tokens=128).encode([" ".join(words), "before"])
    np.testing.assert_array_equal(found, longer[:20])
    assert not np.array_equal(
        found[0], CharNgram(width=32, max_tokens=20).encode([" ".join(words[:250]), "before"])[0]
    )


def within_limits(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run Python with 300 MB more memory than its imports take, and a minute of processor."""
    limited = f"""
import resource, sys, mmm.cli.app, mmm.corpora.report_page, mmm.corpora.report
import mmm.encoders.extract
import torch, torchaudio, pandas
from mmm.encoders.char_ngram import CharNgram
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + 300 * 2**20,) * 2)
used = int(resource.getrusage(resource.RUSAGE_SELF).ru_utime)
resource.setrlimit(resource.RLIMIT_CPU, (used + 60, used + 60))
{program}
"""
    command = [sys.executable, "-c", limited, *map(str, arguments)]
    return subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )


@pytest.mark.slow
def test_a_word_of_hundreds_of_thousands_of_letters_takes_seconds_and_its_own_size() -> None:
    done = within_limits(f"print(CharNgram().encode(['x' * {LONG}, 'y' * {LONG}]).shape)")
    assert (done.returncode, done.stdout, done.stderr) == (0, "(4, 256)\n", "")


@pytest.mark.slow
def test_a_million_words_take_seconds_and_little_memory() -> None:
    done = within_limits("print(CharNgram().encode(['ab cd ' * 500_000]).shape)")
    assert (done.returncode, done.stdout, done.stderr) == (0, "(128, 256)\n", "")


@pytest.mark.slow
def test_a_corpus_with_such_a_word_is_reported_on_and_encoded(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", 0.1, 200.0, 0)
    rows = [
        [split, split, "1", split, split, "x" * 100_000, "a.wav", "sad", split]
        for split in ("train", "dev", "test")
    ]
    manifest = write_manifest(tmp_path / "manifest.csv", rows, HEADER)
    main = "sys.argv[0] = 'mmm'\nmmm.cli.app.main()"
    done = within_limits(main, "corpus-report", manifest, "-o", tmp_path / "page.html")
    assert (done.returncode, done.stderr) == (0, "")
    done = within_limits(
        main,
        "encode",
        manifest,
        "--features",
        tmp_path / "features",
        "--context",
        1,
        "--threads",
        1,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "3 utterances encoded" in done.stdout
