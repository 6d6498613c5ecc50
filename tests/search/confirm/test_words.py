"""What a confirmation says, of figures that are made up."""

from dataclasses import replace

import pytest

from search.confirm.opening import Opening, TestScores
from search.confirm.page import page_of
from search.confirm.result import Compared, Confirmation, Confirmed, Curse
from search.confirm.verdicts import Verdict
from search.confirm.words import cells, explained, sentences, short


def _one(name: str, mean: float, trial: int | None = 1) -> Confirmed:
    return Confirmed(
        name,
        "gated_fusion",
        trial,
        mean + 0.02,
        20,
        False,
        (2, 3),
        (mean - 0.01, mean + 0.01),
        mean,
        0.0141,
        mean - 0.05,
        mean + 0.05,
    )


def _pair(first: str, second: str, verdict: Verdict, seeds: int | None = None) -> Compared:
    return Compared(first, second, -0.05, -0.09, -0.01, 0.01, 0.02, 0.1, verdict, seeds)


TIE = Confirmation(
    "first",
    "first-confirm",
    "macro_f1",
    0.95,
    "40 dialogues x 82 audio files",
    ("4 speakers, fewer than 10: others may differ",),
    289,
    None,
    (_one("trial 7", 0.6), _one("trial 3", 0.55)),
    _one("linear baseline", 0.5, None),
    _one("majority class", 0.1, None),
    (_pair("trial 3", "trial 7", "tie", 12),),
    (_pair("trial 7", "linear baseline", "tie"), _pair("trial 3", "linear baseline", "tie")),
    (_pair("trial 7", "majority class", "better"), _pair("trial 3", "majority class", "tie")),
    Curse("trial 7", 0.62, 0.6, 0.01, 40, 0.0216),
    None,
    (),
)


def _told(found: Confirmation) -> str:
    return " ".join(sentences(found))


def test_a_tie_is_called_one_and_nothing_is_called_better() -> None:
    told = _told(TIE)
    assert told.startswith("Tie: trial 7, gated_fusion has the highest mean, macro_f1 0.6000")
    assert "About 12 seeds of each would decide it against trial 3" in told
    assert (
        "Nothing beats the baselines, for nothing beats the linear baseline (0.5000); the majority"
        " class (0.1000) is beaten by trial 7."
    ) in told
    assert "Limits: 4 speakers" in told
    assert "better" not in (told + explained(TIE)).lower()


def test_where_no_baseline_is_beaten_all_are_named_at_once() -> None:
    pairs = tuple(replace(pair, verdict="tie") for pair in TIE.to_majority)
    told = _told(replace(TIE, to_majority=pairs))
    assert (
        "Nothing beats the baselines: the majority class (0.1000) or the linear baseline (0.5000)."
    ) in told


def test_where_each_baseline_is_beaten_by_another_that_is_said() -> None:
    worse, better = (
        _pair(f"trial {n}", "linear baseline", v) for n, v in ((7, "tie"), (3, "better"))
    )
    told = _told(replace(TIE, to_baseline=(worse, better)))
    assert "No finalist beats both baselines: the majority class (0.1000) is beaten by" in told


def test_test_scores_are_told_with_who_opened_it_and_how_often() -> None:
    scores = TestScores("trial 7", (0, 2), (0.5, 0.52), 0.51, 0.0141)
    opening = Opening("2026-11-27T09:00:00+00:00", "ann@box", 300, (scores,), 3)
    found = replace(TIE, opening=opening)
    assert (
        "On the test split (300 utterances, opened on 2026-11-27 by ann@box; on record it was"
        " opened 3 times, each bundle counted): trial 7 0.5100 (standard deviation 0.0141)."
    ) in _told(found)
    assert [row[-1] for row in cells(found)] == [".510", "", "", ""]


def test_a_leader_that_beats_all_others_is_better() -> None:
    found = replace(
        TIE,
        to_leader=(_pair("trial 3", "trial 7", "worse"),),
        to_baseline=(
            _pair("trial 7", "linear baseline", "better"),
            _pair("trial 3", "linear baseline", "tie"),
        ),
    )
    told = _told(found)
    assert told.startswith("Better: trial 7, gated_fusion, macro_f1 0.6000")
    assert (
        "The baselines, the majority class (0.1000) and the linear baseline (0.5000), are beaten by"
        " trial 7, and not by the others."
    ) in told


def test_too_few_groups_are_told_first_and_no_verdict_is_given() -> None:
    nothing = Compared(
        "trial 3", "trial 7", -0.05, None, None, None, None, None, "cannot be told", None
    )
    bare = tuple(replace(one, low=None, high=None) for one in TIE.finalists)
    found = replace(
        TIE,
        units="",
        finalists=bare,
        to_leader=(nothing,),
        to_baseline=(replace(nothing, first="trial 7"), nothing),
    )
    told = _told(found)
    assert told.startswith("Cannot be told: trial 7")
    assert "better" not in told.lower()
    assert "beat" not in told
    assert cells(found)[1][-1] == "cannot be told"
    assert "Cannot be told" in page_of(found, "run", "confirm")


def test_the_winners_curse_stands_beside_what_luck_alone_would_do() -> None:
    told = _told(TIE)
    assert "The search gave trial 7 0.6200, 0.0200 above its mean over fresh seeds" in told
    assert "the best of 40 trials" in told
    assert "0.0216 above" in told


@pytest.mark.parametrize(
    ("value", "signed", "text"),
    [(0.5921, False, ".592"), (-0.0214, True, "-.021"), (0.02, True, "+.020"), (1, False, "1.000")],
)
def test_scores_are_short(value: float, signed: bool, text: str) -> None:
    assert short(value, signed) == text
    assert short(None) == ""


def test_names_are_text_on_the_page() -> None:
    found = replace(TIE, sweep="<b>first", failed=("<i>trial 3 failed",))
    page = page_of(found, "run <x>", "confirm")
    assert "<b>first" not in page
    assert "&lt;i&gt;trial 3 failed" in page
