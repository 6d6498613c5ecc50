"""The commands of `mmm-search` that look at a sweep and take something out of it: status, report,
MLflow's pages.
"""

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import MofNCompleteColumn, Progress

from mmm.cli.systems import MovedSystems, name_systems
from mmm.console import PlainConsole, console, progress_of
from mmm.files import write_text

Runs = Annotated[
    Path, typer.Option("--runs", help="Folder of all sweeps and of the MLflow store they share.")
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print it as JSON, all fields, and nothing else.")
]
Cache = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        metavar="DIR",
        help="Where manifest and features of a URL are kept \\[as in the sweep].",
    ),
]
_SWEEPS_NAMED = 3  # by `ui`, the newest
SweepName = Annotated[str, typer.Argument(metavar="NAME", help="The sweep.", show_default=False)]


def status(
    name: SweepName,
    runs: Runs = Path("runs"),
    rows: Annotated[int, typer.Option(help="Rows of the leaderboard.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Trials by state, the verdict and the leaderboard so far; also of a sweep that is running."""
    from search.ledger.events import read_history
    from search.ledger.files import existing_sweep
    from search.results.encoders import cross_table, crosses
    from search.results.leaderboard import counts, leaderboard_table
    from search.results.page.forest import read_confirmed
    from search.results.page.words import verdict_words
    from search.results.summary import session_words, summary

    folder = existing_sweep(runs, name)
    history, confirmed = read_history(folder / "ledger.sqlite"), read_confirmed(folder)
    if as_json:
        _print_json(summary(history, confirmed, rows).as_json())
        return
    console.print(
        leaderboard_table(
            history,
            history.spec.metric,
            rows,
            f"{name}, {history.spec.score_name}",
            console.width,
        )
    )
    for cross in crosses(history, history.spec.metric):
        console.say(cross.title)
        console.print(cross_table(cross))
    states = ", ".join(f"{number} {state}" for state, number in counts(history).items() if number)
    console.say(
        f"{len(history.trials)} of {history.spec.trials} trials: {states or 'none yet'}; session:"
        f" {session_words(history)}"
    )
    console.say(" ".join(verdict_words(history, confirmed)))
    for sentence in (*history.data_account(), *history.space_account()):
        console.say(sentence)
    for trial in history.trials.values():
        if trial.state == "failed":
            console.say(f"trial {trial.number} failed: {trial.reason}")


def report(
    name: SweepName,
    runs: Runs = Path("runs"),
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder to write them into, instead of the sweep's."),
    ] = None,
    markdown: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The same for a paper's appendix, as Markdown, into this file."
        ),
    ] = None,
    with_audio: Annotated[
        bool,
        typer.Option(
            "--with-audio", help="Write errors.html too: the winner's errors with their clips."
        ),
    ] = False,
    system: MovedSystems = None,
    cache: Cache = None,
    as_json: AsJson = False,
) -> None:
    """Write report.html and leaderboard.csv again, from the ledger and the winner's answers, and
    say the verdict.
    """
    from search.ledger.events import read_history
    from search.ledger.files import existing_sweep
    from search.results.errors_page import write_errors
    from search.results.findings import findings
    from search.results.leaderboard import write_leaderboard
    from search.results.markdown import appendix
    from search.results.page.words import verdict_words
    from search.results.report import read_confirmed, write_report
    from search.results.summary import summary
    from search.results.winner import Winner, winner_here

    name_systems(system)
    folder = existing_sweep(runs, name)
    history, confirmed = read_history(folder / "ledger.sqlite"), read_confirmed(folder)
    into = folder if out is None else out
    told = PlainConsole(stderr=True, width=140) if as_json else console
    with told.status("looking at the winner"):
        winner = winner_here(history, folder, cache, told.say)
    if with_audio and not isinstance(winner, Winner):
        raise ValueError(
            f"--with-audio: the winner's errors are not known: {winner or 'no trial has a score'};"
            " for the report without them: mmm-search report"
            f" {name} --runs {shlex.quote(str(runs))}"
        )
    into.mkdir(parents=True, exist_ok=True)
    write_leaderboard(into / "leaderboard.csv", history, history.spec.metric)
    write_report(into / "report.html", history, confirmed, winner)
    if with_audio and isinstance(winner, Winner):
        unheard = write_errors(into / "errors.html", name, winner, history.spec.manifest_url)
    if markdown is not None or as_json:
        beyond = findings(history, winner)
    if markdown is not None:
        write_text(markdown, appendix(history, confirmed, beyond))
    if as_json:
        _print_json({**summary(history, confirmed).as_json(), **beyond.as_json()})
        return
    last = "" if markdown is None else f", and {markdown}"
    if isinstance(winner, str):
        console.say(f"left out, the winner's errors and calibration: {winner}")
    console.say(f"wrote {into / 'report.html'} and {into / 'leaderboard.csv'}{last}")
    if with_audio and isinstance(winner, Winner):
        console.say(f"wrote {into / 'errors.html'}; {_clips_in_it(len(winner.errors), unheard)}")
    console.say(" ".join(verdict_words(history, confirmed)))


