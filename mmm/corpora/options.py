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
        Setting("Read a label as another, 상처=fear, or leave its rows out, 상처= ; repeat it."),
    ] = None
    drop_emotion: Annotated[
        list[str] | None,
        Setting("Keep turns of this label as context, without a label; repeat it."),
    ] = None
    column: Annotated[
        list[str] | None,
        Setting("Which column the manifest's is, text=sentence; text= is none; repeat it."),
    ] = None
    encoding: Annotated[
        str | None, Setting("Encoding of text files that are not UTF-8, such as cp949 or cp1252.")
    ] = None
    split_by: Annotated[
        str | None,
        Setting("Deal to splits by speaker, session or dialogue, none of which is divided."),
    ] = None
    shares: Annotated[
        str | None, Setting("Of train, dev and test \\[0.8,0.1,0.1 where it deals].")
    ] = None
    folds: Annotated[
        str | None,
        Setting("Folds of cross-validation in a column fold: a number, or all, each group one."),
    ] = None
    fold_by: Annotated[
        str | None,
        Setting("Deal to folds by speaker, session or dialogue \\[speaker, where each is named]."),
    ] = None
    seed: Annotated[int, Setting("Of the dealing.", low=0)] = 1
    strict: Annotated[bool, Setting("Refuse what two splits or folds share.", flag="--strict")] = (
        False
    )
