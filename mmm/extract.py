"""From a manifest to feature stores: everything is encoded once, what is already there is kept."""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmm.encoders import SpeechEncoder, TextEncoder
from mmm.encoders.audio import SAMPLE_RATE_HZ, num_speech_samples
from mmm.encoding import Job, Runner, SpeechJob, TextJob, default_threads, plan_batches, run_here
from mmm.manifest import Manifest
from mmm.partial import PartialStore, Plan, all_rows, rows_there
from mmm.sound import SoundInfo, read_sound, sound_info
from mmm.store import FeatureStore, Recipe, list_recipes, open_store, recipe_hash, utterance_key

_TURN_BREAK = "\x1e"


@dataclass(frozen=True)
class Progress:
    """`done` of `total` utterances of one `task` are in their store; of them `seconds` of speech were encoded now.

    `files` are the headers of the files that were encoded since the step before.
    """

    task: str
    done: int
    total: int
    seconds: float = 0.0
    seconds_total: float = 0.0
    files: tuple[SoundInfo, ...] = ()


@dataclass(frozen=True)
class BadFile:
    """A clip that cannot be used, and why."""

    audio: str
    utterance_ids: tuple[str, ...]
    reason: str


class BadFiles(ValueError):
    """Clips that cannot be used, found before the encoder started."""

    def __init__(self, manifest: Path, files: Sequence[BadFile], num_clips: int) -> None:
        self.files = tuple(files)
        lines = [f"  utterance {file.utterance_ids[0]!r} ({file.audio}): {file.reason}" for file in files]
        super().__init__(f"{manifest}: {len(files)} of {num_clips} audio files cannot be used; repair them, or leave them out with "
                         "mmm encode --skip-bad\n" + "\n".join(lines))  # fmt: skip


def turns_of(manifest: Manifest, index: int, context: int) -> list[str]:
    """The text of the utterance and of the turns before it, most recent first."""
    return [manifest.utterances[row].text for row in manifest.history(index, context)]


def speech_key(manifest: Manifest, index: int) -> int:
    utterance = manifest.utterances[index]
    return utterance_key(utterance.utterance_id, utterance.audio)


def text_key(manifest: Manifest, index: int, context: int) -> int:
    return utterance_key(manifest.utterances[index].utterance_id, _TURN_BREAK.join(turns_of(manifest, index, context)))


@contextlib.contextmanager
def _only_writer(features: Path) -> Iterator[None]:
    features.mkdir(parents=True, exist_ok=True)
    with open(features / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{features}: another mmm encode is writing here; wait for it or use another folder") from None
        yield


def _clips(manifest: Manifest) -> dict[str, list[int]]:
    """Each clip with its utterances: one clip may serve several lines of a corpus."""
    found: dict[str, list[int]] = {}
    for index, utterance in enumerate(manifest.utterances):
        found.setdefault(utterance.audio, []).append(index)
    return found


def _stamps(manifest: Manifest) -> list[tuple[int, int]]:
    """(size, mtime in ns) of each utterance's clip. Raises FileNotFoundError."""
    try:
        folder = str(manifest.path.parent)
        stats = {name: os.stat(os.path.join(folder, name)) for name in {u.audio for u in manifest.utterances}}  # noqa: PTH116, PTH118
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error.filename}: no such audio file") from None
    return [(stats[u.audio].st_size, stats[u.audio].st_mtime_ns) for u in manifest.utterances]


def find_bad_files(manifest: Manifest, clips: dict[str, list[int]] | None = None) -> Iterator[tuple[int, BadFile | None]]:
    """Read clips (all, unless `clips` says which) from end to end; yields how many were read, and a fault where there is one."""

    def check(item: tuple[str, list[int]]) -> BadFile | None:
        audio, indices = item
        path = manifest.path.parent / audio
        try:
            num_speech_samples(path, sound_info(path))
            read_sound(path)
        except (ValueError, OSError) as error:
            return BadFile(audio, tuple(manifest.utterances[index].utterance_id for index in indices), str(error))
        return None

    with ThreadPoolExecutor(default_threads()) as pool:
        yield from enumerate(pool.map(check, (_clips(manifest) if clips is None else clips).items()), start=1)


