"""Everything that can be refused is refused here, before Ray starts and before anything is written,
in one list for `run`, `resume` and `plan`.
"""

import contextlib
import re
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from mmm.device import cpus_here
from mmm.features.encode_command import encode_command
from mmm.features.store import list_recipes
from mmm.setting import option_faults
from mmm.training.config import Params, ParamValue
from search.ledger.files import check_name
from search.ledger.spec import SweepSpec, check_tracking_uri
from search.space.enqueue import Point, as_params
from search.space.load import check_space, load_space
from search.space.settings import SettingsCheck, sweep_precisions, trial_config, with_features_there
from spaces import Space

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
    spec: SweepSpec, points: Sequence[Point] = (), settings_check: SettingsCheck | None = None
) -> Checked:
    """A sweep that can run. Raises ValueError with all that keeps it from it, one after another.

    `points` are enqueued after those of the specification. `settings_check` is that of a sweep that
    goes on; a new one gets the speech features that its folder holds.
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
        with listed():
            settings_check = _data_of(spec)
        with listed():
            spec = with_features_there(spec) if has_features else spec
    if not has_features:
        faults.append(
            f"{spec.features}: no such features folder; run:"
            f" {encode_command(spec.manifest, spec.features)}"
        )
    space, queue = None, list(spec.enqueue)
    with listed():
        space = load_space(spec.space, spec.audio_features)
    drawn: list[Params] = []
    if space is not None:
        drawn, found = _drawn_settings(space, spec)
        faults += found

        def complete(settings: Params) -> Params:
            drawn.append(settings)
            return trial_config(settings, spec).params()

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


def check_spec(spec: SweepSpec) -> None:
    """Raise ValueError with every fault of a sweep's options that can be seen without its data."""
    check_name(spec.name)
    faults = list(option_faults(spec))
    if spec.gpu_hours is not None and spec.gpus_per_trial == 0:
        faults.append(
            "--gpu-hours without --gpus-per-trial would never be used up; use --compute-budget"
        )
    if spec.gpus_per_trial > 1 and spec.gpus_per_trial != int(spec.gpus_per_trial):
        faults.append(
            f"--gpus-per-trial {spec.gpus_per_trial:g}: above 1 it must be a whole number"
        )
    if spec.gpus_per_trial > 0 and spec.address is None:
        there = torch.cuda.device_count()
        if spec.gpus_per_trial > there:
            faults.append(
                f"--gpus-per-trial {spec.gpus_per_trial:g}: this machine has {there} usable GPUs;"
                " leave it out, or name a cluster that has some with --address"
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
    if spec.tracking_uri is not None:
        try:
            check_tracking_uri(spec.tracking_uri)
        except ValueError as error:
            faults.append(str(error))
    if faults:
        raise ValueError("; ".join(faults))


def check_contexts(spec: SweepSpec, drawn: Sequence[Params]) -> None:
    """Raise FileNotFoundError naming every context and speech feature that a space needs and the
    folder lacks, at once.
    """
    recipes = list_recipes(Path(spec.features), Path(spec.manifest)).values()
    held = {recipe["context"] for recipe in recipes if recipe["kind"] == "text"}
    contexts = _lacking({settings.get("context", 1) for settings in drawn}, held)
    held_features = {recipe["feature"] for recipe in recipes if recipe["kind"] == "audio"}
    needed = {settings.get("audio_feature", "hidden_state") for settings in drawn}
    features = _lacking(needed, held_features)
    faults = [
        f"no features for {option}={','.join(missing)}"
        f" (found: {', '.join(sorted(map(str, there))) or 'none'})"
        for option, missing, there in (
            ("context", contexts, held),
            ("audio-feature", features, held_features),
        )
        if missing
    ]
    if faults:
        command = encode_command(
            spec.manifest,
            spec.features,
            recipes,
            contexts=map(int, contexts),
            audio_features=features,
        )
        raise FileNotFoundError(f"{spec.features}/: {'; '.join(faults)}; run: {command}")


def _lacking(needed: Set[ParamValue], there: Set[int | str]) -> list[str]:
    return sorted(str(value) for value in needed - there)


def default_workers(gpus_per_trial: float) -> int:
    """As many trials at a time as this machine carries: its GPUs' worth, else one a core."""
    if gpus_per_trial > 0:
        return max(1, int(torch.cuda.device_count() / gpus_per_trial))
    return cpus_here()
