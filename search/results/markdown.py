"""A sweep as Markdown, for the appendix of a paper: what the responsible NLP checklist of ACL asks
for (C1 to C4: parameters and compute, how settings were searched for and which were best, what
scores are of, which packages), in its order.
"""

import os
import platform
import re
import socket
from collections.abc import Iterable, Iterator, Sequence

from mmm.device import processor_here
from mmm.markdown import as_code, as_code_block, as_markdown
from mmm.metrics import value_of
from search.ledger.durations import duration
from search.ledger.history import History
from search.results.baseline import baseline_of, words
from search.results.findings import Findings
from search.results.optuna_study import searched_ranges
from search.results.page.forest import Confirmed
from search.results.page.paths import without_folders
from search.results.page.tables import SYSTEM_COLUMNS, commands, data_facts, system_rows, versions
from search.results.page.winner import CLASS_COLUMNS, class_rows
from search.results.summary import Summary, summary


def appendix(history: History, confirmed: Confirmed | None, beyond: Findings) -> str:
    """The text of a file; names are shown as they are, whatever is in them."""
    return "\n".join(_lines(history, summary(history, confirmed), beyond)) + "\n"


def _lines(history: History, found: Summary, beyond: Findings) -> Iterator[str]:
    yield f"# Hyperparameter search: {as_markdown(found.sweep)}"
    yield ""
    yield as_markdown(" ".join(found.verdict))
    yield from _section("Search space")
    ranges = [(one.name, one.kind, one.words, one.num_trials) for one in searched_ranges(history)]
    yield from _table(("parameter", "kind", "searched over", "trials that have it"), ranges)
    yield from _section("Search")
    yield from _list(_search(history, found))
    yield from _section("Best settings")
    yield from _best(history, found)
    yield from _section("Scores")
    yield from _scores(history, found)
    yield from _winner(beyond)
    yield from _section("Systems")
    yield from _table(SYSTEM_COLUMNS, system_rows(history))
    yield from _systems(beyond)
    yield from _decided(beyond)
    yield from _section("Compute")
    yield from _list(_compute(history, found))
    yield from _section("Data and commands")
    yield from _list(f"{as_markdown(name)}: {as_code(text)}" for name, text in data_facts(history))
    yield ""
    yield as_code_block("\n".join(commands(history)))
    yield ""
    yield as_markdown(
        f"Written with {', '.join(f'{name} {one}' for name, one in versions().items())}."
    )


def _section(title: str) -> Iterator[str]:
    yield from ("", f"## {title}", "")


def _list(sentences: Iterable[str]) -> Iterator[str]:
    return (f"* {sentence}" for sentence in sentences)


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield f"|{' --- |' * len(header)}"
    for row in rows:
        yield f"| {' | '.join(map(_cell, row))} |"


def _cell(cell: object) -> str:
    # A number at the start of a line could begin a list; in a table it cannot.
    text = str(cell)
    return text if re.match(r"[\d.,]+(?: to [\d.,]+)?$", text) else as_markdown(text)


def _search(history: History, found: Summary) -> Iterator[str]:
    spec = history.spec
    states = ", ".join(f"{number} {state}" for state, number in found.trials.items() if number)
    yield f"{len(history.trials)} trials ({states or 'none yet'})."
    given = sum(trial.queued is not None for trial in history.trials.values())
    yield (
        f"Settings: {given} given beforehand (known good or enqueued points), all others suggested"
        " by a Gaussian process over learning curves."
    )
    if spec.rungs:
        rungs = ", ".join(map(str, spec.rungs))
        yield (
            f"Early stopping: asynchronous successive halving (ASHA) at epochs {rungs}, where one"
            f" in {spec.factor} goes on; at most {spec.epochs} epochs."
        )
    else:
        yield f"No early stopping; {spec.epochs} epochs."
    yield (
        f"Method of choosing: the best {as_markdown(spec.score_name)} over trials and epochs; the"
        " test split was not read."
    )
    seeds = sorted({int(trial.settings.get("seed") or 0) for trial in history.trials.values()})
    of_trials = (
        f"{len(seeds)} seeds" if len(seeds) > 8 else ", ".join(map(str, seeds)) or "none yet"
    )
    yield f"Seed of the sampler: {spec.seed}; seeds of the trials: {of_trials}."
    for sentence in found.changes:
        yield as_markdown(sentence)


def _best(history: History, found: Summary) -> Iterator[str]:
    if found.best is None:
        yield "No trial has a score."
        return
    searched = history.trials[found.best.trial].params
    yield (
        f"Trial {found.best.trial}, {as_markdown(found.best.architecture)}, at epoch"
        f" {found.best.epoch}; searched ones first."
    )
    yield ""
    settings = {**searched, **found.best.settings}
    yield from _table(
        ("setting", "value", "searched"),
        (
            (name, _shown(value), "yes" if name in searched else "")
            for name, value in settings.items()
        ),
    )


