"""`mmm-search paper`: the published comparison made again."""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from mmm.cli.encode import DeviceName
from mmm.console import PlainConsole, console
from mmm.files import write_text
from search.cli.sweeps import FeaturesSource, ManifestSource


def paper(
    manifest: ManifestSource,
    features: FeaturesSource,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each system.")] = 5,
    epochs: Annotated[int, typer.Option(min=1, help="Of each run.")] = 30,
    test_sessions: Annotated[
        str | None,
        typer.Option(
            metavar="SESSIONS",
            help="Sessions to test on, such as 33-40; all that the manifest seals among them"
            " \\[its test split].",
        ),
    ] = None,
    open_test: Annotated[
        bool,
        typer.Option(
            "--open-test",
            help="Open the test split, on record: the published protocol chooses its checkpoint"
            " there.",
        ),
    ] = False,
    speech: Annotated[str | None, typer.Option(help="Speech encoder \\[the only one].")] = None,
    text: Annotated[str | None, typer.Option(help="Text encoder \\[the only one].")] = None,
    device: DeviceName = "cpu",
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Folder of the table and of bundles; goes on there."),
    ] = Path("paper"),
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache",
            metavar="DIR",
            help="Where manifest and features of a URL are kept \\[~/.cache/mmm-search].",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print it as JSON, and nothing else.")
    ] = False,
) -> None:
    """Train the four published systems under the published protocol and under an honest one, beside
    the published figures. Run it again to go on.
    """
    from search.paper import Asked, make_again, markdown_of, sentences, table_of
    from search.storage.door import as_url, is_url
    from search.storage.here import features_here, manifest_here
    from search.storage.openings import on_record

    told = PlainConsole(stderr=True, width=140) if as_json else console
    with told.status("bringing features"):
        data = manifest_here(manifest, cache), features_here(features, cache)
    asked = Asked(*data, out, seeds, epochs, open_test, test_sessions, speech, text, device)
    recorded_at = as_url(features) if open_test and is_url(features) else None
    with told.status("training") as status, on_record(recorded_at, asked.features):
        *_, found = make_again(asked, status.update)
    command = shlex.join(["mmm-search", *sys.argv[1:]])
    write_text(out / "paper.md", markdown_of(found, command))
    if as_json:
        print(json.dumps(found.as_json()))
        return
    console.print(table_of(found))
    for sentence in sentences(found, command):
        console.say(sentence)
    console.say(f"table {out / 'paper.md'}, figures {out / 'paper.json'}")
