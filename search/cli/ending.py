"""Ends the session of a sweep in the place of a process that could not go on
(search/cluster/watch.py): `python -m search.cli.ending RUNS NAME WHY`.
"""

import sys
from pathlib import Path

from mmm.console import console
from search.cli.sweeps import finish


def main() -> None:
    runs, name, why = sys.argv[1:]
    console.show_cursor()  # it was hidden where a table was shown
    from search.session import end_broken_off

    finish(end_broken_off(Path(runs), name, why, console), Path(runs))


if __name__ == "__main__":
    main()
