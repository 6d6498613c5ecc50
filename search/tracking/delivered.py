"""What MLflow stores have of a sweep: `runs/NAME/mlflow.json`."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from mmm.files import parse_json, sha256_of_json, write_json


@dataclass(slots=True)
class Delivered:
    """What a store has of a sweep, as the file keeps it; the delivery changes it."""

    delivered: int = 0  # the last event of which it has everything
    runs: dict[str, str] = field(default_factory=dict)  # id by the projection's key
    deleted: list[str] = field(default_factory=list)  # keys of runs that a person removed
    bundle: str = ""  # checksums.json of the one that it has
    figures: dict[str, int] = field(default_factory=dict)  # the last epoch in them, by key
    uncertain: bool = False  # whether runs may have been made that are not in `runs`
    best: str | None = None  # key of the run that has the mark
    views: dict[str, str] = field(default_factory=dict)  # of MLflow's page, by their names

    def alive(self, key: str) -> str | None:
        """The id of a run that nobody removed; None where there is none."""
        return None if key in self.deleted else self.runs.get(key)


def read_delivered(path: Path) -> dict[str, Delivered]:
    """By the store's address; empty where the file is damaged: what a store has is then found in
    it, and the rest sent again.
    """
    known = Delivered.__slots__
    try:
        content = parse_json(path.read_bytes())
        stores = content["stores"]
        if content.get("sha256") not in (None, sha256_of_json(stores)):
            return {}
        return {
            uri: Delivered(**{name: found[name] for name in known if name in found})
            for uri, found in stores.items()
        }
    # None yet, of a version that kept one store, or damaged.
    except (FileNotFoundError, AttributeError, KeyError, TypeError, ValueError):
        return {}


def write_delivered(path: Path, uri: str, found: Delivered) -> None:
    """Put down what one store has; what is known of others stays."""
    stores = {at: asdict(one) for at, one in {**read_delivered(path), uri: found}.items()}
    write_json(path, {"stores": stores, "sha256": sha256_of_json(stores)})
