"""What to train next: interrupted trials first, then what is queued, then what the searcher
suggests.
"""

import json
import traceback
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace

from mmm.training.config import Params, make_config
from mmm.training.own_system import as_loaded
from mmm.training.pack import pack_shape
from search.engine.budgets import broken_constraint
from search.engine.memory import Sparing, batch_parts
from search.engine.pack_sizes import PackSizes
from search.engine.verdicts import Verdicts
from search.ledger.data import classes_in
from search.ledger.events import Entry, Ledger
from search.ledger.files import SEALED
from search.ledger.records import OutOfMemory, Suggestion
from search.ledger.spec import SweepSpec
from search.ledger.trial import Trial
from search.messages import Order
from search.space.load import SpaceError, point_settings
from search.space.sampling import fixing
from search.space.settings import precision_of, sweep_precisions, trial_config
from search.suggest.searcher import Searcher
from spaces import Space


def waiting_points(spec: SweepSpec, space: Space, trials: Mapping[int, Trial]) -> dict[str, Params]:
    """What no trial was of the enqueued points and of the space's known good ones, by name."""
    taken = {trial.queued for trial in trials.values()}
    points = {
        **{f"enqueued {i}": point for i, point in enumerate(spec.enqueue)},
        **{f"known good {i}": point for i, point in enumerate(space.known_good)},
    }
    return {name: point for name, point in points.items() if name not in taken}


