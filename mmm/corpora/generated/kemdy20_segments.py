"""Who says what in the corpus that is generated in KEMDy20's layout: labels, turns, durations and
words of every segment.

What tells an emotion is as in mmm/corpora/generated/demo.py: the words tell the situation, the
voice the excitement, both alone are not enough, and in half of the turns the words are fillers, so
that only an earlier turn of the run tells the situation. More than eight of ten utterances are
neutral.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmm.corpora.generated.demo import RATE_HZ, SITUATION, VOICE, phrases_in
from mmm.corpora.sessions import parse_sessions, show_sessions

MAX_SESSIONS, MAX_SCRIPTS = 40, 6
# Of the real corpus: 13,462 segments in 40 sessions of 6 scripts.
CLASS_COUNTS = {
    "neutral": 11_120,
    "happy": 1_183,
    "surprise": 156,
    "angry": 144,
    "sad": 121,
    "disgust": 61,
    "fear": 43,
}
NUM_TIED = 634
NUM_SEGMENTS = sum(CLASS_COUNTS.values()) + NUM_TIED
_SHORTEST_S, _LONGEST_S, _GAMMA = 0.67, 35.2, (1.3, 4.05)  # 0.6 + Gamma(shape, scale) seconds
_MEAN_RUN = 3.0  # turns that an emotion other than neutral goes on for
# Chance that the words tell nothing: of a turn that goes on with the emotion before it, and of one
# that does not.
_FILLER_CHANCES, _MISLEADING_SHARE = (0.75, 0.2), 0.05
_MOST_FILLERS = 2  # on end, so that of three turns one has words that tell
_RATE_SD_HZ = 0.5  # syllables a second
_SYLLABLES_A_WORD = 2.8
_PITCH_HZ = {"F": (165.0, 230.0), "M": (95.0, 140.0)}
_SPEAKER_LOUDNESS_SD_DB = 2.0
_FILLERS = phrases_in(
    "응 그래; 그렇구나; 잠깐만; 글쎄; 그러니까; 맞아; 아 그래요; 그런데 말이야; 알겠어; 음 그렇지; "
    "어디 보자; 뭐 그래서; 그러게; 네 네; 그냥 그렇지; 그래서 말인데; TV나 볼까; 10분만 기다려"
)
# By situation.
_PHRASES = [
    phrases_in(
        "정원이 참 예쁘네; 저녁이 정말 맛있었어; 휴가가 시작됐어; 친구가 놀러 온대; "
        "선물이 도착했어; 시험에 합격했대; 콘서트가 멋졌어; 아침 햇살이 좋다; 아기가 웃고 있어; "
        "우리 팀이 이겼어; 새집이 마음에 들어; 여행 사진을 보자"
    ),
    phrases_in(
        "네가 망가뜨렸잖아; 그 사람이 거짓말했어; 부엌이 더러워; 또 속였다니까; 소리 좀 지르지 마; "
        "도둑놈이야; 청소를 한 번도 안 해; 내 돈을 훔쳐 갔어; 정말 뻔뻔하다; 약속을 또 어겼네; "
        "음식이 썩었잖아; 사기를 당했어"
    ),
    phrases_in(
        "할아버지가 입원하셨어; 밖에서 발소리가 나; 집을 잃게 됐어; 누가 따라오고 있어; "
        "장례식이 내일이야; 나 혼자 남았어; 불이 다 나갔어; 길을 잃어버렸어; 병원에서 전화가 왔어; "
        "집이 너무 어두워; 태풍이 다가온대; 누가 돌아가셨대"
    ),
]


@dataclass(frozen=True)
class Segment:
    """One utterance: its labels, what is spoken and how long, and which of the labels its voice and
    words tell.
    """

    identity: str
    emotions: tuple[str, ...]
    told: str
    seconds: float
    text: str
    voice: tuple[float, float]  # the speaker's pitch in Hz and loudness in dB
    rate_hz: float  # syllables a second


def num_segments(num_sessions: int, num_scripts: int) -> int:
    return round(NUM_SEGMENTS * num_sessions * num_scripts / (MAX_SESSIONS * MAX_SCRIPTS))


def default_splits(num_sessions: int) -> tuple[str, str]:
    """--dev-sessions and --test-sessions in the published proportions: 29-32 and 33-40 of 40."""
    num_test = max(1, round(num_sessions * 0.2))
    num_dev = max(1, round(num_sessions * 0.1))
    last_dev = num_sessions - num_test
    dev, test = range(last_dev - num_dev + 1, last_dev + 1), range(last_dev + 1, num_sessions + 1)
    return show_sessions(dev), show_sessions(test)


def plan(
    num_sessions: int, num_scripts: int, rng: np.random.Generator
) -> dict[tuple[int, int], list[Segment]]:
    """The segments of each (session, script), in order of conversation."""
    total = num_segments(num_sessions, num_scripts)
    counts, num_tied = _scaled(total)
    blocks = _deal_runs(_runs(rng, counts, num_tied), num_sessions)
    least = {session: sum(map(len, runs)) for session, runs in blocks.items()}
    sizes = _shares(rng, total, num_sessions, least)
    dialogues: dict[tuple[int, int], list[Segment]] = {}
    for session in range(1, num_sessions + 1):
        num_neutral = sizes[session - 1] - sum(map(len, blocks[session]))
        mixed = [*blocks[session], *([[("neutral",)]] * num_neutral)]
        turns = [turn for index in rng.permutation(len(mixed)) for turn in mixed[index]]
        ends = np.cumsum(_shares(rng, len(turns), num_scripts, {}))
        users = {"F": 2 * session - 1, "M": 2 * session}
        if session == min(12, num_sessions):
            users["F"] = 2 * num_sessions + 1  # as User081F in session 12 of 40
        voices = {
            sex: (float(rng.uniform(*pitch)), float(rng.normal(0, _SPEAKER_LOUDNESS_SD_DB)))
            for sex, pitch in _PITCH_HZ.items()
        }
        for script in range(1, num_scripts + 1):
            part = turns[ends[script - 2] if script > 1 else 0 : ends[script - 1]]
            dialogues[session, script] = _dialogue(rng, session, script, part, users, voices)
    assert sum(map(len, dialogues.values())) == total
    return dialogues


def _scaled(total: int) -> tuple[dict[str, int], int]:
    """Class counts and ties of a corpus of `total` segments; every class occurs."""
    counts = {
        name: max(1, round(count * total / NUM_SEGMENTS)) for name, count in CLASS_COUNTS.items()
    }
    num_tied = max(1, round(NUM_TIED * total / NUM_SEGMENTS))
    counts["neutral"] = 0
    counts["neutral"] = total - num_tied - sum(counts.values())
    return counts, num_tied


def _runs(
    rng: np.random.Generator, counts: dict[str, int], num_tied: int
) -> list[list[tuple[str, ...]]]:
    """Runs of emotions other than neutral, tied turns at their edges where a run fades into
    neutral.
    """
    runs: list[list[tuple[str, ...]]] = []
    for name, count in counts.items():
        while name != "neutral" and count:
            length = min(count, int(rng.geometric(1 / _MEAN_RUN)))
            runs.append([(name,)] * length)
            count -= length
    rng.shuffle(runs)
    for number in range(num_tied):
        run = runs[number % len(runs)]
        name = next(emotions[0] for emotions in run if len(emotions) == 1)
        pair = (name, "neutral") if rng.random() < 0.5 else ("neutral", name)
        run.insert(0 if rng.random() < 0.3 else len(run), pair)
    return runs


def _deal_runs(
    runs: list[list[tuple[str, ...]]], num_sessions: int
) -> dict[int, list[list[tuple[str, ...]]]]:
    """Runs by session: of each class, each split has its share and, from three runs on, one at
    least.
    """
    dev, test = (parse_sessions(sessions, "") for sessions in default_splits(num_sessions))
    splits = [
        [session for session in range(1, num_sessions + 1) if session not in {*dev, *test}],
        dev,
        test,
    ]
    found: dict[int, list[list[tuple[str, ...]]]]
    found = {session: [] for session in range(1, num_sessions + 1)}
    given: dict[str, list[int]] = defaultdict(lambda: [0] * len(splits))
    for run in runs:
        dealt = given[next(emotions[0] for emotions in run if len(emotions) == 1)]
        behind = [
            len(sessions) / num_sessions * (sum(dealt) + 1) - done
            for sessions, done in zip(splits, dealt, strict=True)
        ]
        split = sum(dealt) if sum(dealt) < len(splits) else int(np.argmax(behind))
        dealt[split] += 1
        session = min(splits[split], key=lambda one: sum(map(len, found[one])))
        found[session].append(run)
    return found


def _shares(rng: np.random.Generator, total: int, parts: int, least: dict[int, int]) -> list[int]:
    """`total` as uneven whole numbers, each at least 1 and with room for what `least` says of part
    1, 2, ...
    """
    weights = rng.uniform(0.75, 1.25, parts)
    room = [max(1, least.get(part, 0)) for part in range(1, parts + 1)]
    goals = np.maximum(weights / weights.sum() * total, room)
    sizes = [int(goal) for goal in goals]
    while (missing := total - sum(sizes)) != 0:
        if missing > 0:
            sizes[int(np.argmin(np.asarray(sizes) / weights))] += 1
        else:
            spare = np.asarray(sizes) - room
            sizes[int(np.argmax(spare))] -= 1
    return sizes


def _dialogue(
    rng: np.random.Generator,
    session: int,
    script: int,
    turns: Sequence[tuple[str, ...]],
    users: dict[str, int],
    voices: dict[str, tuple[float, float]],
) -> list[Segment]:
    segments: list[Segment] = []
    spoken: Counter[str] = Counter()
    sex = "FM"[int(rng.integers(2))]
    before: str | None = None
    num_fillers = _MOST_FILLERS  # a dialogue opens with words that tell
    for emotions in turns:
        told = emotions[int(rng.integers(len(emotions)))]
        spoken[sex] += 1
        seconds = float(np.clip(0.6 + rng.gamma(*_GAMMA), _SHORTEST_S, _LONGEST_S))
        rate_hz = max(2.0, float(rng.normal(RATE_HZ[VOICE[told]], _RATE_SD_HZ)))
        filler = num_fillers < _MOST_FILLERS and rng.random() < _FILLER_CHANCES[told != before]
        num_fillers = num_fillers + 1 if filler else 0
        identity = f"Sess{session:02}_script{script:02}_User{users[sex]:03}{sex}_{spoken[sex]:03}"
        text = _text(rng, told, round(seconds * rate_hz / _SYLLABLES_A_WORD), filler)
        segments.append(Segment(identity, emotions, told, seconds, text, voices[sex], rate_hz))
        before = told
        if rng.random() < 0.85:
            sex = "M" if sex == "F" else "F"
    return segments


def _text(rng: np.random.Generator, told: str, num_words: int, is_filler: bool) -> str:
    """About so many words, with KEMDy20's tags here and there."""
    misleading = rng.random() < _MISLEADING_SHARE
    situation = int(rng.integers(len(_PHRASES))) if misleading else SITUATION[told]
    phrases: list[str] = []
    while not phrases or sum(len(phrase.split()) for phrase in phrases) < num_words:
        from_situation = not is_filler and (not phrases or rng.random() < 0.5)
        chosen = _PHRASES[situation] if from_situation else _FILLERS
        phrases.append(chosen[int(rng.integers(len(chosen)))])
    text = " ".join(phrases) + (".", "?", "!", ".")[int(rng.integers(4))]
    tag = rng.random()
    if tag < 0.12:
        return f"b/ {text}"
    if tag < 0.18:
        return f"l/ 어/ {text}"
    if tag < 0.22:
        return f"c/ {text.replace(' ', '+ ', 1)}"
    if tag < 0.25:
        return f"{text.replace(' ', '* ', 1)} n/"
    return text
