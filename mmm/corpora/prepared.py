"""A corpus as its reader gives it, before it is dealt to splits and written."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mmm.corpora.account import Account
from mmm.corpora.label_sets import NAMED
from mmm.corpora.labels import Labels, labels_for
from mmm.corpora.options import PrepareOptions
from mmm.corpora.text_files import Texts

# The column of a row that says where it was found, `line 7`; it is not written. No table can have
# one of this name.
PLACE = "\0place"


@dataclass
class Prepared:
    """Rows of a manifest, in the order of conversation. `audio` is an absolute path until it is
    written, `split` is empty where the corpus has none.
    """

    source: Path
    options: PrepareOptions
    account: Account
    texts: Texts
    labels: Labels
    rows: list[dict[str, str]] = field(default_factory=list)
    # Whether its columns were taken as --column says, which is else done when it is written.
    has_columns: bool = False
    split_by: str = ""  # what splits are dealt by where nobody says, and folds
    fold_by: str = ""
    is_dev_fold_1: bool = False  # as it is where the corpus has no dev of its own


def prepare(
    source: Path,
    options: PrepareOptions,
    known: Mapping[str, str] = NAMED,
    *,
    is_closed: bool = True,
    is_korean: bool = False,
    sentiment: float = 0.0,
) -> Prepared:
    """A corpus without rows, whose labels have these names. Raises ValueError for options."""
    account = Account()
    labels = labels_for(
        account,
        known,
        options.emotion or [],
        options.drop_emotion or [],
        is_closed=is_closed,
        sentiment=sentiment,
    )
    texts = Texts(account, options.encoding, is_korean)
    return Prepared(source, options, account, texts, labels)
