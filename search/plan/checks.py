"""Everything that can be refused is refused here, before Ray starts and before anything is written,
in one list for `run`, `resume` and `plan`.
"""

import contextlib
import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from mmm.device import cpus_here
from mmm.features.encode_command import encode_command
from mmm.features.named import Kind, NamedEncoder, choose, encoders_in
from mmm.features.recipe import LAYERS
from mmm.manifest import Manifest
from mmm.setting import option_faults
from mmm.training.config import Params
from search.ledger.files import check_name
from search.ledger.spec import ANY_FOLDS, SweepSpec, check_tracking_uri, trials_of_gpu
from search.space.enqueue import Point, as_params
from search.space.load import check_space, load_space, telling
from search.space.settings import (
    SettingsCheck,
    sweep_precisions,
    there_in,
    trial_config,
    with_features_there,
)
from search.storage.door import StorageError, Store
from search.suggest.fair_share import SYSTEM, systems_of_space
from spaces import Space

_OPTIONS: Mapping[Kind, str] = {"text": "context", "audio": "audio-feature"}
_MAX_PASSES = 10  # over a space, for faults of which each pass finds one


@dataclass(frozen=True)
class Checked:
    """A sweep that can run: its specification with the enqueued points in it, its space, what its
    settings were checked with.
    """

    spec: SweepSpec
    space: Space
    settings_check: SettingsCheck