def _clips_in_it(num_clips: int, faults: Sequence[str]) -> str:
    held = "it holds audio of the corpus"
    if not faults:
        return held
    if len(faults) == num_clips:
        return f"none of its clips could be read, the first fault: {faults[0]}"
    return f"{held}; {len(faults)} of {num_clips} clips are not in it, the first: {faults[0]}"


def _print_json(found: dict[str, object]) -> None:
    """On standard output, and nothing else: halves of characters spelt out, as JSON does."""
    print(json.dumps(found))


def export_study(
    name: SweepName,
    out: Annotated[
        Path, typer.Argument(metavar="FILE", help="SQLite file to write.", show_default=False)
    ],
    runs: Runs = Path("runs"),
) -> None:
    """Write the sweep as an Optuna storage, which optuna-dashboard opens."""
    from search.ledger.events import read_history
    from search.ledger.files import existing_sweep
    from search.results.optuna_study import export_study as write_study

    write_study(read_history(existing_sweep(runs, name) / "ledger.sqlite"), out)
    console.say(f"study {name!r} in {out}; look at it with: optuna-dashboard sqlite:///{out}")


def mlflow_sync(
    name: SweepName,
    runs: Runs = Path("runs"),
    tracking_uri: Annotated[
        str | None, typer.Option(help="Where to \\[where the sweep went].")
    ] = None,
) -> None:
    """Send a whole sweep to MLflow again, or to another one; what is there already stays as it
    is.
    """
    from search.ledger.events import read_history
    from search.ledger.files import existing_sweep
    from search.ledger.lock import is_held
    from search.ledger.spec import check_tracking_uri, without_password
    from search.tracking.delivery import sync
    from search.tracking.pages import page_base
    from search.tracking.store import default_tracking_uri

    folder = existing_sweep(runs, name)
    spec = read_history(folder / "ledger.sqlite").spec
    if is_held(folder / "lock"):
        raise ValueError(
            f"sweep {name!r} is running and sends what happens by itself; wait until it has ended"
        )
    uri = tracking_uri or spec.tracking_uri
    if uri is not None:
        check_tracking_uri(uri)
    shown = without_password(uri or default_tracking_uri(runs))
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=progress_of(console), transient=True) as progress:
        task = progress.add_task("sending runs")
        done = sync(
            runs, name, uri, lambda sent, total: progress.update(task, completed=sent, total=total)
        )
    console.say(
        f"sent {done.num_runs} runs ({done.made} of them new) and {done.points} points of sweep"
        f" {name} to {shown}"
    )
    base = page_base(uri, 5000)
    console.say(f"all trials, best first: {done.pages.ranking(base)}")
    if len(done.pages.best) > 1:
        console.say(f"compare the best of each architecture: {done.pages.chart(base)}")


def ui(
    runs: Runs = Path("runs"),
    port: Annotated[int, typer.Option(help="Port on this machine alone (127.0.0.1).")] = 5000,
    opens: Annotated[
        bool, typer.Option("--open", help="Show the newest sweep's trials in the browser.")
    ] = False,
) -> None:
    """Serve MLflow's pages over all sweeps of a runs folder, until it is told to end."""
    if not (runs / "mlflow.db").is_file():
        raise FileNotFoundError(
            f"{runs}/mlflow.db: no MLflow store yet; run a sweep first, for example: mmm-search"
            f" quickstart --runs {shlex.quote(str(runs))}"
        )
    from search.tracking.pages import Pages, list_of_sweeps, page_base
    from search.tracking.server import open_once_served, serve
    from search.tracking.store import newest_sweeps, open_client

    client, experiment = open_client(runs, None)
    base = page_base(None, port)
    page = list_of_sweeps(base, experiment)
    console.say(f"{page}  (this machine only; Ctrl-C ends it)")
    for name, sweep_id in reversed(newest_sweeps(client, experiment, _SWEEPS_NAMED)):
        pages = Pages(experiment, sweep_id, "", [])
        page = pages.ranking(base)
        console.say(f"{name}, best first: {page}")
        console.say(f"{name}, learning curves: {pages.chart(base)}")
    if opens:
        open_once_served(page, port)
    sys.exit(serve(runs, port))
