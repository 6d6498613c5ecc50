"""Which sessions go to which split, and how clips without a session are dealt to sessions."""

import re
from collections.abc import Collection, Sequence

import numpy as np

_MOST = 9999


def parse_sessions(text: str, option: str) -> list[int]:
    """`29-32,35` -> [29, 30, 31, 32, 35], and none -> []. Raises ValueError naming the option."""
    if text.strip().lower() == "none":
        return []
    found: set[int] = set()
    for part in text.split(","):
        numbers = re.fullmatch(r"\s*([0-9]{1,4})\s*(?:-\s*([0-9]{1,4})\s*)?", part)
        if not numbers:
            raise ValueError(
                f"{option} {text!r}: {part.strip()!r} is no session; expected numbers and ranges,"
                " such as 29-32,35"
            )
        first, last = int(numbers[1]), int(numbers[2] or numbers[1])
        if first > last:
            raise ValueError(f"{option} {text!r}: the range {first}-{last} is empty")
        found.update(range(first, last + 1))
    return sorted(found)


def show_sessions(sessions: Collection[int]) -> str:
    """[1, 2, 3, 12] -> `1-3, 12`."""
    runs: list[list[int]] = []
    for session in sorted(sessions):
        if runs and runs[-1][1] == session - 1:
            runs[-1][1] = session
        else:
            runs.append([session, session])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def split_of_sessions(found: Collection[int], dev: str, test: str) -> dict[int, str]:
    """A split for each session that was found; what is neither dev nor test is train.

    Raises ValueError where sessions asked for are not there, are in both, or leave nothing to train
    on.
    """
    wanted = {
        "dev": parse_sessions(dev, "--dev-sessions"),
        "test": parse_sessions(test, "--test-sessions"),
    }
    for split, sessions in wanted.items():
        if missing := set(sessions) - set(found):
            raise ValueError(
                f"--{split}-sessions asks for session {show_sessions(missing)}, which the corpus"
                f" does not have (found: {show_sessions(found)}); name others, with --dev-sessions"
                " and --test-sessions"
            )
    if both := set(wanted["dev"]) & set(wanted["test"]):
        raise ValueError(
            f"session {show_sessions(both)} is in --dev-sessions and in --test-sessions"
        )
    splits = dict.fromkeys(sorted(found), "train")
    splits |= {session: split for split, sessions in wanted.items() for session in sessions}
    if "train" not in splits.values():
        raise ValueError("--dev-sessions and --test-sessions leave no session to train on")
    return splits


def deal(num_clips: int, sessions: Sequence[int], seed: int) -> list[int]:
    """A session for each clip, evenly and in an order that the seed decides."""
    rng = np.random.default_rng(seed)
    dealt = np.resize(np.asarray(sessions), num_clips)
    return [int(session) for session in rng.permutation(dealt)]