def encode_speech(
    manifest: Manifest, features_dir: Path, encoder: SpeechEncoder, features: Sequence[str], *, batch_s: float = 0.0,
    run: Runner | None = None,
) -> Iterator[Progress]:  # fmt: skip
    """Write a store for each of `features`; files that share a batch add up to `batch_s` seconds, 0 is one file at a time.

    Raises FileNotFoundError, BadFiles before anything is encoded, or ValueError. Killed, it goes on where it was when called again.
    """
    keys = [speech_key(manifest, index) for index in range(len(manifest.utterances))]
    stamps = _stamps(manifest)
    recipes = {feature: encoder.recipe(feature) for feature in features}
    with _only_writer(features_dir):
        paths = {feature: features_dir / recipe_hash(recipe) for feature, recipe in recipes.items()}
        todo = [feature for feature in features if not _holds(paths[feature], keys, stamps)]
        if not todo:
            yield Progress("speech", len(keys), len(keys))
            return
        clips = _clips(manifest)
        there = [set(all_rows(paths[feature])) for feature in todo]
        missing = {audio: indices for audio, indices in clips.items()
                   if not all((keys[index], *stamps[index]) in found for found in there for index in indices)}  # fmt: skip
        bad = []
        for number, fault in find_bad_files(manifest, missing):
            if fault:
                bad.append(fault)
            yield Progress("checking audio", number, len(missing))
        if bad:
            raise BadFiles(manifest.path, bad, len(clips))
        encoder.load(weights=False)
        names = list(clips)
        infos = [sound_info(manifest.path.parent / name) for name in names]
        samples = [num_speech_samples(manifest.path.parent / name, info) for name, info in zip(names, infos, strict=True)]
        of_clip = {name: place for place, name in enumerate(names)}
        rows = [of_clip[utterance.audio] for utterance in manifest.utterances]
        stores, finished = {}, []
        for feature in todo:
            lengths = [encoder.num_frames(count, feature) for count in samples]
            plan, old = _plan(
                paths[feature], recipes[feature], encoder.width(feature), keys, stamps, [lengths[row] for row in rows]
            )
            stores[feature] = PartialStore(paths[feature], plan)
            finished.append(old)
        # Planned over what the finished stores lack and not over what a killed run left: the same batches, so the same bytes.
        fresh = [place for place, name in enumerate(names)
                 if not all((keys[index], *stamps[index]) in old for old in finished for index in clips[name])]  # fmt: skip
        seconds = [samples[place] / SAMPLE_RATE_HZ for place in fresh]
        batches = [[fresh[member] for member in batch] for batch in plan_batches(seconds, batch_s, encoder.batching)]

        def job(batch: Sequence[int]) -> Job:
            named = [
                f"utterance {manifest.utterances[clips[names[place]][0]].utterance_id!r} ({names[place]})" for place in batch
            ]
            return SpeechJob(
                tuple((manifest.path.parent / names[place]).absolute() for place in batch), tuple(named), tuple(todo)
            )

        members = [[clips[names[place]] for place in batch] for batch in batches]
        seconds = [sum(samples[place] for place in batch) / SAMPLE_RATE_HZ for batch in batches]
        numbers = _lacking(stores, members)
        total_s = sum(seconds[number] for number in numbers)
        done = len(keys) - sum(len(rows) for number in numbers for rows in members[number])
        done_s = 0.0
        yield Progress("speech", done, len(keys), 0.0, total_s)
        for number in _fill(stores, encoder, members, numbers, lambda number: job(batches[number]), run):
            done += sum(map(len, members[number]))
            done_s += seconds[number]
            yield Progress("speech", done, len(keys), done_s, total_s, tuple(infos[place] for place in batches[number]))


def encode_text(
    manifest: Manifest, features_dir: Path, encoder: TextEncoder, contexts: Sequence[int], *, batch_tokens: int = 0,
    run: Runner | None = None,
) -> Iterator[Progress]:  # fmt: skip
    """Write a store for each of `contexts`. Raises ValueError. Killed, it goes on where it was when called again."""
    for context in contexts:
        recipe: Recipe = {**encoder.recipe(), "context": context}
        path, task = features_dir / recipe_hash(recipe), f"text, context {context}"
        keys = [text_key(manifest, index, context) for index in range(len(manifest.utterances))]
        stamps = [(0, 0)] * len(keys)
        with _only_writer(features_dir):
            if _holds(path, keys, stamps):
                yield Progress(task, len(keys), len(keys))
                continue
            encoder.load(weights=False)
            turns = [turns_of(manifest, index, context) for index in range(len(keys))]
            lengths = encoder.num_tokens(turns)
            plan, old = _plan(path, recipe, encoder.width(), keys, stamps, lengths)
            stores = {"text": PartialStore(path, plan)}
            fresh = [row for row, key in enumerate(keys) if (key, 0, 0) not in old]
            planned = plan_batches([lengths[row] for row in fresh], batch_tokens, encoder.batching)
            batches = [[fresh[member] for member in batch] for batch in planned]
            members = [[[row] for row in batch] for batch in batches]

            def job(number: int, batches: list[list[int]] = batches, turns: list[list[str]] = turns) -> Job:
                return TextJob(tuple(tuple(turns[row]) for row in batches[number]))

            numbers = _lacking(stores, members)
            done = len(keys) - sum(len(batches[number]) for number in numbers)
            for number in _fill(stores, encoder, members, numbers, job, run):
                done += len(batches[number])
                yield Progress(task, done, len(keys))


