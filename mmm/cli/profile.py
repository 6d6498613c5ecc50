"""`mmm profile`: what a training step costs here, by part."""

from typing import Annotated

import typer
from rich.table import Table

from mmm.cli.encode import DeviceName, FeaturesDir, ManifestPath
from mmm.cli.options import options_of
from mmm.cli.systems import own_params
from mmm.cli.train import TrainingPrecision, base_params
from mmm.console import console
from mmm.training.config import Params, TrainConfig, make_config


@options_of(
    TrainConfig,
    *(
        "context",
        "audio_feature",
        "speech",
        "text",
        "pooling",
        "layer_mix",
        "batch_size",
        "num_blocks",
        "layers",
        "heads",
        "width",
    ),
    optional=True,
    width="Model width, not for cross_attention \\[as mmm train].",
)
def profile(
    manifest: ManifestPath,
    features: FeaturesDir,
    *,
    architecture: Annotated[
        str,
        typer.Option(
            help="vanilla_concat, three_way_concat, cross_attention, mlp_mixer, gated_fusion or"
            " late_fusion, or path/to/file.py:Class."
        ),
    ] = "mlp_mixer",
    given: Params,
    published: Annotated[
        bool, typer.Option("--published", help="The published recipe; options overrule it.")
    ] = False,
    pack: Annotated[
        int, typer.Option(metavar="N", help="So many trials of this shape as one model.")
    ] = 1,
    precision: TrainingPrecision = "auto",
    threads: Annotated[
        int | None, typer.Option(help="Of the CPU \\[all; the workers of a sweep share them].")
    ] = None,
    device: DeviceName = "cpu",
) -> None:
    """Time a training step by part, against what the machine's matrix products reach."""
    if pack < 1:
        raise ValueError(f"--pack {pack} is too small; expected at least 1")
    if threads is not None and threads < 1:
        raise ValueError(f"--threads {threads} is too small; expected at least 1")
    if architecture == "linear":
        raise ValueError(
            "linear is solved, not trained in steps: there is nothing to profile; mmm train tells"
            " how long it takes"
        )
    architecture, _ = own_params(architecture, None)
    config = make_config({**base_params(architecture, published), **given})
    import torch

    from mmm.training.contract import trains_in_packs

    if pack > 1 and not trains_in_packs(config):
        raise ValueError(
            f"{config.architecture} does not train in packs (mmm check-architecture says why);"
            " leave out --pack"
        )

    from mmm.device import resolve_device, training_precision
    from mmm.manifest_csv import read_manifest
    from mmm.training.features import load_features
    from mmm.training.malloc import keep_freed_memory
    from mmm.training.profile import profile as take_profile
    from mmm.training.run import begin

    where, resolved = resolve_device(device), training_precision(precision, device, architecture)
    if threads is not None:
        torch.set_num_threads(threads)
    keep_freed_memory()
    loaded = load_features(
        read_manifest(manifest, check_audio=False), features, *config.features_key
    )
    settings = config.params()
    with console.status("training some steps"):
        runs = [
            begin(make_config({**settings, "seed": seed}), loaded, device=where, precision=resolved)
            for seed in range(pack)
        ]
        dims, parameters = (
            runs[0].dims,
            sum(parameter.numel() for parameter in runs[0].model.parameters()),
        )
        found = take_profile(runs)
    where_text = (
        f"{torch.get_num_threads()} threads"
        if where.type == "cpu"
        else torch.cuda.get_device_name(where)
    )
    together = f", {pack} trials in a pack" if pack > 1 else ""
    console.say(
        f"{architecture}: {parameters:,} parameters, batch of {found.batch_size}{together},"
        f" {resolved}, {where_text}"
    )
    if not config.is_pooled:
        console.say(
            f"up to {dims.speech_positions} speech positions ({dims.speech_width} wide) and"
            f" {dims.text_positions} text positions ({dims.text_width} wide)"
        )
    table = Table(title="a training step", title_justify="left")
    table.add_column("part")
    for name in ("ms", "share"):
        table.add_column(name, justify="right")
    for part, seconds in found.seconds.items():
        table.add_row(part, f"{seconds * 1000:.2f}", f"{seconds / found.step_s:.0%}")
    table.add_row("step", f"{found.step_s * 1000:.2f}", "100%", end_section=True)
    table.add_row(
        "matrix products alone",
        f"{found.product_s * 1000:.2f}",
        f"{found.product_s / found.step_s:.0%}",
    )
    console.print(table)
    console.say(
        f"{found.operations / 1e9:.2f} GFLOP a step: {found.rate / 1e9:.1f} GFLOP/s,"
        f" {found.rate / found.product_rate:.0%} of the {found.product_rate / 1e9:.1f} GFLOP/s that"
        " its matrix products reach alone"
    )
    trained = found.batch_size * found.num_members / found.step_s
    console.say(
        f"{trained:,.0f} utterances a second in training, {1 / found.evaluation_s:,.0f} in"
        f" validation; peak memory {found.peak_mb:,.0f} MB"
    )
    console.say(f"bound by {found.bound}")
