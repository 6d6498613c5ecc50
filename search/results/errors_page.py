"""`errors.html`: the winner's most confident errors with players. Unlike the report it holds audio
of the corpus, and says so.
"""

import base64
import io
import tempfile
import wave
from pathlib import Path

import numpy as np

from mmm.audio.sound import AudioError
from mmm.audio.speech import SAMPLE_RATE_HZ, read_speech
from mmm.files import write_text
from mmm.page import render
from search.results.page.winner import ERROR_COLUMNS, error_row
from search.results.winner import Winner
from search.storage.door import StorageError
from search.storage.stage import beside

_PAGE = Path(__file__).parent / "page"
_LONGEST_S = 30  # of a clip: about 1.3 MB in the page


def write_errors(
    path: Path, sweep: str, found: Winner, manifest_url: str | None = None
) -> list[str]:
    """Write the page. Clips are in it as 16 kHz WAV, so that whatever the corpus' format a browser
    plays them, and the page does where it is moved; of one that cannot be read the page says why.

    `manifest_url`: where the manifest came from, if from a URL; clips beside it there are brought
    for the page and not kept. Returns the faults of clips that are not in the page.
    """
    rows, faults = [], []
    with tempfile.TemporaryDirectory(prefix="mmm-search-") as scratch:
        for error in found.errors:
            uri, why = "", ""
            clip = found.manifest.parent / error.audio
            try:
                if manifest_url is not None and not Path(error.audio).is_absolute():
                    clip = beside(manifest_url, error.audio, Path(scratch))
                uri = _as_uri(read_speech(clip)[: _LONGEST_S * SAMPLE_RATE_HZ])
            except (AudioError, OSError, StorageError) as fault:
                why = f"cannot be played: {type(fault).__name__}"
                # Of one that was brought the name here says nothing.
                faults.append(f"{error.audio}: {fault}".replace(f"{clip}: ", ""))
                if isinstance(fault, StorageError):
                    manifest_url = None  # no other clip waits for who does not answer
            rows.append((error_row(error), uri, why))
    write_text(
        path,
        render(
            _PAGE / "errors.html.j2",
            sweep=sweep,
            found=found,
            columns=ERROR_COLUMNS,
            rows=rows,
            longest_s=_LONGEST_S,
            style=(_PAGE / "report.css").read_text(encoding="utf-8"),
        ),
    )
    return faults


def _as_uri(speech: np.ndarray) -> str:
    content = io.BytesIO()
    with wave.open(content, "wb") as written:
        written.setnchannels(1)
        written.setsampwidth(2)
        written.setframerate(SAMPLE_RATE_HZ)
        written.writeframes((speech.clip(-1, 1) * 32767).astype("<i2").tobytes())
    return "data:audio/wav;base64," + base64.b64encode(content.getvalue()).decode("ascii")
