"""What every `mmm prepare` can be asked for, beside the corpus itself."""

from dataclasses import dataclass
from typing import Annotated

from mmm.setting import Setting

KEYS = ("speaker", "session", "dialogue")


@dataclass(frozen=True)
class PrepareOptions:
    """Labels, columns and encoding of a corpus, and its splits and folds. None: not asked for."""

    emotion: Annotated[
        list[str] | None,
        Setting(
            "Read a label as another, joy=happy, or with joy= leave its rows out; repeat it.",
            metavar="NAME=LABEL",
        ),
    ] = None
    drop_emotion: Annotated[
        list[str] | None,
        Setting("Keep turns of this label as context, without a label; repeat it.", metavar="NAME"),
    ] = None
    column: Annotated[
        list[str] | None,
        Setting(
            "Which column of the table the manifest's is, text=sentence; text= is none; repeat it.",
            metavar="COLUMN=COLUMN",
        ),
    ] = None
    encoding: Annotated[
        str | None,
        Setting(
            "Encoding of text files that are not UTF-8, such as cp949 or cp1252.", metavar="NAME"
        ),
    ] = None
    split_by: Annotated[
        str | None,
        Setting(
            "Deal to splits by speaker, session or dialogue, none of which is divided.",
            metavar="KEY",
        ),
    ] = None
    shares: Annotated[
        str | None, Setting("Of train, dev and test \\[0.8,0.1,0.1].", metavar="A,B,C")
    ] = None
    folds: Annotated[
        str | None,
        Setting(
            "Folds of cross-validation, as a column: a number, or all, a fold for each group.",
            metavar="K",
        ),
    ] = None
    fold_by: Annotated[
        str | None,
        Setting(
            "Deal to folds by speaker, session or dialogue \\[speaker, where each is named].",
            metavar="KEY",
        ),
    ] = None
    seed: Annotated[int, Setting("Of the dealing.", low=0)] = 1
    strict: Annotated[bool, Setting("Refuse what two splits or folds share.", flag="--strict")] = (
        False
    )
