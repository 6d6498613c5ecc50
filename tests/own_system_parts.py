"""A system of the user's own: the example of docs/training.md."""

import re
from pathlib import Path

_PAGE = Path(__file__).parent.parent / "docs" / "training.md"
SYSTEM = "Product"


def write_system(folder: Path) -> str:
    """The file `my_system.py` in a folder; returns what names its class."""
    text = _PAGE.read_text(encoding="utf-8")
    found = re.search(r"^```python my_system.py\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert found is not None
    (folder / "my_system.py").write_text(found[1], encoding="utf-8")
    return f"{folder / 'my_system.py'}:{SYSTEM}"
