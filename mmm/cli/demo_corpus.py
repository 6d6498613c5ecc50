"""The command `mmm demo-corpus`: a corpus of the program's own making."""

from pathlib import Path
from typing import Annotated

import typer

from mmm.cli.manifest import write_manifest
from mmm.console import console, progress_of


def demo_corpus(
    out: Annotated[Path, typer.Argument(help="Folder to write.", show_default=False)],
    sessions: Annotated[
        int | None,
        typer.Option(
            help="Recording sessions of two speakers each [24; kemdy20: 40].", show_default=False
        ),
    ] = None,
    scripts: Annotated[
        int | None,
        typer.Option(
            help="kemdy20: dialogues a session, 1 to 6 [6]; implies --layout kemdy20.",
            show_default=False,
        ),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            help=r"demo (small, balanced) or kemdy20 (as KEMDy20; full size 2.5 GB) \[demo].",
            show_default=False,
        ),
    ] = None,
    seed: int = 1,
) -> None:
    """Generate a synthetic corpus in which speech, text and context all matter, and its manifest.

    In KEMDy20's layout it has the class counts, durations, ties and defects of KEMDy20, scaled to
    its size.
    """
    layout = layout or ("demo" if scripts is None else "kemdy20")
    if layout not in ("demo", "kemdy20"):
        raise ValueError(f"unknown --layout {layout!r}; expected demo or kemdy20")
    if layout == "demo":
        from mmm.corpora.generated.demo import make_demo_corpus

        if scripts is not None:
            raise ValueError("--scripts is of --layout kemdy20")
        with console.status("writing the corpus"):
            manifest = make_demo_corpus(
                out, num_sessions=24 if sessions is None else sessions, seed=seed
            )
        console.say(f"wrote {manifest}")
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from mmm.corpora.generated.kemdy20 import make_kemdy20_demo
    from mmm.corpora.generated.kemdy20_segments import default_splits
    from mmm.corpora.kemdy20 import prepare_kemdy20

    num_sessions = 40 if sessions is None else sessions
    columns = (
        TextColumn("{task.description:<16}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=progress_of(console)) as bar:
        task = bar.add_task("utterances", total=None)
        for done, total in make_kemdy20_demo(
            out, num_sessions=num_sessions, num_scripts=6 if scripts is None else scripts, seed=seed
        ):
            bar.update(task, completed=done, total=total)
    dev, test = default_splits(num_sessions)
    console.say(
        f"mmm prepare kemdy20 {out} --dev-sessions {dev} --test-sessions {test} -o"
        f" {out / 'manifest.csv'}"
    )
    with console.status("reading the corpus"):
        prepared = prepare_kemdy20(out, dev_sessions=dev, test_sessions=test)
    write_manifest(prepared, out / "manifest.csv")
