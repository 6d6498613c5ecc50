"""What MLflow's page of a sweep says first, in paragraphs of Markdown."""

from collections.abc import Collection, Mapping, Sequence

from mmm.metrics import value_of
from search.ledger.records import Baseline
from search.tracking.runs import Run

_STATES = ("complete", "pruned", "failed", "interrupted")


def baseline_note(found: Baseline, metric: str) -> str:
    settings, value = found.settings, value_of(found.metrics, metric)
    return (
        f"Linear baseline (logistic regression, K = {settings['context']}, C ="
        f" {settings['c']:g}, class weight {settings['class_weight']}): {metric} {value:.4f}."
    )


def session_note(
    why: str,
    trials: Sequence[Run],
    best: Sequence[Run],
    metric: str,
    fixed: Mapping[str, Collection[str]],
) -> list[str]:
    """What a session that ended leaves: its trials, the best of each architecture, and the settings
    that are the same in all trials of one, with their values as Markdown.
    """
    states = [run.state for run in trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in _STATES if state in states)
    found = [f"{len(states)} trials: {counts or 'none'}. Session: {why}."]
    rows = [
        f"| {run.name} | {run.best[0]:.4f} | {run.best[1]} | {run.state} |"
        for run in best
        if run.best
    ]
    if rows:
        head = f"| best of each architecture | {metric} | epoch | state |"
        found.append("\n".join([head, "| --- | ---: | ---: | --- |", *rows]))
    if fixed:
        named = ", ".join(f"{name} {' or '.join(sorted(values))}" for name, values in fixed.items())
        found.append(f"The same in all trials of an architecture: {named}.")
    return found
