"""The one place that turns a ledger's records into JSON and back.

An event's body in the file is its record's fields by name. A field that has its default is left
out, and one that is missing, because an earlier version wrote the event, has its default; a field
that a later version added is ignored. What has no record, because a later version wrote it, is an
`UnknownEvent` and is passed over.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import MISSING
from typing import Any, TypeVar, get_args

from search.ledger.records import (
    DataNote,
    Epoch,
    ManifestDigest,
    OpenedTest,
    Prior,
    Record,
    Session,
    SplitDigest,
    StoreDigest,
    Sweep,
    UnknownEvent,
    as_json,
    split_tables,
)
from search.ledger.spec import SweepSpec

_KNOWN = [record for record in get_args(Record) if record is not UnknownEvent]
_KINDS: dict[str, type[Record]] = {one.kind: one for one in _KNOWN if one.kind != "note"}
_NOTES: dict[object, type[Record]] = {one.about: one for one in _KNOWN if one.kind == "note"}


def body_of(record: Record) -> dict[str, object]:
    """A record as JSON has it."""
    if isinstance(record, UnknownEvent):
        return dict(json.loads(record.text))
    if isinstance(record, Sweep):
        return {"spec": record.spec.as_json()}
    about = {"about": record.about} if record.kind == "note" else {}  # type: ignore[union-attr]
    return {**about, **_fields(record)}


def record_of(kind: str, body: Mapping[str, Any]) -> Record:
    """The record that a body in a ledger is. Raises KeyError, TypeError or ValueError where it is
    none.
    """
    if kind == "epoch":
        return _epoch(body)
    cls = _NOTES.get(body.get("about")) if kind == "note" else _KINDS.get(kind)
    if cls is None:
        return UnknownEvent(kind, as_json(body))
    if cls is Sweep:
        return Sweep(SweepSpec.from_json(body["spec"]), as_json(body))
    if cls is Session:
        return Session(
            SweepSpec.from_json(body["spec"]),
            body.get("host", ""),
            body["command"],
            body.get("processor", ""),
            body.get("threads"),
        )
    if cls is Prior:
        scores = {int(epoch): score for epoch, score in body["scores"].items()}
        return Prior(body["source"], body["params"], scores)
    if cls is DataNote:
        return _data_note(body)
    if cls is OpenedTest:
        body = {**body, "finalists": tuple(body["finalists"]), "trials": tuple(body["trials"])}
    return _made(cls, body)


def _epoch(body: Mapping[str, Any]) -> Epoch:
    if "tables" not in body:  # they may stand among the metrics, as in the first ledgers
        metrics, tables = split_tables(body["metrics"])
        if tables:
            body = {**body, "metrics": metrics, "tables": tables}
    return _made(Epoch, body)


def _data_note(body: Mapping[str, Any]) -> DataNote:
    manifest = body["manifest"]
    if (splits := manifest.get("splits")) is not None:
        splits = {name: _made(SplitDigest, split) for name, split in splits.items()}
    return DataNote(
        _made(ManifestDigest, {**manifest, "splits": splits}),
        tuple(_made(StoreDigest, store) for store in body["stores"]),
        tuple(body.get("restarted", ())),
        tuple(body.get("changed", ())),
        body.get("only_train_labels", False),
    )


_AnyRecord = TypeVar("_AnyRecord")


def _made(cls: type[_AnyRecord], body: Mapping[str, Any]) -> _AnyRecord:
    try:
        return cls(**body)
    except TypeError:  # with fields of a later version, or without some
        known = {name for name, _ in _DEFAULTS[cls]}
        return cls(**{name: value for name, value in body.items() if name in known})


# Fields, and the values with which they are left out.
_DEFAULTS: dict[type, tuple[tuple[str, object], ...]] = {
    cls: tuple(
        (one.name, MISSING if one.metadata else one.default) for one in dataclasses.fields(cls)
    )
    for cls in (*_KNOWN, SplitDigest, ManifestDigest, StoreDigest)
}


def _fields(record: object) -> dict[str, object]:
    """Those of a record that do not have their defaults."""
    found = {}
    for name, default in _DEFAULTS[type(record)]:
        value = getattr(record, name)
        if value != default or type(value) is not type(default):
            found[name] = _plain(value)
    return found


def _plain(value: object) -> object:
    if isinstance(value, SweepSpec):
        return value.as_json()
    if dataclasses.is_dataclass(value):
        return _fields(value)
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return value