def _shown(value: object) -> str:
    return f"{value:.5g}" if isinstance(value, float) else without_folders(str(value))


def _scores(history: History, found: Summary) -> Iterator[str]:
    name = as_markdown(found.score_name)
    if found.best is not None:
        yield f"* Best {name}: {found.best.score:.4f}."
    if (baseline := baseline_of(history)) is not None:
        score = value_of(baseline.metrics, found.metric)
        yield (
            f"* Linear baseline (logistic regression, {as_markdown(words(baseline))}): {score:.4f}."
        )
    if found.expected_best:
        yield (
            "* Expected best score after so many trials of this sweep (Dodge et al. 2019, unbiased:"
            " arXiv 2004.13705):"
        )
        yield ""
        yield from _table(
            ("trials", f"expected {name}"),
            ((one.trials, f"{one.score:.4f}") for one in found.expected_best),
        )
    if (confirmed := found.confirmed) is not None:
        yield ""
        yield as_markdown(f"With fresh seeds: {' '.join(confirmed.sentences)}")
        yield ""
        everyone = [*confirmed.finalists, *([confirmed.baseline] if confirmed.baseline else [])]
        yield from _table(
            ("finalist", "runs", "mean", f"{100 * confirmed.level:g} % interval", "verdict"),
            (
                (
                    one.label,
                    len(one.scores),
                    f"{one.mean:.4f}",
                    "" if one.low is None else f"{one.low:.4f} to {one.high:.4f}",
                    one.verdict,
                )
                for one in everyone
            ),
        )


def _winner(beyond: Findings) -> Iterator[str]:
    """Where the winner errs, on the rows that it was chosen on."""
    if not beyond.classes and not beyond.left_out:
        return
    yield from _section("Errors of the winner")
    if beyond.left_out:
        yield as_markdown(f"The winner's answers were not looked at: {beyond.left_out}")
        return
    yield from _table(CLASS_COLUMNS, class_rows(beyond.classes))
    if (own := beyond.calibration) is not None:
        yield ""
        parts = [f"Expected calibration error {own.error:.3f}"]
        if own.temperature is not None:
            parts.append(f"best temperature {own.temperature:.2f}")
        if own.error_after is not None:
            parts.append(
                f"{own.error_after:.3f} is left by temperatures fitted on the other half of the"
                " dialogues"
            )
        yield f"{'; '.join(parts)}."


def _systems(beyond: Findings) -> Iterator[str]:
    if not beyond.systems:
        return
    yield from ("", "Expected best final score of a system after so many of its trials:", "")
    yield from _table(
        ("system", "trials", "expected", "95 % band"),
        (
            (one.system, one.trials, f"{one.score:.4f}", f"{one.low:.4f} to {one.high:.4f}")
            for one in beyond.systems
        ),
    )


def _decided(beyond: Findings) -> Iterator[str]:
    if not beyond.importances:
        return
    yield from _section("What decided the score")
    yield from _table(
        ("parameter", "trials", "fANOVA", "PED-ANOVA"),
        (
            (one.name, one.num_trials, f"{one.fanova:.2f}", f"{one.ped_anova:.2f}")
            for one in beyond.importances
        ),
    )
    if (path := beyond.ablation) is not None:
        yield ""
        yield (
            f"From trial {path.first} (expected: {path.expected:.4f}) to the winner, one setting"
            " after the other; expected by the sweep's model, not trained:"
        )
        yield ""
        yield from _table(
            ("setting", "from", "to", "gain", "standard deviation"),
            (
                (one.name, one.first, one.then, f"{one.gain:+.4f}", f"{one.deviation:.4f}")
                for one in path.steps
            ),
        )


def _compute(history: History, found: Summary) -> Iterator[str]:
    spec = history.spec
    yield f"Training, all workers together: {duration(found.trained_s)} ({found.trained_s:,.0f} s)."
    yield f"Sessions, as the clock has it: {duration(found.used_s)}."
    gpus = f", {spec.gpus_per_trial:g} GPU a trial" if spec.gpus_per_trial else ", no GPU"
    yield f"Workers: {spec.workers}{gpus}."
    sizes = [trial.num_parameters for trial in history.trials.values() if trial.num_parameters]
    if sizes:
        yield f"Parameters of the trained models: {min(sizes):,} to {max(sizes):,}."
    if found.best is not None and found.best.num_parameters:
        yield f"Parameters of the best one: {found.best.num_parameters:,}."
    yield f"Machine: {as_markdown(_machine(history))}."


def _machine(history: History) -> str:
    """What this machine is, where the last session ran on it: the ledger has no more than names."""
    hosts = [session.host for _, session in history.sessions if session.host]
    if not hosts or hosts[-1] != socket.gethostname():
        return "not the one that wrote this; fill it in"
    return f"{processor_here()}, {os.cpu_count()} cores, {platform.system()}"
