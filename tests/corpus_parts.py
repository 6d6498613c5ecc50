"""Small corpora in the layouts that `mmm prepare` reads, to be given defects by tests."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.conftest import write_wav

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"
SAMPLE = SHARED / "kemdy20_layout"
needs_sample = pytest.mark.skipif(
    not SAMPLE.is_dir(), reason="no kemdy20_layout in ../shared/data, beside the repository"
)

CLIP_S = 0.1
_EMOTIONS = ("neutral", "happy", "neutral", "angry")
_HEADERS = [
    ["Numb", "Wav", " ", "Segment ID", "Total Evaluation", " ", " "]
    + [f"Eval{n:02}F" if k == 0 else " " for n in range(1, 11) for k in range(3)],
    [" ", "start", "end", " "] + ["Emotion", "Valence", "Arousal"] * 11,
]


class Kemdy20:
    """Sessions 1, 2, ... of one script with four turns each. Change `rows` and `texts`, then
    `write`.
    """

    def __init__(self, folder: Path, num_sessions: int = 3) -> None:
        self.folder = folder
        self.rows: dict[int, list[list[str]]] = {}
        self.texts: dict[str, bytes] = {}
        for session in range(1, num_sessions + 1):
            self.rows[session] = []
            for turn, emotion in enumerate(_EMOTIONS):
                speaker = f"User{2 * session - 1 + turn % 2:03}{'FM'[turn % 2]}"
                identity = f"Sess{session:02}_script01_{speaker}_{turn // 2 + 1:03}"
                self.rows[session].append(
                    [
                        str(turn + 1),
                        f"{turn}.0",
                        f"{turn + CLIP_S:.2f}",
                        identity,
                        emotion,
                        "3.2",
                        "2.9",
                        *[emotion, "3", "3"] * 10,
                    ]
                )
                self.texts[identity] = f"안녕 하세요 {turn}.\n".encode("cp949")

    def write(
        self, *, header: Sequence[Sequence[str]] = tuple(_HEADERS), encoding: str = "utf-8"
    ) -> Path:
        (self.folder / "annotation").mkdir(parents=True, exist_ok=True)
        for session, rows in self.rows.items():
            content = io.StringIO()
            csv.writer(content, lineterminator="\r\n").writerows([*header, *rows])
            (self.folder / "annotation" / f"Sess{session:02}_eval.csv").write_bytes(
                content.getvalue().encode(encoding)
            )
        for number, (identity, text) in enumerate(self.texts.items()):
            folder = self.folder / "wav" / f"Session{identity[4:6]}"
            write_wav(folder / f"{identity}.wav", CLIP_S, 200.0, number)
            (folder / f"{identity}.txt").write_bytes(text)
        return self.folder


def write_ai_hub(
    folder: Path,
    labels: Sequence[str] = ("기쁨", "분노", "슬픔", "불안", "당황", "상처"),
    *,
    encoding: str = "utf-8-sig",
) -> Path:
    """Two clips of each label's sentence, F and M."""
    lines = ["file,text,감정_대분류"]
    number = 0
    for sex in "FM":
        for place, label in enumerate(labels, start=1):
            write_wav(folder / f"{sex}_{place:06}.wav", CLIP_S, 300.0, 100 + number)
            lines.append(f'{sex}_{place:06}.wav,"문장, {place}",{label}')
            number += 1
    (folder / "labels.csv").write_bytes(("\r\n".join(lines) + "\r\n").encode(encoding))
    return folder
