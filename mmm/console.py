"""What both command lines share: the console, where text is text, tables of metrics, one message
for an error.
"""

import re
import sys
import warnings
from collections.abc import Iterable
from typing import Any, TextIO

import typer
from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

from mmm.files import Unchecked
from mmm.metrics import Metrics, value_of

# All but tab and newline: C0 with ESC, DEL, C1 with the one-byte CSI, what turns the direction of
# writing, halves of characters.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """With what a terminal would obey, or no output could encode, spelt out: `\\x1b`."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text.replace("\r\n", "\n"))


def plain(text: str) -> Text:
    """Text that any of rich's consoles shows as it is."""
    return Text(printable(text))


class PlainConsole(Console):
    """A console that takes every string as text, in tables and titles too. A pipe has no width of
    its own: 140 is enough for tables.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        # Here rich makes text of each string that it is given to print, to put into a table, or to
        # measure.
        return super().render_str(printable(text), **options)

    def status(self, status: Any, **options: Any) -> Status:
        return super().status(plain(status) if isinstance(status, str) else status, **options)


console = PlainConsole(width=None if sys.stdout.isatty() else 140)


_TITLES = {
    "macro_f1": "macro F1",
    "unweighted_recall": "UAR",
    "accuracy": "accuracy",
    "weighted_f1": "weighted F1",
    "weighted_precision": "weighted P",
    "weighted_recall": "weighted R",
    "recall_sd": "recall SD",
}


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
    """Per-class scores beside the confusion matrix."""
    classes = list(metrics["per_class"])
    table = Table(
        title="per class, and confusion (rows: true, columns: predicted)", title_justify="left"
    )
    table.add_column("")
    for name in ("precision", "recall", "F1", "support", *classes):
        table.add_column(name, justify="right")
    for name, row in zip(classes, metrics["confusion_matrix"], strict=True):
        own = metrics["per_class"][name]
        scores = (f"{score:.3f}" for score in (own["precision"], own["recall"], own["f1"]))
        table.add_row(name, *scores, str(own["support"]), *map(str, row))
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
    (file or sys.stderr).write(text)


def run_app(application: typer.Typer) -> None:
    """Run a command line; what a user can cause ends in one message and exit status 2, and our own
    warnings take a line.
    """
    warnings.showwarning = _show_warning
    try:
        application()
    except (
        ValueError,
        FileNotFoundError,
        FileExistsError,
        PermissionError,
        NotADirectoryError,
        IsADirectoryError,
    ) as error:
        message = str(error)
        if isinstance(error, OSError) and error.filename and error.strerror:
            message = f"{error.filename}: {error.strerror}"
        print(f"error: {printable(message)}", file=sys.stderr)
        sys.exit(2)
