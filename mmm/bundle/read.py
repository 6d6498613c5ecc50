"""The bundle: a folder that ships. Weights as safetensors, everything else as JSON, every file
checksummed.

model.safetensors   weights of the head
config.json         format, settings, sizes, labels, recipes of both encoders: all that predict
                    needs
provenance.json     code version, hashes of manifest and features, seed, validation metrics, how it
                    was made
README.md           the model card, where `mmm-search` made the bundle (mmm/bundle/card.py)
model.onnx          the head once more, where it was asked for (mmm/bundle/onnx_head.py)
checksums.json      SHA-256 of the other files; its own hash is the bundle's

An ensemble is a folder whose config.json names `members`, bundles in folders below it; its
checksums cover theirs.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from mmm.bundle.records import FORMAT, EnsembleHead, Head, Provenance
from mmm.files import parse_json, sha256_of_file, sha256_of_json
from mmm.training.own_system import UnnamedSystem
from mmm.training.run import build_model
from mmm.version import VERSION

_FILES = ("config.json", "model.safetensors", "provenance.json")
_ENSEMBLE_FILES = ("config.json", "provenance.json")
_KINDS = (".safetensors", ".json", ".md", ".onnx")  # none of them is run by what reads it
# What git, hubs and file browsers leave in a folder. Nothing reads it.
_STRAYS = re.compile(r"\.git|\.gitattributes|\.gitignore|\.cache|\.DS_Store|epoch-\d+")
COPY_AGAIN = "copy the bundle again from where it was made"


class BundleError(ValueError):
    """A folder that is no bundle, or a damaged one."""


@dataclass(frozen=True)
class Bundle(Head):
    """A loaded bundle: the model in evaluation mode and all that is known of it."""

    path: Path
    sha256: str
    # Of the weights alone: stays the same when a bundle of the same trial is made again.
    weights_sha256: str
    provenance: Provenance
    model: nn.Module

    @property
    def members(self) -> tuple["Bundle", ...]:
        """Itself alone: a bundle is an ensemble of one."""
        return (self,)

    @property
    def repeats(self) -> tuple[int, ...]:
        return (1,)


@dataclass(frozen=True)
class Ensemble:
    """Several bundles over the same classes; their answer is the mean of their probabilities, in
    which a member counts as often as `repeats` has it.
    """

    path: Path
    name: str
    sha256: str
    labels: tuple[str, ...]
    provenance: Provenance
    members: tuple[Bundle, ...]  # each once
    repeats: tuple[int, ...]
    temperature: float | None = None

    @property
    def weights_sha256(self) -> str:
        """One hash over the weights of all members, as often as they count."""
        counted = zip(self.members, self.repeats, strict=True)
        return sha256_of_json(
            [member.weights_sha256 for member, repeats in counted for _ in range(repeats)]
        )


def load_bundle(path: Path) -> Bundle:
    """Check every file's checksum, then load. Raises FileNotFoundError or BundleError, also for an
    ensemble.
    """
    bundle = load_bundle_or_ensemble(path)
    if isinstance(bundle, Ensemble):
        raise BundleError(
            f"{path}: an ensemble, where one bundle is expected; name one of its members, "
            f"for example {bundle.members[0].path}"
        )
    return bundle


def load_bundle_or_ensemble(path: Path) -> Bundle | Ensemble:
    """Check every file's checksum, then load. Nothing in the folder is run. Raises
    FileNotFoundError or BundleError.
    """
    checksums = _checked(path)
    content = _json_object(path / "config.json")
    try:
        provenance = Provenance.from_json(_json_object(path / "provenance.json"))
        digest = sha256_of_file(path / "checksums.json")
        if "members" in content:
            ensemble = EnsembleHead.from_json(content)
            members = _load_members(path, ensemble.members, checksums)
            if any(member.labels != ensemble.labels for member in members):
                raise ValueError("members that answer with other labels")
            return Ensemble(
                path,
                ensemble.name,
                digest,
                ensemble.labels,
                provenance,
                members,
                tuple(Counter(ensemble.members).values()),
                ensemble.temperature,
            )
        head = Head.from_json(content)
        model = _model(head, load_tensors((path / "model.safetensors").read_bytes()))
        return Bundle(
            **vars(head),
            path=path,
            sha256=digest,
            weights_sha256=checksums["model.safetensors"],
            provenance=provenance,
            model=model.eval(),
        )
    except SafetensorError as error:
        raise BundleError(
            f"{path}/model.safetensors: not in the safetensors format ({error}), perhaps a pickle"
            " under another name; nothing in it was run; get the bundle again from where it was"
            " made"
        ) from None
    except BundleError:
        raise
    except UnnamedSystem as error:
        raise BundleError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        what = " ".join(str(error).split())[:300]
        raise BundleError(
            f"{path}: its files do not fit each other ({type(error).__name__}: {what});"
            f" {COPY_AGAIN}"
        ) from None


def _model(head: Head, weights: dict[str, Tensor]) -> nn.Module:
    """The head with these weights. Raises ValueError or RuntimeError where they are of another
    model, before memory is taken for what config.json says of its size.
    """
    for setting in ("num_blocks", "layers"):
        if (getattr(head.config, setting) or 0) > len(weights):
            raise ValueError(f"{setting} is more than there are weights")
    if head.config.system_sha256 is None:  # code of its author's own may look at numbers
        with torch.device("meta"):
            build_model(head.config, head.dims).load_state_dict(weights, assign=True)
    model = build_model(head.config, head.dims)
    model.load_state_dict(weights)
    return model


def _load_members(
    path: Path, names: Sequence[str], checksums: Mapping[str, str]
) -> tuple[Bundle, ...]:
    # Named in the checksums, so that no member lies outside of the folder.
    if not all(f"{name}/config.json" in checksums for name in names):
        raise BundleError(
            f"{path}/config.json: names members that are not in this folder; {COPY_AGAIN}"
        )
    return tuple(load_bundle(path / name) for name in dict.fromkeys(names))


def mean_answer(bundle: Bundle | Ensemble, answers: Sequence[Tensor]) -> Tensor:
    """Of the (N, C) probabilities of each member, by how often it counts."""
    if len(answers) == 1:
        return answers[0]
    counted = zip(answers, bundle.repeats, strict=True)
    return torch.stack([one for one, repeats in counted for _ in range(repeats)]).mean(dim=0)


def files_in(folder: Path) -> set[str]:
    """Relative names of all files that count as the bundle's."""
    found = set()
    for file in folder.rglob("*"):
        parts = file.relative_to(folder).parts
        if (
            not file.is_dir()
            and parts != ("checksums.json",)
            and not any(_STRAYS.fullmatch(part) for part in parts)
        ):
            found.add("/".join(parts))
    return found