class Orders:
    """Makes orders for workers. Each is in the ledger before it is given."""

    def __init__(
        self,
        ledger: Ledger,
        spec: SweepSpec,
        space: Space,
        device: str,
        verdicts: Verdicts,
        searcher: Searcher,
        queued: Sequence[str],
        count_parameters: Callable[[Params], int] | None,
    ) -> None:
        """`queued`: names of the searcher's queue; `count_parameters`: None where there are no
        models.
        """
        self.ledger, self.spec, self.space, self.device = ledger, spec, space, device
        self.verdicts, self.searcher, self.queued = verdicts, searcher, list(queued)
        self.count_parameters = count_parameters
        self.trials = ledger.history.trials
        self.same_settings: dict[str, list[int]] = {}  # trials by their settings, the seed aside
        for number, trial in self.trials.items():
            self.same_settings.setdefault(_without_seed(trial.settings), []).append(number)
        self._num_of_shape = Counter(
            shape
            for trial in self.trials.values()
            if (shape := _shape_or_none(trial.settings)) is not None
        )
        self.unfinished = [n for n, trial in self.trials.items() if trial.state == "running"]
        self.packs = PackSizes(spec)
        self._queued_shapes: dict[str, Hashable] = {}
        self._fixed: dict[int, Params | None] = {}
        # Trials that are not packed any more: what killed a worker must not take others with it.
        self._alone = {
            trial.number
            for trial in self.trials.values()
            if trial.dead_workers or trial.memory_attempt
        }
        self.sparing = Sparing(self.trials)

    @property
    def has_work(self) -> bool:
        """Whether anything is left to train."""
        return bool(self.unfinished) or len(self.trials) < self.spec.trials

    def next(self, seat: Sequence[int] = ()) -> list[Order]:
        """What a worker is to train next beside the trials `seat` that it has: one trial, or
        several of the same shape.
        """
        orders: list[Order] = []
        if not seat:
            if (first := self.next_one()) is None:
                return []
            orders.append(first)
        trial = self.trials[seat[0] if seat else orders[0].number]
        if trial.number in self._alone:
            return orders
        num_left = self.spec.trials - len(self.trials) + len(self.unfinished)
        size = self.packs.size(trial.settings, num_left)
        if len(seat) + len(orders) < size:  # nearly never, and a shape takes longer than the rest
            shape = _shape(trial.settings)
        while len(seat) + len(orders) < size:
            may_suggest = self.packs.may_add(self._num_of_shape[shape])
            if (order := self.next_one(like=trial, may_suggest=may_suggest)) is None:
                break
            orders.append(order)
        if not seat:
            largest = self.packs.to_measure(trial.settings, self.spec.trials - len(self.trials))
            orders[0] = replace(orders[0], largest_pack=largest)
        return orders

    def next_one(self, like: Trial | None = None, *, may_suggest: bool = True) -> Order | None:
        """The next trial to train, an interrupted one or one with another fold to train first; None
        when there is none any more.

        `like`: only one that can train in a pack with that trial; `may_suggest`: a new one, too.
        """
        if not self.verdicts.may_order():
            return None
        chosen = self.sparing.may_begin(self.unfinished)
        if chosen is not None and (like is not None or not chosen):
            return None
        shape = None if like is None else _shape_of(like)
        for number in list(self.unfinished) if chosen is None else chosen:
            if like is not None and (
                number in self._alone or _shape_of(self.trials[number]) != shape
            ):
                continue
            self.unfinished.remove(number)
            # A killed driver may have recorded a report and not yet decided.
            if self.verdicts.stops_at_rung(number):
                continue
            if self.trials[number].has_trained_fold and self.verdicts.ends_fold(number):
                continue
            return self._order(self.trials[number])
        if chosen is not None:  # it had ended already
            return self.next_one(may_suggest=may_suggest)
        if not may_suggest or (like is not None and like.fold > 1):
            return None  # a new trial begins with the first fold
        while (number := len(self.trials)) < self.spec.trials and self.verdicts.may_order():
            if (wanted := self._wanted(like, shape)) is None:
                return None
            self._suggest(number, *wanted)
            trial = self.trials[number]
            # Answered from the ledger, or it could not be made: a failure, not the sweep's end.
            if trial.state != "running":
                continue
            if like is None or _shape_of(trial) == shape:
                return self._order(trial)
            self.unfinished.append(number)  # a parameter that mattered after all: another worker's
            return None
        return None

    def _wanted(self, like: Trial | None, shape: Hashable) -> tuple[int, Params | None] | None:
        """Which place of the queue is next, and what the trial has to have: what a companion of
        `like` has in common with it, or the system whose turn it is; None where there is none.
        """
        if like is None:
            return 0, None if self.queued else self.verdicts.fair_share.next(self.trials)
        for place, name in enumerate(self.queued):
            if (self._queued_shape(name, place), 1) == shape:
                return place, None
        if len(self.trials) + len(self.queued) >= self.spec.trials:
            return None  # what is queued has to have its turn
        if self.queued and any(like.settings.get(name) for name in ("speech", "text")):
            # Its companions would be on the same encoders, before others were ever tried.
            return None
        if not self.verdicts.fair_share.is_owed(like.params, self.trials):
            return None
        fixed = self._fixed_by(like)
        return None if fixed is None else (0, fixed)

    def _suggest(self, number: int, place: int, fixed: Params | None) -> None:
        """Write down the next trial; it ends at once where it cannot be trained or the ledger has
        its answer.
        """
        queued = self.queued.pop(place) if self.queued and fixed is None else None
        suggestion = Suggestion({}, {}, {}, queued)
        try:
            params, distributions, suggested = self.searcher.suggest(number, fixed, place)
            suggestion = Suggestion(params, distributions, suggested, queued)
            config = trial_config(suggested, self.spec)
            settings = config.params()
            suggestion = replace(suggestion, precision=self._precision(config.architecture))
            if self.count_parameters is not None:
                suggestion = replace(suggestion, num_parameters=self.count_parameters(suggested))
        except (ValueError, FileNotFoundError) as error:  # the latter: features that nobody made
            reason, trace = f"invalid settings: {error}", ""
            if isinstance(error, SpaceError):
                reason, trace = str(error), traceback.format_exc()
                suggestion = Suggestion(error.params, error.distributions, {}, queued)
            self.verdicts.end(number, "failed", reason, trace, before=[(number, suggestion)])
            return
        earlier = self.same_settings.setdefault(_without_seed(settings), [])
        copied = self._answer_of(earlier) if self.spec.repeats == "reuse" else None
        # An identical setting is worth a second run only with another seed.
        settings["seed"] = copied.settings["seed"] if copied else config.seed + len(earlier)
        earlier.append(number)
        self._num_of_shape[_shape(settings)] += 1
        suggestion = replace(suggestion, settings=settings)
        before: list[Entry] = [(number, suggestion)]
        if (broken := broken_constraint(self.spec, suggestion.num_parameters, [])) is not None:
            self.verdicts.end(number, "failed", broken, before=before, is_finding=True)
        elif copied is not None:
            before += [
                (number, replace(entry, copied_from=copied.number)) for entry in copied.all_epochs
            ]
            self.verdicts.end(
                number,
                "complete" if copied.state == "complete" else "pruned",
                f"same settings as trial {copied.number}: {copied.reason}",
                before=before,
            )
        else:
            self.ledger.append(*before)

    def _queued_shape(self, name: str, place: int) -> Hashable:
        """What a queued point can be packed with; None where it cannot be trained."""
        if name not in self._queued_shapes:
            point = self.searcher.queue[place]
            try:
                settings = self._settings(point_settings(self.space, point))
                self._queued_shapes[name] = _shape(settings)
            except ValueError:
                self._queued_shapes[name] = None
        return self._queued_shapes[name]

    def _fixed_by(self, trial: Trial) -> Params | None:
        """The parameters that a companion of a trial has in common with it; None where it would be
        the same trial.
        """
        if trial.number not in self._fixed:
            found = fixing(
                self.space, trial.params, lambda settings: _shape(self._settings(settings))
            )
            self._fixed = {trial.number: found}
        return self._fixed[trial.number]

    def _settings(self, suggested: Params) -> Params:
        return trial_config(suggested, self.spec).params()

    def _answer_of(self, earlier: Sequence[int]) -> Trial | None:
        """The first of these trials that was trained on the data as they are, and did not fail."""
        history = self.ledger.history
        for trial in (self.trials[number] for number in earlier):
            is_answer = trial.state in ("complete", "pruned") and trial.copied_from is None
            if is_answer and history.data_of(trial.number) == 1 + len(history.data_changes):
                return trial
        return None

    def _order(self, trial: Trial) -> Order:
        spec = self.spec
        key = spec.features_key(make_config(trial.settings))
        sealed = self.ledger.folder.resolve() / SEALED
        data = self.ledger.history.data[-1][1].manifest if self.ledger.history.data else None
        is_sealed = data is not None and sealed.is_file()
        return Order(
            sweep=str(self.ledger.folder.resolve()),
            number=trial.number,
            settings=as_loaded(trial.settings),
            manifest=spec.manifest,
            features=spec.features,
            features_url=spec.features_url,
            cache=spec.cache,
            metric=spec.metric,
            device=self.device,
            rungs=spec.rungs if trial.fold == 1 else (),
            precision=self._precision(trial.architecture),
            speech=key.speech,
            text=key.text,
            fold=trial.fold if spec.folds else None,
            sealed=str(sealed) if is_sealed else None,
            manifest_sha256=data.sha256 if data else "",
            classes=classes_in(data) if data else (),
            checkpoints=trial.checkpoints,
            batch_parts=batch_parts(trial.memory_attempt),
        )

    def _precision(self, architecture: str) -> str:
        precisions = self.spec.precisions or sweep_precisions(self.spec)
        return precision_of(precisions, architecture)

    def retry_with_less(self, number: int, note: OutOfMemory) -> None:
        """A trial that ran out of memory goes on from its checkpoint, as the note says."""
        self.retry_alone(number, note)
        self.sparing.add(number)

    def retry_alone(self, number: int, note: Entry) -> None:
        """A trial whose worker died or whose pack went wrong goes on from its checkpoint, without
        others.
        """
        self.ledger.append(note)
        self.unfinished.append(number)
        self._alone.add(number)


def _shape(settings: Params) -> Hashable:
    """Trials of equal shapes can train in one pack."""
    return pack_shape(make_config(settings))


def _shape_of(trial: Trial) -> Hashable:
    """A pack's trials have their training rows in common, too."""
    return _shape(trial.settings), trial.fold


def _shape_or_none(settings: Params) -> Hashable:
    """None of settings that could not be trained."""
    try:
        return _shape(settings)
    except ValueError:
        return None


def _without_seed(settings: Params) -> str:
    return json.dumps({**settings, "seed": None}, sort_keys=True)
