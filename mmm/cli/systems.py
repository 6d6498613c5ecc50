"""Systems of the user's own on the command line: naming their files, their own settings, and the
command `mmm check-architecture`.
"""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from mmm.console import console
from mmm.training.config import Params, ParamValue

Systems = Annotated[
    list[str] | None,
    typer.Option(
        "--system",
        metavar="FILE:CLASS",
        help="File of a system of its author's own that a bundle is made with; it is run.",
    ),
]
MovedSystems = Annotated[
    list[str] | None,
    typer.Option(
        "--system",
        metavar="FILE:CLASS",
        help="Where a system of your own is now; it is run.",
        show_default=False,
    ),
]
OwnSettings = Annotated[
    list[str] | None,
    typer.Option(
        "--own", metavar="NAME=VALUE", help="A setting that only a system of your own has."
    ),
]


def name_systems(systems: Sequence[str] | None) -> None:
    """Load the files that a command names. Raises ValueError or FileNotFoundError."""
    if systems:
        from mmm.training.own_system import load_system

        for reference in systems:
            load_system(reference)


def own_params(architecture: str, own: Sequence[str] | None) -> tuple[str, Params]:
    """The architecture as settings name it, its file loaded where it is one of the user's own, and
    what `--own` gives it. Raises ValueError or FileNotFoundError.
    """
    from mmm.training.own_system import is_reference, load_system

    if not is_reference(architecture):
        if own:
            raise ValueError(f"--own is for a system of your own, not for {architecture}")
        return architecture, {}
    system = load_system(architecture)
    found: dict[str, ParamValue] = {}
    for word in own or []:
        name, _, text = word.partition("=")
        kind = type(system.own.get(name, ""))
        try:
            value: ParamValue = (
                {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
            )
        except (KeyError, ValueError):
            value = text  # which the settings' check refuses with what is expected
        found[f"own.{name}"] = value
    return system.reference, found


def check_architecture(
    system: Annotated[
        str, typer.Argument(metavar="FILE:CLASS", help="path/to/file.py:Class", show_default=False)
    ],
    own: OwnSettings = None,
) -> None:
    """Check a system of your own against the contract of ours, at small sizes. Exit status 1 where
    it cannot be trained as it is.
    """
    import torch

    from mmm.bundle.onnx_head import OnnxError, onnx_of
    from mmm.training.config import make_config, new_params
    from mmm.training.contract import CONTEXT, DIMS, PACKS, candidate_of, outcomes
    from mmm.training.own_system import is_reference

    if not is_reference(system):
        raise ValueError(f"{system!r} is no path/to/file.py:Class; ours are checked by their tests")
    torch.set_num_threads(1)  # so small that two would wait for each other
    reference, given = own_params(system, own)
    base = {**new_params(reference), "context": CONTEXT, "input_scaling": "none"}
    config = make_config({**base, **given})
    takes = "one vector an utterance" if config.is_pooled else "sequences"
    console.say(
        f"{config.architecture} takes {takes}; file {reference.rpartition(':')[0]}, SHA-256"
        f" {config.system_sha256}"
    )
    candidate, is_sound = candidate_of(config), True
    for check, fault in outcomes(candidate):
        if not fault:
            console.say(f"ok      {check.claim}")
        elif check is PACKS:
            console.say(
                f"no      {check.claim}: {fault}; it will be trained alone (for packs:"
                f" {check.remedy})"
            )
        else:
            word = "failed" if check.is_required else "no"
            console.say(f"{word:<7} {check.claim}: {fault}; to mend it: {check.remedy}")
            is_sound = is_sound and not check.is_required
    try:
        onnx_of(candidate.build().eval(), config, DIMS, config.architecture)
        console.say("ok      it can be written as ONNX")
    except OnnxError as error:
        console.say(f"no      it can be written as ONNX: {error}; bundles without it are no worse")
    if not is_sound:
        console.say("it cannot be trained as it is")
        sys.exit(1)
