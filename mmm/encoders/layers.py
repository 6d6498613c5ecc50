"""Which layers of a pretrained model are read, as commands name them and recipes keep them."""

import re
from dataclasses import dataclass

_RANGE = re.compile(r"(\d{1,3})(?:-(\d{1,3}))?")


@dataclass(frozen=True)
class Layers:
    """`numbers` as in `hidden_states` of transformers: 0 goes into the first block, n comes out of
    block n. Empty: the model's output.
    """

    numbers: tuple[int, ...] = ()
    mean: bool = False

    def __str__(self) -> str:
        """Canonical, as it stands in a recipe."""
        if not self.numbers:
            return "last"
        return ("mean:" if self.mean else "") + ",".join(map(str, self.numbers))


def parse_layers(text: str) -> Layers:
    """`last`, `9`, `6,9,12` (side by side), `mean:6-12` (their mean). Raises ValueError."""
    if text == "last":
        return Layers()
    body = text.removeprefix("mean:")
    numbers: list[int] = []
    for part in body.split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None or (match[2] and int(match[2]) < int(match[1])):
            raise ValueError(
                f"--layer {text!r} is not understood; expected last, a layer (9), several side by"
                " side (6,9,12), or the mean of several (mean:6-12)"
            )
        numbers += range(int(match[1]), int(match[2] or match[1]) + 1)
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"--layer {text!r} names a layer twice")
    return Layers(tuple(numbers), text != body)
