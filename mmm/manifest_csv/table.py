"""A manifest's file as a table of text, with the line of each row."""

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

from mmm.faults import csv_fault
from mmm.manifest import COLUMNS, ManifestError

if TYPE_CHECKING:
    import pandas as pd

# Marks a row that had more fields than the header; no corpus uses this private character.
EXTRA_FIELDS = "\ue000"


def read_table(path: Path) -> "tuple[pd.DataFrame, list[int]]":
    """A CSV as strings (None for a missing field), with the line number each row starts on.

    Raises FileNotFoundError and ManifestError.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such manifest; make one with: mmm prepare csv FILE -o manifest.csv"
        )

    try:
        text = path.read_bytes().decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        fault = f"byte {error.start}: not UTF-8 ({error.reason}); save it as UTF-8"
        raise ManifestError(path, [fault]) from None
    expected = f"expected a header with {', '.join(COLUMNS)}"
    if not text.strip():
        raise ManifestError(path, [f"line 1: the file is empty; {expected}"])
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    records: list[list[str | None]] = []
    lines: list[int] = []
    header: list[str] = []
    line = 1
    try:
        header = next(reader)
        if not header:
            raise ManifestError(path, [f"line 1: an empty line; {expected}"])
        if twice := sorted({name for name in header if header.count(name) > 1}):
            raise ManifestError(
                path, [f"line 1: column {name!r} occurs more than once" for name in twice]
            )
        # A quoted field may span lines, so a row's line is not its number plus two.
        line = reader.line_num + 1
        for fields in reader:
            if len(fields) > len(header):
                fields = [EXTRA_FIELDS + fields[0], *fields[1 : len(header)]]
            records.append([*fields, *[None if fields else ""] * (len(header) - len(fields))])
            lines.append(line)
            line = reader.line_num + 1
    except csv.Error as error:
        raise ManifestError(path, [csv_fault(error, text, line, header)]) from None
    # Half a second to import, which a prediction must not wait for.
    import pandas as pd

    table = pd.DataFrame(records, columns=pd.Index(header), dtype=object)
    return table, lines
