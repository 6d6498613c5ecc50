"""README's two pictures: a terminal amid `mmm-search quickstart`, and the report of that sweep.

    python -m benchmarks.readme_pictures FOLDER docs/images

Runs the quickstart in FOLDER, which has no runs/ yet and whose name the report shows. Needs
`mmm-search` on the PATH, tmux, and what benchmarks/pictures.py needs.
"""

import argparse
import io
import re
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.text import Text

from benchmarks.pictures import browser_page, find_chromium

_COLUMNS, _LINES = 126, 23
_ENDED = 15  # trials, when the terminal is looked at
_FONT = "'SFMono-Regular', Menlo, 'DejaVu Sans Mono', 'Liberation Mono', Consolas, monospace"


def record_quickstart(folder: Path) -> str:
    """Run the quickstart in a terminal; its screen, with colours, when some trials have ended."""
    tmux = ["tmux", "-L", "readme-pictures", "-f", "/dev/null"]
    size = ["-x", str(_COLUMNS), "-y", str(_LINES)]
    started = [*tmux, "new-session", "-d", *size, "-c", str(folder), "mmm-search quickstart"]
    subprocess.run(started, check=True)
    screen = ""
    while True:
        command = [*tmux, "capture-pane", "-p", "-e"]
        shown = subprocess.run(command, capture_output=True, text=True, check=False)
        if shown.returncode:  # the command has ended, and the terminal with it
            return screen
        ended = re.search(r"(\d+) of \d+ trials", shown.stdout)
        if not screen and ended and int(ended[1]) >= _ENDED:
            screen = shown.stdout
        time.sleep(0.3)


def as_svg(screen: str) -> str:
    """A picture of a terminal that asks for no font of another machine's."""
    console = Console(record=True, width=_COLUMNS, file=io.StringIO(), legacy_windows=False)
    console.print(Text.from_ansi(screen.rstrip()))
    svg = console.export_svg(title="mmm-search quickstart")
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: Fira Code, monospace", f"font-family: {_FONT}", svg)
    return "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    chromium = find_chromium()
    if chromium is None:
        print("error: no Chromium found; install one, or name it in MMM_CHROMIUM", file=sys.stderr)
        return 2
    out = options.out.resolve()
    (out / "terminal.svg").write_text(as_svg(record_quickstart(options.folder)), encoding="utf-8")
    report = options.folder.resolve() / "runs" / "quickstart" / "report.html"
    with browser_page(chromium, 1400, 900) as page:
        page.goto(report.as_uri())
        page.wait_for_function("document.documentElement.dataset.drawn === 'yes'")
        figures = page.locator(".figures").nth(1).bounding_box()  # with the learning curves
        assert figures is not None
        end = figures["y"] + figures["height"] + 20
        shown = {"x": 0, "y": 0, "width": 1400, "height": end}
        page.screenshot(path=out / "report.png", full_page=True, clip=shown)
    # Few colours are in it, and a palette of them is a third of the bytes.
    picture = Image.open(out / "report.png").convert("RGB").quantize(160)
    picture.save(out / "report.png", optimize=True)
    for file in (out / "terminal.svg", out / "report.png"):
        print(f"{file} {file.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
