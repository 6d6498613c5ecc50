"""Whether a trial goes on or ends, and whether the sweep does. Every verdict is in the ledger
before it is given.
"""

import contextlib
from collections.abc import Sequence

from search.engine.asha import Decision, decide, rivals
from search.engine.budgets import Budget, budgets, seconds_left, used_up
from search.engine.failures import FailuresInARow
from search.engine.fold_race import decide_after_fold
from search.engine.standings import Keepers, Standings
from search.engine.stopwatch import Stopwatch
from search.ledger.events import Entry, Ledger
from search.ledger.files import drop_weights
from search.ledger.records import End, EndState, FoldDecision, RungDecision
from search.ledger.spec import SweepSpec
from search.suggest.fair_share import FairShare
from search.suggest.outlook import Outlook
from search.suggest.searcher import Searcher

# Ended trials, after which the further gain is told anew: at fixed ones, so that a sweep that was
# killed ends where it would have ended.
_LOOKS_EVERY = 5
INTERRUPTED = "interrupted"  # why a session ended that somebody stopped


class Verdicts:
    """Of one session."""

    def __init__(
        self,
        ledger: Ledger,
        spec: SweepSpec,
        searcher: Searcher,
        stopwatch: Stopwatch,
        fair_share: FairShare,
    ) -> None:
        self.ledger, self.spec, self.searcher, self.stopwatch = ledger, spec, searcher, stopwatch
        self.fair_share = fair_share
        self.trials = ledger.history.trials
        self.standings = Standings(self.trials, spec.rungs, spec.metric)
        self._keepers = Keepers(self.trials.values(), spec.metric, spec.keep)
        self.budgets_before: list[Budget] = []  # as the session found them
        self.used_up: Budget | None = None
        self.is_interrupted = False
        self.broken_off: str | None = None  # why the sweep ends though nobody wanted it to
        self._outlook: tuple[int, Outlook | None] = -1, None  # after so many ended trials
        self._failures = FailuresInARow(spec.max_equal_failures)

    def interrupt(self) -> None:
        """Order nothing more; trials that run are left to another session."""
        self.is_interrupted = True

    def break_off(self, why: str) -> None:
        """As `interrupt`, because going on would make it worse; the first reason counts, and that
        somebody asked for the end is one.
        """
        if not self.is_interrupted:
            self.broken_off = self.broken_off or why

    @property
    def is_stopping(self) -> bool:
        """Whether trials that run are to stop where they are, for another session."""
        return self.used_up is not None or self.is_interrupted or self.broken_off is not None

    def may_order(self) -> bool:
        """Whether anything more is to be trained."""
        return not self.check_budgets() and not self.is_stopping

    def budgets(self) -> list[Budget]:
        """Every budget of the sweep and how much of it is used, over all sessions."""
        history = self.ledger.history
        is_due = self.spec.until_noise and history.num_ended % _LOOKS_EVERY == 0
        if is_due and self._outlook[0] != history.num_ended:
            may_end = self.fair_share.next(self.trials) is None
            self._outlook = history.num_ended, self.searcher.outlook() if may_end else None
        return budgets(self.spec, history, self.stopwatch.used_s(), self._outlook[1])

    def check_budgets(self) -> bool:
        """Whether a budget is used up, or was before: trials that run stop after their slices."""
        if self.used_up is None:
            self.used_up = used_up(self.budgets())
        return self.used_up is not None

    def seconds_left(self) -> float | None:
        """Until the first budget is used up, by this session's rate so far; None where nothing
        tells yet.
        """
        began = self.stopwatch.first_step
        if began is None:
            return None
        return seconds_left(self.budgets_before, self.budgets(), self.stopwatch.clock() - began)

    def stops_at_rung(self, number: int) -> bool:
        """Decide on a trial that stands at a rung and was not decided on there; True when it
        ends.
        """
        trial = self.trials[number]
        epoch = trial.epoch
        if epoch not in self.spec.rungs or trial.decided >= epoch:
            return False
        expected = self.searcher.expected(rivals(self.standings.reached(epoch), number))
        decision = decide(
            *(self.trials, number, epoch, self.spec.metric, self.spec.factor, expected),
            leader=self.standings.leader(epoch),
        )
        record = RungDecision(epoch, "stop" if decision.stop else "continue", decision.reason)
        if decision.stop:
            self.end(number, "pruned", decision.reason, before=[(number, record)])
        else:
            self.ledger.append((number, record))
        return decision.stop

    def ends_fold(self, number: int) -> bool:
        """Decide on a trial that has trained its fold to the end, or the only one it has; True when
        it ends.

        One that goes on is to be ordered again, with the next fold.
        """
        trial = self.trials[number]
        if trial.fold == trial.num_folds:
            of_folds = f" of {trial.num_folds} folds" if trial.num_folds > 1 else ""
            self.end(number, "complete", f"all {trial.epoch} epochs{of_folds}")
            return True
        decision = Decision(False, f"fold {trial.fold} of {trial.num_folds}: all are wanted")
        if self.spec.races_folds:
            decision = decide_after_fold(self.trials, number, self.spec.metric)
        record = FoldDecision(trial.fold, "stop" if decision.stop else "continue", decision.reason)
        if decision.stop:
            self.end(number, "pruned", decision.reason, before=[(number, record)])
        else:
            self.ledger.append((number, record))
        return decision.stop

    def end(
        self,
        number: int,
        state: EndState,
        reason: str,
        trace: str = "",
        before: Sequence[Entry] = (),
        *,
        is_lost: bool = False,
        is_finding: bool = False,
    ) -> None:
        """Write down that a trial has ended, `before` in the same transaction.

        Of a failed one: `is_lost`, because its workers died; `is_finding`, because that is what its
        settings are like.
        """
        self.ledger.append(*before, (number, End(state, reason, trace, is_lost)))
        self.searcher.tell(self.trials[number])
        if (why := self._failures.add(self.trials[number], is_finding)) is not None:
            self.break_off(why)
        # The disk must not fill with what nobody exports.
        if (other := self._keepers.add(self.trials[number])) is not None:
            with contextlib.suppress(OSError):  # a worker may just be writing it
                drop_weights(self.ledger.folder, other)