def check(
    spec: SweepSpec,
    points: Sequence[Point] = (),
    settings_check: SettingsCheck | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Checked:
    """A sweep that can run. Raises ValueError with all that keeps it from it, one after another.

    `points` are enqueued after those of the specification. `settings_check` is that of a sweep that
    goes on; a new one gets the speech features that its folder holds. `tell` hears of a space whose
    function takes long.
    """
    faults: list[str] = []

    @contextlib.contextmanager
    def listed() -> Iterator[None]:
        try:
            yield
        except (ValueError, FileNotFoundError) as error:
            if str(error) not in faults:
                faults.append(str(error))

    with listed():
        check_spec(spec)
    spec = replace(spec, epochs=max(1, spec.epochs))  # told above, not once more of every setting
    has_features = Path(spec.features).is_dir()
    if settings_check is None:
        if has_features:
            with listed():
                spec = with_features_there(spec)
        with listed():
            settings_check = _data_of(spec)
    if spec.folds is not None and settings_check is not None:
        with listed():
            spec = _with_folds(spec, settings_check.manifest)
    if not has_features:
        faults.append(
            f"{spec.features}: no such features folder; run:"
            f" {encode_command(spec.manifest, spec.features)}"
        )
    space, queue = None, list(spec.enqueue)
    with listed():
        space = telling(load_space(spec.space, there_in(spec)), tell)
    drawn: list[Params] = []
    if space is not None:
        drawn, found = _drawn_settings(space, spec)
        faults += found

        def complete(settings: Params) -> Params:
            drawn.append(settings)
            return trial_config(settings, spec).params()

        if not found and spec.min_per_system is not None:
            with listed():
                _check_shares(space, spec.min_per_system, spec.trials)
        for point in () if found else points:
            with listed():
                queue.append(dict(as_params(space, *point, complete)))
        if has_features:
            with listed():
                check_contexts(spec, drawn)
    if space is not None and settings_check is not None and not faults:
        sizes = []
        for settings in drawn:
            with listed():
                sizes.append(settings_check(settings))
        if spec.max_parameters is not None and spec.max_parameters < min(sizes, default=0):
            faults.append(
                f"--max-parameters {spec.max_parameters:,}: no model that the space was seen to"
                f" make is that small; the smallest has {min(sizes):,}"
            )
        if not faults:
            return Checked(replace(spec, enqueue=queue), space, settings_check)
    raise ValueError("\nalso: ".join(faults))


def _with_folds(spec: SweepSpec, manifest: Manifest) -> SweepSpec:
    """A sweep over the folds that the manifest has. Raises ValueError where it has none, or others
    than the sweep began with.
    """
    there = manifest.num_folds
    if not there:
        command = shlex.join(
            ["mmm", "prepare", "csv", spec.manifest, "-o", spec.manifest, "--folds", "5"]
        )
        raise ValueError(
            f"--folds: {spec.manifest} has no fold column; write one: {command} --fold-by session"
            " (or speaker, dialogue)"
        )
    if spec.folds not in (ANY_FOLDS, there):
        raise ValueError(
            f"{spec.manifest}: has {there} folds, and the sweep was begun with {spec.folds}; start"
            " a new sweep under another --name"
        )
    return replace(spec, folds=there)


def _data_of(spec: SweepSpec) -> SettingsCheck:
    if not Path(spec.manifest).is_file():
        raise FileNotFoundError(
            f"{spec.manifest}: no such manifest; make one with: mmm prepare csv FILE -o"
            " manifest.csv"
        )
    return SettingsCheck(spec)


def _drawn_settings(space: Space, spec: SweepSpec) -> tuple[list[Params], list[str]]:
    """Settings that are right by themselves, and a fault of each kind that others have."""
    told: set[str] = set()
    faults: list[str] = []
    drawn: list[Params] = []

    def settings_alone(settings: Params) -> None:
        try:
            trial_config(settings, spec)
        except ValueError as error:
            # Another value out of the same range is the same fault.
            kind = re.sub(r"[\d.]+(e-?\d+)?", "", str(error))
            if kind not in told:
                told.add(kind)
                raise
        else:
            drawn.append(settings)

    for _ in range(_MAX_PASSES):
        drawn.clear()
        num_told = len(told)
        try:
            check_space(space, settings_alone)
            break
        except (ValueError, FileNotFoundError) as error:
            faults.append(str(error))
            if len(told) == num_told:
                break  # the space itself fails, and would again
    return drawn, faults


def _check_shares(space: Space, least: int, num_trials: int) -> None:
    """Raises ValueError where a space's systems cannot each get so many trials."""
    if not (systems := systems_of_space(space)):
        raise ValueError(
            f"--min-per-system {least}: the space has no choice named {SYSTEM!r}; name the one"
            " that chooses the system so, or leave the option out"
        )
    if (needed := least * len(systems)) > num_trials:
        raise ValueError(
            f"--min-per-system {least}: {len(systems)} systems need {needed} trials, and there are"
            f" {num_trials}; give --trials {needed}"
        )


def check_spec(spec: SweepSpec) -> None:
    """Raise ValueError with every fault of a sweep's options that can be seen without its data."""
    check_name(spec.name)
    faults = list(option_faults(spec))
    if spec.ship and spec.address is None:
        faults.append(
            "--ship without --address: trials on this machine have its code; leave out --ship, or"
            " name the cluster, for example --address auto"
        )
    if spec.gpu_hours is not None and spec.gpus_per_trial == 0:
        faults.append(
            "--gpu-hours without --gpus-per-trial would never be used up; use --compute-budget"
        )
    if spec.gpus_per_trial > 1:
        faults.append(
            f"--gpus-per-trial {spec.gpus_per_trial:g}: a trial computes on one GPU; give it 1, or"
            " a share of one such as 0.25"
        )
    elif spec.gpus_per_trial > 0 and spec.address is None:
        there = torch.cuda.device_count()
        if spec.gpus_per_trial > there:
            faults.append(
                f"--gpus-per-trial {spec.gpus_per_trial:g}: this machine has {there} usable GPUs;"
                " leave it out, or name a cluster that has some with --address"
            )
        elif spec.workers > (room := there * trials_of_gpu(spec.gpus_per_trial)):
            faults.append(
                f"--workers {spec.workers} with --gpus-per-trial {spec.gpus_per_trial:g}: this"
                f" machine's {there} GPUs have room for {room} such trials at a time; use"
                f" --workers {room}"
            )
    if spec.packs is not None and spec.packs > 1 and spec.limits_cost:
        faults.append(
            f"--packs {spec.packs} with --max-memory-mb or --max-ms-per-utterance: what a trial"
            " takes is only known alone; leave one of them out"
        )
    try:
        sweep_precisions(spec)
    except ValueError as error:
        faults.append(str(error))
    if spec.storage is not None:
        try:
            Store(spec.storage)
        except StorageError as error:
            faults.append(f"--storage {error}")
    if spec.tracking_uri is not None:
        try:
            check_tracking_uri(spec.tracking_uri)
        except ValueError as error:
            faults.append(str(error))
    if faults:
        raise ValueError("; ".join(faults))


def check_contexts(spec: SweepSpec, drawn: Sequence[Params]) -> None:
    """Raise FileNotFoundError naming every context and speech feature that a space needs and the
    folder lacks, at once; ValueError where it does not say which encoder it means.
    """
    features, manifest = Path(spec.features), Path(spec.manifest)
    encoders = encoders_in(features, manifest)
    by_kind = {kind: [one for one in encoders if one.kind == kind] for kind in _OPTIONS}
    wanted: dict[tuple[Kind, str | None], set[str]] = defaultdict(set)
    for settings in drawn:
        key = spec.features_key(trial_config(settings, spec))
        wanted["text", key.text].add(str(key.context))
        wanted["audio", key.speech].add(key.audio_feature)
    lacking: dict[str, tuple[NamedEncoder | None, Kind, list[str]]] = {}
    for (kind, name), needed in wanted.items():
        encoder = choose(encoders, features, kind, name) if by_kind[kind] else None
        held = set() if encoder is None else _held(encoder)
        if needed - held:
            of = f" of {encoder.name}" if encoder and len(by_kind[kind]) > 1 else ""
            named = ",".join(sorted(needed - held))
            found = ", ".join(sorted(held)) or "none"
            fault = f"no features for {_OPTIONS[kind]}={named}{of} (found: {found})"
            lacking[fault] = encoder, kind, sorted(needed - held)
    if not lacking:
        return
    commands = _encode_what_lacks(manifest, features, encoders, list(lacking.values()))
    raise FileNotFoundError(f"{features}/: {'; '.join(lacking)}; run: {' && '.join(commands)}")


def _held(encoder: NamedEncoder) -> set[str]:
    layers = {LAYERS} if encoder.layers is not None else set()
    return {*encoder.audio_features, *map(str, encoder.contexts), *layers}


def _encode_what_lacks(
    manifest: Path,
    features: Path,
    encoders: Sequence[NamedEncoder],
    lacking: Sequence[tuple[NamedEncoder | None, Kind, list[str]]],
) -> list[str]:
    """One command where each kind has one encoder, else one for each that lacks something."""
    counts = Counter(one.kind for one in encoders)
    if max(counts.values(), default=0) < 2:
        recipes = [recipe for one in encoders for recipe in one.stores.values()]
        lacks = {kind: values for _, kind, values in lacking}
        command = encode_command(
            manifest,
            features,
            recipes,
            contexts=map(int, lacks.get("text", [])),
            audio_features=lacks.get("audio", []),
        )
        return [command]
    return [
        encode_command(
            manifest,
            features,
            [] if encoder is None else encoder.stores.values(),
            contexts=map(int, values) if kind == "text" else [],
            audio_features=values if kind == "audio" else [],
            only=kind,
        )
        for encoder, kind, values in lacking
    ]


def default_workers(gpus_per_trial: float) -> int:
    """As many trials at a time as this machine carries: its GPUs' worth, else one a core."""
    if gpus_per_trial > 0:
        return max(1, torch.cuda.device_count() * trials_of_gpu(gpus_per_trial))
    return cpus_here()
