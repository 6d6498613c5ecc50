"""What both command lines share: their own options, the console, where text is text, tables of
metrics, one message for an error.
"""

import errno
import inspect
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable
from typing import Annotated, Any, TextIO

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

from mmm.files import Unchecked
from mmm.metrics import Metrics, macro_f1_of_occurring, value_of
from mmm.version import VERSION

# All but tab and newline: C0 with ESC, DEL, C1 with the one-byte CSI, what turns the direction of
# writing, halves of characters.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """With what a terminal would obey, or no output could encode, spelt out: `\\x1b`."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text.replace("\r\n", "\n"))


def plain(text: str) -> Text:
    """Text that any of rich's consoles shows as it is."""
    return Text(printable(text))


def say(console: Console, text: str) -> None:
    """A line as it is, however long: what it names can be copied."""
    console.print(plain(text), highlight=False, soft_wrap=True)


class PlainConsole(Console):
    """A console that takes every string as text, in tables and titles too. A pipe has no width of
    its own: 140 is enough for tables.
    """

    is_quiet = is_verbose = False

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        # Here rich makes text of each string that it is given to print, to put into a table, or to
        # measure.
        return super().render_str(printable(text), **options)

    def say(self, text: str) -> None:
        say(self, text)

    def status(self, status: Any, **options: Any) -> Status:
        shown = plain(status) if isinstance(status, str) else status
        return Console.status(progress_of(self), shown, **options)


def progress_of(console: Console) -> Console:
    """Where a console shows what is going on: nowhere where only results are wanted."""
    return Console(quiet=True) if getattr(console, "is_quiet", False) else console


# None: whoever started the process has closed its standard output.
console = PlainConsole(width=None if sys.stdout is not None and sys.stdout.isatty() else 140)


_TITLES = {
    "macro_f1": "macro F1",
    "unweighted_recall": "UAR",
    "accuracy": "accuracy",
    "weighted_f1": "weighted F1",
    "weighted_precision": "weighted P",
    "weighted_recall": "weighted R",
    "recall_sd": "recall SD",
}


_SCORES_WIDTH = 46  # of a class's scores beside its name and the confusion


def metrics_table(title: str, rows: Iterable[tuple[str, Metrics]]) -> Table:
    """The metrics of the field, a row a system."""
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for shown in _TITLES.values():
        table.add_column(shown, justify="right")
    for label, metrics in rows:
        table.add_row(label, *(f"{value_of(metrics, name):.4f}" for name in _TITLES))
    return table


def class_table(metrics: Metrics) -> Table:
    """Per-class scores beside the confusion matrix, whose columns are numbered where the names take
    too much room.
    """
    classes = list(metrics["per_class"])
    rows = columns = classes
    if (
        _SCORES_WIDTH + max(map(cell_len, classes)) + sum(3 + cell_len(name) for name in classes)
        > console.width
    ):
        columns = [str(number) for number in range(1, 1 + len(classes))]
        rows = [f"{number} {name}" for number, name in zip(columns, classes, strict=True)]
    table = Table(
        title="per class, and confusion (rows: true, columns: predicted)", title_justify="left"
    )
    table.add_column("")
    for name in ("precision", "recall", "F1", "support", *columns):
        table.add_column(name, justify="right")
    for shown, name, row in zip(rows, classes, metrics["confusion_matrix"], strict=True):
        own = metrics["per_class"][name]
        scores = (f"{score:.3f}" for score in (own["precision"], own["recall"], own["f1"]))
        table.add_row(shown, *scores, str(own["support"]), *map(str, row))
    occurring = macro_f1_of_occurring(metrics)
    if f"{occurring:.4f}" != f"{metrics['macro_f1']:.4f}":
        table.caption = (
            f"macro F1 is the mean over all {len(classes)} classes: {metrics['macro_f1']:.4f};"
            f" over those in the truth or predicted, as scikit-learn counts: {occurring:.4f}"
        )
        table.caption_justify = "left"
    return table


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    text = (
        f"warning: {message}\n"
        if issubclass(category, Unchecked)
        else warnings.formatwarning(message, category, filename, lineno, line)
    )
    (file or sys.stderr).write(printable(text))


def new_app(text: str) -> typer.Typer:
    """A command line without commands; `text` is its help."""
    app = typer.Typer(
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback(help=text)
    def options(
        version: Annotated[
            bool,
            typer.Option(
                "--version",
                help="Say which version this is.",
                is_eager=True,
                callback=_show_version,
            ),
        ] = False,
        verbose: Annotated[
            bool,
            typer.Option("--verbose", "-v", help="Say what libraries log, and where errors arise."),
        ] = False,
        quiet: Annotated[
            bool, typer.Option("--quiet", "-q", help="Say results and errors, no progress.")
        ] = False,
    ) -> None:
        console.is_quiet, console.is_verbose = quiet, verbose
        if verbose:
            logging.basicConfig(level=logging.INFO)

    return app


def add_commands(app: typer.Typer, *commands: Callable[..., None]) -> None:
    """Each under its own name, its docstring as help, wherever the lines of that break."""
    for command in commands:
        paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
        text = "\n\n".join(" ".join(paragraph.splitlines()) for paragraph in paragraphs)
        app.command(command.__name__.replace("_", "-"), help=text)(command)


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"mmm-search {VERSION}")
        raise typer.Exit


_WAYS_OUT = {
    errno.ENOSPC: "; free some space on its disk, and run the command again",
    errno.EDQUOT: "; free some of what you may use of its disk, and run the command again",
    errno.EROFS: "; name a place that can be written to, or make this one so",
    errno.EEXIST: ", and is no folder; name one, or what is to become one",
}


def _open_standard_streams() -> None:
    """Nowhere, where they are closed (`>&-`): else the next file that is opened would be the
    standard output of each process that is started, and libraries print into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.dup2(nowhere := os.open(os.devnull, os.O_RDWR), number)
            if nowhere != number:
                os.close(nowhere)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115


def run_app(application: typer.Typer) -> None:
    """Run a command line; what a user can cause ends in one message and exit status 2, and our own
    warnings take a line.
    """
    _open_standard_streams()
    warnings.showwarning = _show_warning
    try:
        application()
    # What the system refuses (a name too long, a full disk) is its user's to mend, too.
    except (ValueError, OSError) as error:
        message = str(error)
        if isinstance(error, OSError) and error.strerror:
            named = f"{error.filename}: " if error.filename else ""
            message = f"{named}{error.strerror}{_WAYS_OUT.get(error.errno or 0, '')}"
        if console.is_verbose:
            traceback.print_exc()
        print(f"error: {printable(message)}", file=sys.stderr)
        sys.exit(2)
