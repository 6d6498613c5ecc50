"""This machine: what is installed, devices, free space."""

import importlib.metadata
import os
import platform
import re
import shlex
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import torch

from mmm.device import cpu_has_bf16, cpus_here
from mmm.version import VERSION
from search.cluster.connect import ray_folder, reach
from search.doctor.finding import Finding, fault_of

_PACKAGE = "mmm-search"
_REQUIREMENT = re.compile(r"([\w.-]+)(?:\[[\w,]+\])?(?:>=([\d.]+))?(?:; extra == ['\"](\w+)['\"])?")
# Those whose version decides what works; the others follow from them.
_NAMED = ("torch", "ray", "optuna", "mlflow")
_TESTED = Path(__file__).parents[2] / "constraints.txt"
_LEAST_FREE_BYTES = 2 * 10**9  # bundles, checkpoints and MLflow's store of a small sweep
# Above this Ray writes nothing more into its folder (its local_fs_capacity_threshold).
_RAY_MOST_USED = 0.95


def installation() -> Iterator[Finding]:
    python = platform.python_version()
    versions = {name: _version(name) for name in _NAMED}
    named = ", ".join(f"{name} {version or 'missing'}" for name, version in versions.items())
    yield Finding("ok", "installation", f"{_PACKAGE} {VERSION}, Python {python}, {named}")
    lacking = list(_lacking())
    if lacking:
        yield Finding(
            "fault",
            "installation",
            f"missing or too old: {', '.join(lacking)}",
            "run: pip install 'mmm-search[search]'",
        )
    if _TESTED.is_file():
        tested = dict(re.findall(r"^([\w.-]+)==(\S+)", _TESTED.read_text(), re.MULTILINE))
        others = [
            f"{name} {version} (tested: {tested[name]})"
            for name in tested
            if (version := _version(name)) is not None and version.split("+")[0] != tested[name]
        ]
        if others:
            yield Finding(
                "note",
                "installation",
                f"other versions than the tested ones: {', '.join(others)}",
                "run: pip install -c constraints.txt 'mmm-search[search]'",
            )


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _lacking() -> Iterator[str]:
    """What the package and its extra `search` require and is not there."""
    try:
        requirements = importlib.metadata.requires(_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        yield f"{_PACKAGE} itself (it runs from its sources)"
        return
    for requirement in requirements:
        found = _REQUIREMENT.match(requirement)
        assert found is not None, requirement
        name, least, extra = found.groups()
        if extra not in (None, "search"):
            continue
        version = _version(name)
        if version is None or (least and _numbers(version) < _numbers(least)):
            yield f"{name} {version or 'missing'} (at least {least or 'any'})"


def _numbers(version: str) -> tuple[int, ...]:
    """`2.14.1+cpu` -> (2, 14, 1)."""
    return tuple(map(int, re.findall(r"\d+", version.split("+")[0])))


def devices(gpus_per_trial: float = 0.0) -> Iterator[Finding]:
    """`gpus_per_trial`: of the sweep that is asked about, on this machine."""
    bf16 = "with" if cpu_has_bf16() else "without"
    yield Finding("ok", "devices", f"{cpus_here()} CPU cores, {bf16} bf16 instructions")
    num_gpus = torch.cuda.device_count()
    for number in range(num_gpus):
        gpu = torch.cuda.get_device_properties(number)
        gib = gpu.total_memory / 2**30
        yield Finding("ok", "devices", f"GPU {number}: {gpu.name}, {gib:.1f} GiB")
    if gpus_per_trial > num_gpus:
        yield Finding(
            "fault",
            "devices",
            f"a trial wants {gpus_per_trial:g} GPUs, this machine has {num_gpus} usable ones",
            "name a cluster that has some with --address, or look at nvidia-smi and at which torch"
            " is installed",
        )


def local_ray() -> Iterator[Finding]:
    """Whether a Ray of a sweep's own could start here."""
    try:
        reach(None, {}, 1)
    except ValueError as error:
        yield fault_of("ray", error)
    token = Path.home() / ".ray" / "auth_token"
    if token.is_file() and token.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        yield Finding(
            "fault",
            "ray",
            f"{token} can be read by others",
            f"run: chmod 600 {shlex.quote(str(token))}",
        )


def space(runs: Path, features: Path | None) -> Iterator[Finding]:
    """Free space where a sweep writes."""
    folders = {"runs": runs, "Ray's folder": ray_folder()}
    if features is not None:
        folders["features"] = features
    for what, folder in folders.items():
        there = _existing(folder)
        usage = shutil.disk_usage(there)
        text = f"{what}: {usage.free / 1e9:.1f} GB free at {there}"
        is_ray = what == "Ray's folder"
        option = "RAY_TMPDIR" if is_ray else "--runs"
        if not os.access(there, os.W_OK):
            if what != "features":  # which a sweep only reads
                yield Finding(
                    "fault",
                    "space",
                    f"{what}: {there} cannot be written to",
                    f"choose another with {option}",
                )
        elif is_ray and usage.used > _RAY_MOST_USED * usage.total:
            yield Finding(
                "fault",
                "space",
                f"{text}: over 95 % used, where Ray stops writing",
                "free some, or set RAY_TMPDIR to another folder",
            )
        elif usage.free < _LEAST_FREE_BYTES:
            yield Finding("fault", "space", text, "free at least 2 GB")
        else:
            yield Finding("ok", "space", text)


def _existing(folder: Path) -> Path:
    """The folder, or the one that it would be made in."""
    folder = folder.absolute()
    while not folder.is_dir():
        folder = folder.parent
    return folder
