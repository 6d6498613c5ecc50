"""`mmm profile`: what a training step costs here, by part."""

from typing import Annotated

import typer
from rich.table import Table

from mmm.cli.encode import DeviceName, FeaturesDir, ManifestPath, console


def profile(
    manifest: ManifestPath,
    features: FeaturesDir,
    architecture: Annotated[
        str, typer.Option(help="vanilla_concat, three_way_concat, cross_attention or mlp_mixer.")
    ] = "mlp_mixer",
    context: Annotated[
        int | None, typer.Option(help="Utterances of context K, the current one included \\[1].")
    ] = None,
    audio_feature: Annotated[
        str | None, typer.Option(help="hidden_state or extract_feature \\[hidden_state].")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="\\[32; published 64]")] = None,
    num_blocks: Annotated[int | None, typer.Option(help="mlp_mixer: blocks \\[1].")] = None,
    layers: Annotated[int | None, typer.Option(help="cross_attention: layers \\[1].")] = None,
    heads: Annotated[int | None, typer.Option(help="cross_attention: heads \\[8].")] = None,
    width: Annotated[
        int | None, typer.Option(help="Model width, not for cross_attention \\[as mmm train].")
    ] = None,
    published: Annotated[
        bool, typer.Option("--published", help="The published recipe; options overrule it.")
    ] = False,
    pack: Annotated[
        int, typer.Option(metavar="N", help="So many trials of this shape as one model.")
    ] = 1,
    precision: Annotated[
        str, typer.Option(help="float32, bf16, or auto: bf16 where it is faster on this device.")
    ] = "auto",
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
    from mmm.models import ARCHITECTURES
    from mmm.training.config import make_config, new_params, published_params

    if architecture == "linear":
        raise ValueError(
            "linear is solved, not trained in steps: there is nothing to profile; mmm train tells"
            " how long it takes"
        )
    given = {
        "context": context,
        "audio_feature": audio_feature,
        "batch_size": batch_size,
        "num_blocks": num_blocks,
        "layers": layers,
        "heads": heads,
        "width": width,
    }
    base = (
        published_params(architecture)
        if published and architecture in ARCHITECTURES
        else new_params(architecture)
    )
    config = make_config(base | {key: value for key, value in given.items() if value is not None})
    import torch

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
        read_manifest(manifest, check_audio=False), features, config.audio_feature, config.context
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
    say(
        f"{architecture}: {parameters:,} parameters, batch of {found.batch_size}{together},"
        f" {resolved}, {where_text}"
    )
    if not config.is_pooled:
        say(
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
    say(
        f"{found.operations / 1e9:.2f} GFLOP a step: {found.rate / 1e9:.1f} GFLOP/s,"
        f" {found.rate / found.product_rate:.0%} of the {found.product_rate / 1e9:.1f} GFLOP/s that"
        " its matrix products reach alone"
    )
    trained = found.batch_size * found.num_members / found.step_s
    say(
        f"{trained:,.0f} utterances a second in training, {1 / found.evaluation_s:,.0f} in"
        f" validation; peak memory {found.peak_mb:,.0f} MB"
    )
    say(f"bound by {found.bound}")


def say(text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)
