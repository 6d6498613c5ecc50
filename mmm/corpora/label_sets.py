"""What known corpora call their labels: `--labels-of NAME`, and the readers of those corpora.

Each maps what the corpus has, in small letters, to the manifest's name; an empty name is a turn
without a label. Emotions of the published seven have their names, others those of the corpus.
"""

# Names that mean one of the seven, in any corpus.
EMOTION_NAMES = {
    "anger": "angry",
    "joy": "happy",
    "happiness": "happy",
    "sadness": "sad",
    "fearful": "fear",
    "surprised": "surprise",
    "disgusted": "disgust",
    "disqust": "disgust",
}
MISSPELT = ("disqust",)
_SEVEN = {
    name: name for name in ("neutral", "happy", "surprise", "angry", "sad", "disgust", "fear")
}
NAMED = {**_SEVEN, **EMOTION_NAMES}  # whose labels are names of the seven

# Busso et al. 2008; exc with hap, as is usual. xxx: the raters had no majority.
IEMOCAP = {
    "neu": "neutral",
    "hap": "happy",
    "exc": "happy",
    "sad": "sad",
    "ang": "angry",
    "fea": "fear",
    "sur": "surprise",
    "dis": "disgust",
    "fru": "",
    "oth": "",
    "xxx": "",
}
_NO_IEMOCAP_LABEL = dict.fromkeys(IEMOCAP, "")
# Four classes, as most speech work has them: the happy with the excited.
IEMOCAP_4 = {
    **_NO_IEMOCAP_LABEL,
    **{code: IEMOCAP[code] for code in ("neu", "hap", "exc", "sad", "ang")},
}
# Six classes, as work on conversations has them (DialogueRNN, Majumder et al. 2019).
IEMOCAP_6 = {
    **_NO_IEMOCAP_LABEL,
    "neu": "neutral",
    "hap": "happy",
    "sad": "sad",
    "ang": "angry",
    "exc": "excited",
    "fru": "frustrated",
}
AI_HUB = {
    "기쁨": "happy",
    "분노": "angry",
    "슬픔": "sad",
    "불안": "fear",
    "당황": "surprise",
    "상처": "sad",
    "중립": "neutral",
    "혐오": "disgust",
}
_RAVDESS_ORDER = ("neutral", "calm", "happy", "sad", "angry", "fear", "disgust", "surprise")
RAVDESS = {f"{number:02}": name for number, name in enumerate(_RAVDESS_ORDER, start=1)}
CREMA_D = {
    "ang": "angry",
    "dis": "disgust",
    "fea": "fear",
    "hap": "happy",
    "neu": "neutral",
    "sad": "sad",
}
# Burkhardt et al. 2005: the first letter of the German name; A is Angst, L is Langeweile.
EMODB = {
    "w": "angry",
    "l": "boredom",
    "e": "disgust",
    "a": "fear",
    "f": "happy",
    "t": "sad",
    "n": "neutral",
}
ESD = {
    "angry": "angry",
    "happy": "happy",
    "neutral": "neutral",
    "sad": "sad",
    "surprise": "surprise",
    "生气": "angry",
    "快乐": "happy",
    "中立": "neutral",
    "伤心": "sad",
    "惊喜": "surprise",
}
LABEL_SETS: dict[str, dict[str, str]] = {
    "meld": NAMED,
    "meld-sentiment": {name: name for name in ("negative", "neutral", "positive")},
    "iemocap": IEMOCAP,
    "iemocap-4": IEMOCAP_4,
    "iemocap-6": IEMOCAP_6,
    "crema-d": CREMA_D,
    "ravdess": {
        **NAMED,
        **RAVDESS,
        **{str(number): name for number, name in enumerate(_RAVDESS_ORDER, start=1)},
        "calm": "calm",
    },
    # Pichora-Fuller and Dupuis 2020; ps is pleasant surprise.
    "tess": {
        **NAMED,
        "ps": "surprise",
        "pleasant_surprise": "surprise",
        "pleasant_surprised": "surprise",
        "pleasant surprise": "surprise",
    },
    "esd": {**NAMED, **ESD},
    "emodb": {**NAMED, **EMODB, "boredom": "boredom", "anxiety": "fear"},
    # Haq and Jackson 2009.
    "savee": {
        "a": "angry",
        "d": "disgust",
        "f": "fear",
        "h": "happy",
        "n": "neutral",
        "sa": "sad",
        "su": "surprise",
    },
    # Zadeh et al. 2018: six emotions that may be there together, and sentiment from -3 to 3.
    "mosei": NAMED,
    "mosei-sentiment": {name: name for name in ("negative", "neutral", "positive")},
    "ai-hub": AI_HUB,
}
# Whose labels may be numbers of this range: below 0 is negative, above 0 positive.
SENTIMENT_RANGE = {"mosei-sentiment": 3.0}
