"""From a manifest to feature stores: everything is encoded once, what is already there is kept."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mmm.audio.sound import SoundInfo, sound_info
from mmm.audio.speech import SAMPLE_RATE_HZ, num_speech_samples
from mmm.device import cpus_here
from mmm.encoders import SpeechEncoder, TextEncoder
from mmm.encoders.jobs import Job, Runner, SpeechJob, TextJob, plan_batches, run_here
from mmm.features.clips import BadFiles, clips_of, find_bad_files, hash_clips, stamps_of
from mmm.features.keys import keys_of
from mmm.features.recipe import Recipe, recipe_hash
from mmm.features.store import AUDIO_HASH_BYTES, open_store
from mmm.features.writer import PartialStore, Plan, Rows, only_writer, rows_there, tidy
from mmm.manifest import Manifest, turns_of


@dataclass(frozen=True)
class Progress:
    """`done` of `total` utterances of one `task` are in their store; of them `seconds` of speech
    were encoded now.

    `files` are the headers of the files that were encoded since the step before.
    """

    task: str
    done: int
    total: int
    seconds: float = 0.0
    seconds_total: float = 0.0
    files: tuple[SoundInfo, ...] = ()


def encode_speech(
    manifest: Manifest,
    features_dir: Path,
    encoder: SpeechEncoder,
    features: Sequence[str],
    *,
    batch_s: float = 0.0,
    run: Runner | None = None,
) -> Iterator[Progress]:
    """Write a store for each of `features`, a row a clip; files that share a batch add up to
    `batch_s` seconds, 0 is one file at a time.

    Raises FileNotFoundError, BadFiles before anything is encoded, or ValueError. Killed, it goes on
    where it was when called again.
    """
    recipes = {feature: encoder.recipe(feature) for feature in features}
    keys = np.array(keys_of(manifest, recipes[features[0]]), dtype=np.uint64)
    clips = clips_of(manifest)
    names = list(clips)
    rows = np.empty(len(keys), dtype=np.int64)  # of utterances: the number of their clip
    for number, indices in enumerate(clips.values()):
        rows[indices] = number
    stamps = stamps_of(manifest, names)
    with only_writer(features_dir):
        paths = {feature: features_dir / recipe_hash(recipe) for feature, recipe in recipes.items()}
        todo = [
            feature
            for feature in features
            if not _holds(paths[feature], keys, stamps[rows], manifest.path)
        ]
        if not todo:
            yield Progress("speech", len(keys), len(keys))
            return
        there_of = {feature: rows_there(paths[feature], manifest.path) for feature in features}
        every = [there for of_feature in there_of.values() for there in of_feature]
        hashes, to_read = _recorded_hashes(manifest, every, keys, stamps[rows])
        for number, (name, content) in enumerate(hash_clips(manifest, to_read), start=1):
            hashes[name] = content
            yield Progress("comparing audio", number, len(to_read))
        known = _hashes_of(names, hashes)
        is_there = np.ones(len(names), dtype=bool)
        for feature in todo:
            of_feature = np.zeros(len(names), dtype=bool)
            for there in there_of[feature]:
                of_feature[rows[there.places(keys, stamps[rows], known[rows]) >= 0]] = True
            is_there &= of_feature
        missing = {names[row]: clips[names[row]] for row in np.flatnonzero(~is_there)}
        bad = []
        for number, fault in find_bad_files(manifest, missing, hashes):
            if fault:
                bad.append(fault)
            yield Progress("checking audio", number, len(missing))
        if bad:
            raise BadFiles(manifest.path, bad, len(clips))
        known = _hashes_of(names, hashes)
        encoder.load(weights=False)
        infos = [sound_info(manifest.path.parent / name) for name in names]
        samples = [
            num_speech_samples(manifest.path.parent / name, info)
            for name, info in zip(names, infos, strict=True)
        ]
        stores, finished = {}, []
        for feature in todo:
            lengths = np.array([encoder.num_frames(count, feature) for count in samples])
            mine = Plan(
                recipes[feature], encoder.width(feature), keys, stamps, lengths, known, rows
            )
            plan, old = _plan(paths[feature], mine, manifest.path)
            store = PartialStore(paths[feature], plan, manifest.path)
            if old.all():
                store.finish()  # with other stamps, with hashes or checksums that it lacked
            else:
                stores[feature] = store
                finished.append(old)
        if not stores:
            yield Progress("speech", len(keys), len(keys))
            return
        # Planned over what the finished stores lack and not over what a killed run left: the same
        # batches, so the same bytes.
        fresh = np.flatnonzero(~np.logical_and.reduce(finished)).tolist()
        seconds = [samples[row] / SAMPLE_RATE_HZ for row in fresh]
        batches = [
            [fresh[member] for member in batch]
            for batch in plan_batches(seconds, batch_s, encoder.batching)
        ]

        def job(number: int) -> Job:
            chosen = [names[row] for row in batches[number]]
            first = [manifest.utterances[clips[name][0]].utterance_id for name in chosen]
            named = [f"utterance {one!r} ({name})" for one, name in zip(first, chosen, strict=True)]
            files = ((manifest.path.parent / name).absolute() for name in chosen)
            return SpeechJob(tuple(files), tuple(named), tuple(stores))

        seconds = [sum(samples[row] for row in batch) / SAMPLE_RATE_HZ for batch in batches]
        served = [sum(len(clips[names[row]]) for row in batch) for batch in batches]
        numbers = _lacking(stores, batches)
        total_s = sum(seconds[number] for number in numbers)
        done = len(keys) - sum(served[number] for number in numbers)
        done_s = 0.0
        yield Progress("speech", done, len(keys), 0.0, total_s)
        for number in _fill(stores, encoder, batches, numbers, job, run):
            done += served[number]
            done_s += seconds[number]
            files = tuple(infos[row] for row in batches[number])
            yield Progress("speech", done, len(keys), done_s, total_s, files)


def encode_text(
    manifest: Manifest,
    features_dir: Path,
    encoder: TextEncoder,
    contexts: Sequence[int],
    *,
    with_speakers: bool = False,
    batch_tokens: int = 0,
    run: Runner | None = None,
) -> Iterator[Progress]:
    """Write a store for each of `contexts`, of what was said or, `with_speakers`, of who said what.

    Raises ValueError. Killed, it goes on where it was when called again.
    """
    for context in contexts:
        of_context = encoder.for_context(context)
        recipe: Recipe = {**of_context.recipe(), "context": context}
        if with_speakers:
            recipe["speakers"] = True
        path, task = features_dir / recipe_hash(recipe), f"text, context {context}"
        keys = np.array(keys_of(manifest, recipe), dtype=np.uint64)
        stamps = np.zeros((len(keys), 2), dtype=np.int64)
        with only_writer(features_dir):
            if _holds(path, keys, stamps, manifest.path):
                yield Progress(task, len(keys), len(keys))
                continue
            of_context.load(weights=False)
            turns = [
                turns_of(manifest, index, context, with_speakers) for index in range(len(keys))
            ]
            lengths = of_context.num_tokens(turns)
            plan, old = _plan(
                path,
                Plan(recipe, of_context.width(), keys, stamps, np.array(lengths)),
                manifest.path,
            )
            store = PartialStore(path, plan, manifest.path)
            if old.all():
                store.finish()  # with the checksums that it lacked
                yield Progress(task, len(keys), len(keys))
                continue
            stores = {"text": store}
            fresh = np.flatnonzero(~old).tolist()
            planned = plan_batches([lengths[row] for row in fresh], batch_tokens, encoder.batching)
            batches = [[fresh[member] for member in batch] for batch in planned]

            def job(
                number: int,
                batches: list[list[int]] = batches,
                turns: list[list[str]] = turns,
                context: int = context,
            ) -> Job:
                return TextJob(tuple(tuple(turns[row]) for row in batches[number]), context)

            numbers = _lacking(stores, batches)
            done = len(keys) - sum(len(batches[number]) for number in numbers)
            for number in _fill(stores, encoder, batches, numbers, job, run):
                done += len(batches[number])
                yield Progress(task, done, len(keys))


def _recorded_hashes(
    manifest: Manifest,
    every: Sequence[Rows],
    keys: npt.NDArray[np.uint64],
    stamps: npt.NDArray[np.int64],
) -> tuple[dict[str, bytes], list[str]]:
    """Hashes of clips that stores know, and which clips have to be read to see whether they are
    those that were encoded. Keys and stamps are by utterance.

    Those of another time of change with the size of before, and those whose hash a store of an
    earlier version did not keep.
    """
    known = np.zeros((len(keys), AUDIO_HASH_BYTES), dtype=np.uint8)
    is_open = np.zeros(len(keys), dtype=bool)
    for there in every:
        places = there.store.find(keys)
        recorded, stamped = there.store.audio_hashes[places], there.store.stamps[places]
        has_hash, has_row = recorded.any(axis=1), places >= 0
        same_stamp = has_row & (stamped == stamps).all(axis=1)
        same_size = has_row & (stamped[:, 0] == stamps[:, 0])
        taken = same_stamp & has_hash
        known[taken] = recorded[taken]
        is_open |= there.done[places] & (
            (same_stamp & ~has_hash) | (same_size & ~same_stamp & has_hash)
        )
    audio = [utterance.audio for utterance in manifest.utterances]
    hashes = {audio[row]: known[row].tobytes() for row in np.flatnonzero(known.any(axis=1))}
    return hashes, list(
        dict.fromkeys(audio[row] for row in np.flatnonzero(is_open) if audio[row] not in hashes)
    )


def _hashes_of(names: Sequence[str], hashes: dict[str, bytes]) -> npt.NDArray[np.uint8]:
    """(M, 16) the hash of each clip, zeros where it is not known."""
    content = b"".join(hashes.get(name, bytes(AUDIO_HASH_BYTES)) for name in names)
    return np.frombuffer(content, dtype=np.uint8).reshape(-1, AUDIO_HASH_BYTES)


def _plan(path: Path, mine: Plan, manifest: Path) -> tuple[Plan, npt.NDArray[np.bool_]]:
    """The store to be: the manifest's rows in its order, then those of other manifests; and which
    of the manifest's rows a finished store has.

    A store that has all its utterances keeps its order, and a row for each of them where an earlier
    version made it, so that its values need not be written again.
    """
    old = np.zeros(len(mine.lengths), dtype=bool)
    for there in rows_there(path, manifest):
        store = there.store
        if store.path != path:
            continue
        lengths, rows, places = np.diff(store.offsets), mine.rows, mine.places_in(there)
        has = (places >= 0) & (lengths[places] == mine.lengths[rows]) & (store.width == mine.width)
        old[rows[has]] = True
        if has.all():
            stamps, hashes = store.stamps.copy(), store.audio_hashes.copy()
            stamps[places], hashes[places] = mine.stamps[rows], mine.audio_hashes[rows]
            kept = Plan(mine.recipe, mine.width, store.keys, stamps, lengths, hashes, store.rows)
            return kept, old
        # Encoding a second corpus must not lose the first one's features.
        others = ~np.isin(store.keys, mine.keys)
        now = np.full(len(lengths), -1)  # the row to be of each row there is
        now[places[has]] = rows[has]
        more = np.unique(store.rows[others])
        more = more[now[more] < 0]
        now[more] = len(mine.lengths) + np.arange(len(more))
        mine = dataclasses.replace(
            mine,
            keys=np.concatenate([mine.keys, store.keys[others]]),
            stamps=np.concatenate([mine.stamps, store.stamps[more]]),
            lengths=np.concatenate([mine.lengths, lengths[more]]),
            known_hashes=np.concatenate([mine.audio_hashes, store.audio_hashes[more]]),
            shared_rows=np.concatenate([rows, now[store.rows[others]]]),
        )
    return mine, old


def _lacking(stores: dict[str, PartialStore], batches: Sequence[Sequence[int]]) -> list[int]:
    """Batches of which a store lacks something: whole batches, so that they give the same bytes as
    the first time.
    """
    done = np.logical_and.reduce([store.done for store in stores.values()])
    return [number for number, batch in enumerate(batches) if not all(done[row] for row in batch)]


def _fill(
    stores: dict[str, PartialStore],
    encoder: SpeechEncoder | TextEncoder,
    batches: Sequence[Sequence[int]],
    numbers: Sequence[int],
    job: Callable[[int], Job],
    run: Runner | None,
) -> Iterator[int]:
    """Encode batches; yields the number of each that is in the stores, and moves them to their
    place at the end.
    """
    runner = run or run_here(cpus_here())
    try:
        for number, result in (
            runner(encoder, ((number, job(number)) for number in numbers)) if numbers else ()
        ):
            for place, (row, found) in enumerate(zip(batches[number], result, strict=True)):
                for feature, store in stores.items():
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


def _holds(
    path: Path, keys: npt.NDArray[np.uint64], stamps: npt.NDArray[np.int64], manifest: Path
) -> bool:
    """Whether a finished store has it all, with the hashes and checksums that those of earlier
    versions lack.
    """
    tidy(path)
    if not (path / "recipe.json").is_file():
        return False
    store = open_store(path, manifest)
    rows = store.find(keys)
    has_hashes = store.recipe["kind"] == "text" or store.audio_hashes[rows].any(axis=1).all()
    return bool(
        (rows >= 0).all()
        and (store.stamps[rows] == stamps).all()
        and has_hashes
        and store.checksums is not None
    )
