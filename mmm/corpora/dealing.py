"""Splits and folds of a corpus' rows, as `--split-by`, `--shares` and `--folds` ask."""

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from mmm.corpora.account import Account
from mmm.corpora.leaks import same_content
from mmm.corpora.options import KEYS
from mmm.corpora.prepared import PLACE, Prepared
from mmm.corpora.splits import deal_groups, joined
from mmm.faults import told
from mmm.manifest import SPLITS, natural_key

SHARES = "0.8,0.1,0.1"
_FAIR = 0.4  # of its share of rows is what a part gets at least, or groups are too large
_COLUMN = {"speaker": "speaker", "session": "session", "dialogue": "dialogue_id"}
Rows = Sequence[dict[str, str]]


def deal_splits(prepared: Prepared) -> None:
    """Give each row a split where the corpus has none, or where it is asked for. Raises
    ValueError.
    """
    options, rows = prepared.options, prepared.rows
    has_own = all(row.get("split") for row in rows)
    is_asked = options.split_by is not None or options.shares is not None
    if (has_own and not is_asked) or (options.folds is not None and not is_asked):
        return
    shares = parse_shares(options.shares or SHARES, has_folds=options.folds is not None)
    used = [(split, share) for split, share in zip(SPLITS, shares, strict=True) if share > 0]
    asked = options.split_by or prepared.split_by or None
    key = _key(asked, "--split-by", rows, [share for _, share in used], options.seed)
    if (found := _num_groups(rows, key)) < len(used):
        raise ValueError(_too_few("--split-by", key, found, len(used), "splits", rows))
    parts = _dealt(rows, key, [share for _, share in used], prepared)
    for row, part in zip(rows, parts, strict=True):
        row["split"] = used[part][0]
    shown = ",".join(f"{share:g}" for share in shares)
    groups = f"{found:,} group" + ("s" if found > 1 else "")
    what = f"dealt to splits by {key}, {groups}, shares {shown}, seed {options.seed}"
    prepared.account.note(what, split_counts(rows))
    _tell_of_speakers(prepared.account, rows)


def deal_folds(prepared: Prepared) -> None:
    """Give each row that is not of test a fold, 1 to k. Where the corpus has no split of its own,
    and none was dealt, fold 1 is dev and the others train. Raises ValueError.
    """
    options = prepared.options
    if options.folds is None:
        if options.fold_by is not None:
            raise ValueError("--fold-by says what folds are dealt by; say how many: --folds 5")
        return
    has_own = options.shares is None and options.split_by is None
    has_own = has_own and all(row.get("split") for row in prepared.rows)
    has_own = has_own and any(row["split"] == "dev" for row in prepared.rows)
    rows = [row for row in prepared.rows if row.get("split") != "test"]
    if not rows:
        raise ValueError("--folds: every row is of test, which is in no fold")
    num_folds = 2 if options.folds == "all" else _number_of_folds(options.folds)
    asked = options.fold_by or prepared.fold_by or None
    key = _key(asked, "--fold-by", rows, [1 / num_folds] * num_folds, options.seed)
    found = _num_groups(rows, key)
    if options.folds == "all":
        num_folds = max(2, found)
    if found < num_folds:
        raise ValueError(_too_few("--fold-by", key, found, num_folds, "folds", rows))
    if options.folds == "all":
        groups = joined(_keys(rows, key))
        names: dict[int, str] = {}
        for row, group in zip(rows, groups, strict=True):
            names.setdefault(group, row[_COLUMN[key]])
        order = sorted(names, key=lambda group: (natural_key(names[group]), names[group]))
        folds = [order.index(group) + 1 for group in groups]
    else:
        folds = [part + 1 for part in _dealt(rows, key, [1 / num_folds] * num_folds, prepared)]
    prepared.is_dev_fold_1 = not has_own
    for row in prepared.rows:
        row["fold"] = ""
    for row, fold in zip(rows, folds, strict=True):
        row["fold"] = str(fold)
        if not has_own:
            row["split"] = "dev" if fold == 1 else "train"
    _tell_folds(prepared.account, rows, key, num_folds)
    _tell_of_speakers(prepared.account, rows)


