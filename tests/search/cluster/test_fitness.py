"""What a node says of itself decides whether it is given trials."""

from pathlib import Path
from typing import Any

import pytest

from mmm.version import VERSION
from search.cluster.fitness import fault_in

WELL = {
    "mmm_search": VERSION,
    "lacks": [],
    "lacks_own": [],
    "unreadable": (),
    "unwritable": (),
    "lacks_mark": False,
}


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({}, None),
        (
            {"mmm_search": "0.0.1"},
            f"has mmm-search 0.0.1, here it is {VERSION}; send it this one with --ship",
        ),
        (
            {"lacks": ["sklearn", "torch"]},
            "lacks sklearn, torch, which trials need; install mmm-search[search] there",
        ),
        (
            {"lacks_own": ["/me/my.py"]},
            "lacks /me/my.py of your own systems, or has others there; send them with --ship",
        ),
        ({"unreadable": ("/a", "/b")}, "cannot read /a, /b"),
        ({"unwritable": ("/runs/s",)}, "cannot write into /runs/s"),
        ({"lacks_mark": True}, "has another folder as /runs/s"),
    ],
)
def test_what_a_node_says_of_itself_decides_whether_it_may_train(
    said: dict[str, Any], fault: str | None
) -> None:
    assert fault_in({**WELL, **said}, Path("/runs/s")) == fault
