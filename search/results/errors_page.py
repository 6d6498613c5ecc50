"""`errors.html`: the winner's most confident errors with players. Unlike the report it holds audio
of the corpus, and says so.
"""

import base64
import io
import wave
from pathlib import Path

import numpy as np

from mmm.audio.sound import AudioError
from mmm.audio.speech import SAMPLE_RATE_HZ, read_speech
from mmm.files import write_text
from mmm.page import render
from search.results.page.winner import ERROR_COLUMNS, error_row
from search.results.winner import ConfidentError, Winner

_PAGE = Path(__file__).parent / "page"
_LONGEST_S = 30  # of a clip: about 1.3 MB in the page


def write_errors(path: Path, sweep: str, found: Winner) -> None:
    """Write the page. Clips are in it as 16 kHz WAV, so that whatever the corpus' format a browser
    plays them, and the page does where it is moved; of one that cannot be read the page says why.
    """
    rows = [(error_row(error), *_player(found, error)) for error in found.errors]
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


def _player(found: Winner, error: ConfidentError) -> tuple[str, str]:
    """The clip as a data URI, and why there is none."""
    try:
        speech = read_speech(found.manifest.parent / error.audio)
    except (AudioError, OSError) as fault:
        return "", f"cannot be played: {type(fault).__name__}"
    return _as_uri(speech[: _LONGEST_S * SAMPLE_RATE_HZ]), ""


def _as_uri(speech: np.ndarray) -> str:
    content = io.BytesIO()
    with wave.open(content, "wb") as written:
        written.setnchannels(1)
        written.setsampwidth(2)
        written.setframerate(SAMPLE_RATE_HZ)
        written.writeframes((speech.clip(-1, 1) * 32767).astype("<i2").tobytes())
    return "data:audio/wav;base64," + base64.b64encode(content.getvalue()).decode("ascii")