def _tell_of_speakers(account: Account, rows: Rows) -> None:
    if nameless := sum(not row["speaker"] for row in rows):
        what = "speakers are not known, so parts may share them; name them: --column speaker=COLUMN"
        account.note(what, f"{nameless:,} rows")


def parse_shares(text: str, *, has_folds: bool = False) -> list[float]:
    """`0.8,0.1,0.1` or `80,10,10`, of train, dev and test. Raises ValueError."""
    try:
        shares = [float(part) for part in text.split(",")]
    except ValueError:
        shares = []
    total = sum(shares)
    is_whole = any(abs(total - whole) < 1e-6 * whole for whole in (1, 100))
    if len(shares) != 3 or not is_whole or min(shares) < 0:
        raise ValueError(
            f"--shares {text!r}: expected those of train, dev and test, which sum to 1, such as"
            f" {SHARES}"
        )
    if shares[0] == 0 or (shares[1] == 0 and not has_folds):
        raise ValueError(
            f"--shares {text!r}: train and dev need a share each; test may have 0, as in 0.8,0.2,0"
        )
    return [share / total for share in shares]


def split_counts(rows: Rows) -> str:
    """`20 train, 4 dev, 8 test`."""
    counts = Counter(row["split"] for row in rows)
    return ", ".join(f"{counts[split]:,} {split}" for split in SPLITS if counts[split])


def advice(prepared: Prepared, shared: Collection[str]) -> str:
    """The option that deals so that less is shared of what is: `speaker`, `session`, `audio
    content`; "" where there is none.
    """
    options = prepared.options
    column = "fold" if options.folds is not None else "split"
    rows = [row for row in prepared.rows if column == "split" or row["split"] != "test"]
    counts = Counter(row[column] for row in rows)
    shares = [count / len(rows) for count in counts.values()]
    option, used = (
        ("--split-by", options.split_by) if column == "split" else ("--fold-by", options.fold_by)
    )
    for key in KEYS:
        if key in shared and _fair(rows, joined(_keys(rows, key)), shares, options.seed):
            return f"{option} {key}"
    if "audio content" in shared and options.folds != "all":
        # What is not shared now has to stay so.
        key = next(key for key in KEYS if key not in shared and _is_named(rows, key))
        if key != used and _fair(rows, _joined_by_audio(rows, key), shares, options.seed):
            return f"{option} {key}"
    return ""


def _key(asked: str | None, option: str, rows: Rows, shares: Sequence[float], seed: int) -> str:
    """What to deal by: as asked, else the first of speaker, session and dialogue that each row has
    and whose groups make parts of fair sizes.
    """
    if asked is None:
        for key in KEYS:
            if _is_named(rows, key) and _fair(rows, joined(_keys(rows, key)), shares, seed):
                return key
        return "dialogue"
    if asked not in KEYS:
        raise ValueError(f"unknown {option} {asked!r}; expected one of {', '.join(KEYS)}")
    if nameless := [row.get(PLACE, row["utterance_id"]) for row in rows if not row[_COLUMN[asked]]]:
        raise ValueError(
            f"{option} {asked}: {_COLUMN[asked]} is empty in {told(nameless)}; deal by another:"
            f" {option} {'session' if asked == 'speaker' else 'dialogue'}"
        )
    return asked


def _is_named(rows: Rows, key: str) -> bool:
    return all(row[_COLUMN[key]] for row in rows)


def _num_groups(rows: Rows, key: str) -> int:
    return max(joined(_keys(rows, key)), default=-1) + 1


def _keys(rows: Rows, key: str) -> list[tuple[tuple[str, str], ...]]:
    """A group is what shares the key, or a dialogue, which a manifest does not divide."""
    return [((key, row[_COLUMN[key]]), ("dialogue", row["dialogue_id"])) for row in rows]


