"""The choices of features that the built-in spaces share: encoders where a folder holds several,
the layers and the pooling of speech, the context.
"""

from collections.abc import Sequence

from optuna import Trial

from spaces.there import Settings, There

_FEW = 5  # contexts up to here are a range of numbers


def suggest_encoders(trial: Trial, there: There) -> Settings:
    """`speech` and `text`, each where there is a choice."""
    settings: Settings = {}
    for name, encoders in (("speech", tuple(there.speech)), ("text", there.text)):
        if len(encoders) > 1:
            settings[name] = trial.suggest_categorical(name, list(encoders))
    return settings


def suggest_audio_feature(trial: Trial, there: There, chosen: Settings) -> str:
    """Of the speech encoder that was chosen."""
    speech = chosen.get("speech")
    features = there.features_of(None if speech is None else str(speech))
    if len(features) > 1:
        return str(trial.suggest_categorical("audio_feature", list(features)))
    return features[0]


def is_layered(there: There, chosen: Settings) -> bool:
    """Whether the layers of the speech encoder that was chosen can be mixed."""
    speech = chosen.get("speech") or next(iter(there.speech), None)
    return speech in there.layered


def suggest_context(trial: Trial, there: There, most: int = _FEW) -> int:
    """1 to `most`, or where longer ones were encoded one of those that are there."""
    if there.contexts and max(there.contexts) > _FEW:
        return int(trial.suggest_categorical("context", list(there.contexts)))
    return trial.suggest_int("context", 1, most)


def on_each(points: Sequence[Settings], there: There) -> list[Settings]:
    """Known good points on the encoders that are there: each in turn, and where encoders are more
    than points, the points once more until every encoder has had one.
    """
    choices = {
        name: list(encoders)
        for name, encoders in (("speech", tuple(there.speech)), ("text", there.text))
        if len(encoders) > 1
    }
    number = max([len(points), *map(len, choices.values())])
    found: list[Settings] = []
    for place in range(number):
        chosen: Settings = {name: names[place % len(names)] for name, names in choices.items()}
        found.append({**points[place % len(points)], **chosen})
    return found