def _plan(
    path: Path, recipe: Recipe, width: int, keys: Sequence[int], stamps: Sequence[tuple[int, int]], lengths: Sequence[int]
) -> tuple[Plan, set[tuple[int, int, int]]]:
    """The store to be: the manifest's rows in its order, then those of other manifests; and the rows that a finished store has."""
    mine, old = set(keys), set()
    all_keys, all_stamps, all_lengths = list(keys), list(stamps), list(lengths)
    for rows in rows_there(path):
        if rows.store.path != path:
            continue
        old = set(rows.places())
        own_lengths = np.diff(rows.store.offsets).tolist()
        for row, key in enumerate(rows.store.keys.tolist()):
            # Encoding a second corpus must not lose the first one's features.
            if key not in mine:
                size, mtime_ns = rows.store.stamps[row].tolist()
                all_keys.append(key)
                all_stamps.append((size, mtime_ns))
                all_lengths.append(own_lengths[row])
    arrays = (
        np.asarray(all_keys, dtype=np.uint64),
        np.asarray(all_stamps, dtype=np.int64),
        np.asarray(all_lengths, dtype=np.int64),
    )
    return Plan(recipe, width, *arrays), old


def _lacking(stores: dict[str, PartialStore], members: Sequence[Sequence[Sequence[int]]]) -> list[int]:
    """Batches of which a store lacks something: whole batches, so that they give the same bytes as the first time."""
    done = np.logical_and.reduce([store.done for store in stores.values()])
    return [number for number, batch in enumerate(members) if not all(done[row] for rows in batch for row in rows)]


def _fill(
    stores: dict[str, PartialStore], encoder: SpeechEncoder | TextEncoder, members: Sequence[Sequence[Sequence[int]]],
    numbers: Sequence[int], job: Callable[[int], Job], run: Runner | None,
) -> Iterator[int]:  # fmt: skip
    """Encode batches; yields the number of each that is in the stores, and moves them to their place at the end."""
    runner = run or run_here(default_threads())
    try:
        for number, result in runner(encoder, ((number, job(number)) for number in numbers)) if numbers else ():
            for place, (rows, found) in enumerate(zip(members[number], result, strict=True)):
                for feature, store in stores.items():
                    for row in rows:
                        try:
                            store.put(row, *found[feature])
                        except ValueError as error:
                            named = job(number)
                            what = f"{named.names[place]}: " if isinstance(named, SpeechJob) else ""
                            raise ValueError(f"{what}{error}") from error
            for store in stores.values():
                store.mark()
            yield number
    except BaseException:
        for store in stores.values():
            store.close()
        raise
    for store in stores.values():
        store.finish()


def _holds(path: Path, keys: Sequence[int], stamps: Sequence[tuple[int, int]]) -> bool:
    """Whether a finished store has it all."""
    if not (path / "recipe.json").is_file():
        return False
    store = open_store(path)
    rows = store.find(keys)
    return bool((rows >= 0).all() and (store.stamps[rows] == stamps).all())


def find_store(features_dir: Path, kind: str, **wanted: object) -> FeatureStore:
    """The one store of `kind` with the recipe entries `wanted`. Raises FileNotFoundError or ValueError, saying what is there."""
    recipes = {path: recipe for path, recipe in list_recipes(features_dir).items() if recipe["kind"] == kind}
    found = [path for path, recipe in recipes.items() if all(recipe.get(name) == value for name, value in wanted.items())]
    (name, value), *_ = wanted.items()
    if not found:
        there = ", ".join(sorted({str(recipe.get(name)) for recipe in recipes.values()})) or "none"
        option = {"feature": "audio-feature"}.get(name, name)
        raise FileNotFoundError(
            f"no {kind} features for {option.replace('-', '_')}={value} in {features_dir}/ (found: {there}); "
            f"run: mmm encode manifest.csv --features {features_dir} --{option} {value}"
        )
    if len(found) > 1:
        made = "; ".join(f"{path.name}: {recipes[path]}" for path in found)
        raise ValueError(
            f"{features_dir}/ holds {kind} features of {len(found)} encoders for {name}={value} ({made}); "
            "keep one encoder of each kind in a features folder: encode into another one, or remove the folder you don't want"
        )
    return open_store(found[0])
