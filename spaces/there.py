"""What a space may ask of a features folder."""

from collections.abc import Mapping
from dataclasses import dataclass, field

Settings = dict[str, str | int | float | bool | None]  # what a space suggests, by name


@dataclass(frozen=True)
class There:
    """What a features folder holds; a space's function may take it as a second argument.

    By default both speech features, which is what spaces asked for before they could look.
    """

    audio_features: tuple[str, ...] = ("hidden_state", "extract_feature")  # of any encoder
    speech: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # encoders, their features
    text: tuple[str, ...] = ()  # encoders
    contexts: tuple[int, ...] = (1, 2, 3, 4, 5)  # that every text encoder has
    layered: tuple[str, ...] = ()  # speech encoders of which several layers can be mixed

    def features_of(self, speech: str | None) -> tuple[str, ...]:
        """Speech features of an encoder; None: of the only one."""
        return self.audio_features if speech is None else self.speech[speech]


ANY = There()  # where a space is asked without a folder
