"""What workers and the driver tell each other."""

from dataclasses import dataclass, field
from typing import Any, Self


@dataclass
class Cut:
    """What a trial did in a slice of its training, taken while it stood between two epochs; not on
    the disk yet.
    """

    number: int
    epoch: int  # the last one
    epochs: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    failure: dict[str, Any] | None = None
    is_last: bool = False
    content: bytes | None = None  # of a checkpoint, or at the end the best weights
    content_epoch: int = 0
    content_s: float = 0.0  # what making it took

    def after(self, earlier: "Cut") -> Self:
        """Both in one."""
        self.epochs, self.warnings = earlier.epochs + self.epochs, earlier.warnings + self.warnings
        if self.content is None:
            self.content, self.content_epoch, self.content_s = (
                earlier.content,
                earlier.content_epoch,
                earlier.content_s,
            )
        return self

    def report(self, checkpoint: dict[str, Any] | None = None) -> dict[str, Any]:
        """What the driver is told of it."""
        return {
            "number": self.number,
            "epochs": self.epochs,
            "checkpoint": checkpoint,
            "is_last": self.is_last,
            "warnings": self.warnings,
            "failure": self.failure,
        }
