"""The command `mmm features`: what a features folder holds."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from mmm.console import console

if TYPE_CHECKING:
    from mmm.features.named import NamedEncoder

Folder = Annotated[Path, typer.Argument(help="Folder of feature stores.", show_default=False)]


def features(
    folder: Folder,
    remove: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Delete an encoder's features; may be repeated."),
    ] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=NEW", help="Call an encoder by another name."),
    ] = None,
) -> None:
    """List the encoders of a features folder by their names; remove or rename some."""
    from mmm.features import named
    from mmm.features.writer import only_writer

    encoders = named.encoders_in(folder)
    pairs = [_pair(one) for one in rename or []]
    if remove or pairs:
        with only_writer(folder):
            for old, new in pairs:
                named.rename(folder, old, new)
                console.say(f"{old} is called {new} now")
            for name in remove or []:
                size = named.remove(folder, name)
                console.say(f"removed {name}: {_size(size)}")
        encoders = named.encoders_in(folder)
    console.print(_table(folder, encoders))


def _pair(text: str) -> tuple[str, str]:
    old, equals, new = text.partition("=")
    if not (old and equals and new):
        raise ValueError(f"--rename {text!r} is not understood; expected NAME=NEW")
    return old, new


def _table(folder: Path, encoders: "list[NamedEncoder]") -> Table:
    import numpy as np

    from mmm.features.named import num_bytes
    from mmm.features.names import describe
    from mmm.features.store import open_store

    table = Table(title=f"encoders in {folder}{os.sep}", title_justify="left")
    for name in ("name", "of", "encoder", "holds"):
        table.add_column(name, overflow="fold")
    for name in ("width", "frames", "utterances", "size"):
        table.add_column(name, justify="right")
    for one in encoders:
        stores = [open_store(path) for path in one.stores]
        first = stores[0]
        lengths = np.diff(first.offsets)
        kept = [*one.audio_features, *(["all layers"] if one.layers is not None else [])]
        held = ", ".join(kept) or f"contexts {', '.join(map(str, one.contexts))}"
        table.add_row(
            one.name,
            "speech" if one.kind == "audio" else "text",
            describe(one.recipe),
            held,
            str(first.width),
            f"{lengths.mean():.0f} ({lengths.max()})" if len(lengths) else "0",
            str(max(len(store.keys) for store in stores)),
            _size(sum(map(num_bytes, one.stores))),
        )
    return table


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"