def _joined_by_audio(rows: Rows, key: str) -> list[int]:
    content = same_content(Path(row["audio"]) for row in rows)
    sounds = [("audio", content.get(Path(row["audio"]), row["audio"])) for row in rows]
    return joined([(*own, sound) for own, sound in zip(_keys(rows, key), sounds, strict=True)])


def _dealt(rows: Rows, key: str, shares: Sequence[float], prepared: Prepared) -> list[int]:
    """A part for each row. Groups that have audio in common stay together, where that makes parts
    of fair sizes.
    """
    plain, with_audio = joined(_keys(rows, key)), _joined_by_audio(rows, key)
    seed = prepared.options.seed
    if max(with_audio) < max(plain) and (parts := _fair(rows, with_audio, shares, seed)):
        what = f"groups by {key} joined, since they have audio in common"
        prepared.account.note(what, f"{max(plain) + 1:,} became {max(with_audio) + 1:,}")
        return parts
    return deal_groups(_labels(rows), plain, shares, seed)


def _fair(
    rows: Rows, groups: Sequence[int], shares: Sequence[float], seed: int
) -> list[int] | None:
    """A part for each row, None where the groups are too few or too large for that."""
    if max(groups) + 1 < len(shares):
        return None
    parts = deal_groups(_labels(rows), groups, shares, seed)
    counts = Counter(parts)
    least = [_FAIR * share * len(rows) for share in shares]
    return parts if all(counts[n] >= count for n, count in enumerate(least)) else None


def _labels(rows: Rows) -> list[tuple[str, ...]]:
    return [tuple(name for name in row["emotion"].split(";") if name) for row in rows]


def _too_few(option: str, key: str, found: int, wanted: int, what: str, rows: Rows) -> str:
    groups = "group" if found == 1 else "groups"
    others = [other for other in KEYS if other != key and _is_named(rows, other)]
    others = [other for other in others if _num_groups(rows, other) >= wanted]
    to_type = f"deal by another: {option} {others[0]}" if others else ""
    if not others and what == "splits":
        to_type = "deal to two, without test: --shares 0.8,0.2,0" if found == 2 else ""
    if not others and what == "folds":
        to_type = f"fewer: --folds {found}" if found > 1 else ""
    return (
        f"{option} {key} makes {found} {groups}, too few for {wanted} {what} (those with a dialogue"
        f" in common are one); {to_type or 'the corpus cannot be dealt so'}"
    )


def _number_of_folds(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 2 <= int(text[:5]) <= 1000:
        raise ValueError(f"--folds {text!r}: expected a number from 2 on, or all")
    return int(text)


def _tell_folds(account: Account, rows: Rows, key: str, num_folds: int) -> None:
    """Notes what is held out in each fold, and the classes that it leaves nothing of."""
    names: dict[str, dict[str, int]] = {str(fold): {} for fold in range(1, num_folds + 1)}
    has: dict[str, Counter[str]] = {fold: Counter() for fold in names}
    for row in rows:
        held = names[row["fold"]]
        held[row[_COLUMN[key]]] = held.get(row[_COLUMN[key]], 0) + 1
        has[row["fold"]].update(name for name in row["emotion"].split(";") if name)
    everywhere = sum(has.values(), Counter[str]())
    for fold, held in names.items():
        shown = ", ".join(list(held)[:5]) + (", ..." if len(held) > 5 else "")
        what = f"{num_folds} folds by {key}, each held out once"
        account.note(what, f"fold {fold}: {sum(held.values()):,} rows of {shown}")
        for name in sorted(everywhere):
            if has[fold][name] == everywhere[name]:
                account.note("classes that a fold holds out whole", f"fold {fold}: {name}")
            elif not has[fold][name]:
                account.note("classes that a fold does not hold out", f"fold {fold}: {name}")
