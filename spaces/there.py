"""What a space may ask of a features folder."""

from dataclasses import dataclass

Settings = dict[str, str | int | float | bool | None]  # what a space suggests, by name


@dataclass(frozen=True)
class There:
    """What a features folder holds; a space's function may take it as a second argument.

    By default both speech features, which is what spaces asked for before they could look.
    """

    audio_features: tuple[str, ...] = ("hidden_state", "extract_feature")