def _json_object(file: Path) -> Mapping[str, Any]:
    try:
        content = parse_json(file.read_text(encoding="utf-8"))
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise BundleError(f"{file}: damaged: not a JSON object; {COPY_AGAIN}")
    return content


def _checked(path: Path) -> Mapping[str, str]:
    """The checksums of a bundle's files, after everything in the folder has been held against them
    and nothing was opened.
    """
    if not (path / "checksums.json").is_file():
        raise FileNotFoundError(
            f"{path}: no bundle here (no checksums.json); make one with mmm train or mmm-search"
            " export"
        )
    checksums = _json_object(path / "checksums.json")
    if (
        not all(isinstance(value, str) for value in checksums.values())
        or not set(_ENSEMBLE_FILES) <= checksums.keys()
    ):
        raise BundleError(f"{path}/checksums.json: damaged; {COPY_AGAIN}")
    there = files_in(path)

    def check(file: str) -> None:
        if file not in there:
            raise BundleError(f"{path}: {file} is missing; {COPY_AGAIN}")
        if sha256_of_file(path / file) != checksums[file]:
            raise BundleError(
                f"{path}/{file}: damaged: its checksum is not the recorded one; copy the bundle"
                " again"
            )

    check("config.json")
    config = _json_object(path / "config.json")
    if config.get("format") != FORMAT:
        raise BundleError(
            f"{path}: bundle format {config.get('format')}, this version ({VERSION}) reads {FORMAT}"
        )
    if not set(_ENSEMBLE_FILES if "members" in config else _FILES) <= checksums.keys():
        raise BundleError(f"{path}/checksums.json: damaged; {COPY_AGAIN}")
    for file in sorted(there | checksums.keys()):
        if Path(file).suffix not in _KINDS:
            raise BundleError(
                f"{path}/{file}: does not belong in a bundle, which holds safetensors, JSON, ONNX"
                " and a card and nothing that could be a pickle; nothing was loaded; remove the"
                " file if you know it"
            )
        if file not in checksums:
            raise BundleError(
                f"{path}/{file}: not a file of this bundle (checksums.json does not name it);"
                f" remove it, or {COPY_AGAIN}"
            )
    for file in checksums:
        check(file)
    return checksums


def find_bundles(folder: Path) -> list[Path]:
    """Every bundle and ensemble below a folder, members of ensembles aside. Raises
    FileNotFoundError where there is none.
    """
    found = sorted(
        file.parent
        for file in folder.rglob("checksums.json")
        if file.parent.parent.name != "members"
    )
    if not found:
        raise FileNotFoundError(
            f"{folder}: no bundle below this folder; make one with mmm train or mmm-search export"
        )
    return found
