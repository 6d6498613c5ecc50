"""The verdict on a sweep in plain words, for page, terminal and appendix."""

from collections.abc import Iterator

from search.ledger.history import History
from search.results.baseline import verdict
from search.results.page.forest import Confirmed
from search.results.page.paths import without_folders
from search.results.page.tables import failures, some


def verdict_words(history: History, confirmed: Confirmed | None) -> Iterator[str]:
    """Sentences, the most important first."""
    spec, best = history.spec, history.best
    if best is None:
        yield from _without_winner(history)
        return
    score, number = best
    trial = history.trials[number]
    if (sentence := verdict(history)) is not None:
        yield f"{sentence[0].upper()}{sentence[1:]}."
    else:
        yield (
            f"The winner is trial {number}, {trial.architecture}: {spec.score_name} {score:.4f};"
            " there is no baseline to hold it against."
        )
    found = trial.best(spec.metric)
    num_scored = sum(one.best(spec.metric) is not None for one in history.trials.values())
    where = "these folds" if spec.folds else "this split"
    at = f" at epoch {found[0]}" if found else ""
    if num_scored > 1:
        yield (
            f"Its score{at} is the best of {num_scored} trials chosen on {where}, so it promises"
            " more than new data will keep."
        )
    if confirmed is None:
        yield "Whether it holds with fresh seeds is not known: it was not confirmed."
        return
    yield f"Confirmed with fresh seeds: {' '.join(confirmed.sentences)}"
    if confirmed.trial != number:
        yield (
            f"Trial {number}, the winner of the search, does not lead there: what to take is the"
            " leader of the confirmation."
        )


def _without_winner(history: History) -> Iterator[str]:
    trials = history.trials.values()
    if not trials:
        yield "No trial has begun yet."
    elif all(trial.state == "failed" for trial in trials):
        cause = failures(history)[0]
        yield (
            f"Every trial failed, {len(cause.trials)} of {len(trials)} for this reason (trials"
            f" {some(cause.trials)}): {cause.reason}"
        )
    elif history.data_changes:
        yield "No trial has a score on the data as they are now."
    else:
        yield "No trial has a score yet."


def changes(history: History) -> list[str]:
    """What was changed while the sweep went on."""
    return [without_folders(one) for one in (*history.data_account(), *history.space_account())]
