"""char-ngram: words as sums of hashed character n-grams, built in, for any language, nothing to
download.

After fastText's subwords (Bojanowski et al. 2017, arXiv:1607.04606) with signed feature hashing
(Weinberger et al. 2009, arXiv:0902.2206) in the place of learned vectors.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np

from mmm.encoders import Batching, Floats
from mmm.features.recipe import Recipe

_VERSION = 1
MAX_TOKENS = 128
_NGRAMS = (1, 2, 3, 4, 5)
_LONGEST_KEPT = (
    100  # letters of a word that is remembered; longer ones hardly come again, and fill the memory
)
_WORDS = re.compile(r"\w+|[^\w\s]")


def _hashed(names: Iterable[tuple[str, int]], width: int) -> Floats:
    """The unit vector of names, each counted so many times."""
    sums = [0] * width
    for name, times in names:
        value = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
        sums[(value >> 1) % width] += times if value & 1 else -times
    vector = np.array(sums, dtype=np.float32)
    length = float(np.linalg.norm(vector))
    return vector / np.float32(length) if length else vector


def _pieces(word: str, salt: str) -> Iterator[tuple[str, int]]:
    """One after the other: all at once they would be many times the word."""
    marked = f"<{word}>"
    for n in _NGRAMS:
        for start in range(len(marked) - n + 1):
            yield f"{salt}{marked[start : start + n]}", 1
    # The word itself counts as much as its three-letter pieces together.
    yield f"{salt}={word}", max(1, len(word))


@lru_cache(maxsize=200_000)
def _word(word: str, width: int, salt: str) -> Floats:
    return _hashed(_pieces(word, salt), width)


def _vector(word: str, width: int, salt: str) -> Floats:
    """Of a word of any length, in time that grows as the length."""
    return (
        _word(word, width, salt)
        if len(word) <= _LONGEST_KEPT
        else _hashed(_pieces(word, salt), width)
    )


class CharNgram:
    """Position 0 stands for the whole (as [CLS]), then a vector a word; turns are divided by a
    separator vector.

    Position 0 adds the current utterance's words and, hashed to other places and halved, those of
    the turns before it.
    """

    batching: Batching = "loop"

    def __init__(self, *, width: int = 256, max_tokens: int = MAX_TOKENS) -> None:
        if not 16 <= width <= 4096:
            raise ValueError(f"--text-width {width} is out of range; expected 16 to 4096")
        if not 2 <= max_tokens <= MAX_TOKENS:
            raise ValueError(
                f"--max-tokens {max_tokens} is out of range; expected 2 to {MAX_TOKENS}"
            )
        self._width, self.max_tokens = width, max_tokens

    def recipe(self) -> Recipe:
        return {
            "kind": "text",
            "encoder": "char-ngram",
            "version": _VERSION,
            "width": self._width,
            "max_tokens": self.max_tokens,
        }

    def for_context(self, context: int) -> "CharNgram":
        """Position 0 reads every word of any number of turns; of vectors of words `max_tokens` are
        kept.
        """
        return self

    def width(self) -> int:
        return self._width

    def load(self, *, weights: bool = True) -> None:
        """Nothing: there are no weights."""

    def num_tokens(self, all_turns: Sequence[Sequence[str]]) -> list[int]:
        counts = (
            sum(len(_WORDS.findall(turn.lower())) for turn in turns) + len(turns)
            for turns in all_turns
        )
        return [min(count, self.max_tokens) for count in counts]

    def encode_batch(self, all_turns: Sequence[Sequence[str]]) -> list[Floats]:
        return [self.encode(turns) for turns in all_turns]

    def encode(self, turns: Sequence[str]) -> Floats:
        words = [_WORDS.findall(turn.lower()) for turn in turns]
        whole = np.zeros(self._width, dtype=np.float32)
        for salt, weight, chosen in (
            ("now ", 1.0, words[0]),
            ("before ", 0.5, [w for turn in words[1:] for w in turn]),
        ):
            total = sum(
                (_vector(word, self._width, salt) for word in chosen),
                start=np.zeros(self._width, dtype=np.float32),
            )
            whole += np.float32(weight / max(float(np.linalg.norm(total)), 1e-6)) * total
        # Unit vectors have components near 1 / sqrt(D); scaled to about one, as learned embeddings
        # are.
        rows = [whole]
        for distance, turn in enumerate(words):
            marker = (
                np.float32(0.5) * _hashed([(f"turn {distance}", 1)], self._width)
                if distance
                else np.float32(0.0)
            )
            if distance:
                rows.append(_hashed([("separator", 1)], self._width) + marker)
            rows += [
                _vector(word, self._width, "") + marker
                for word in turn[: self.max_tokens - len(rows)]
            ]
            if len(rows) >= self.max_tokens:
                break
        return np.stack(rows[: self.max_tokens]) * np.float32(self._width**0.5)
