"""Training goes on while what was trained is written, told and decided on, wherever that cannot
matter to it.
"""

import threading
from collections.abc import Sequence

from search.messages import Cut, Order, Report
from search.worker.slices import Slices

_LONGEST_STOP_S = 1.0


class Ahead:
    """Trains `Slices` in a thread of its own.

    At a rung, at an end and after a failure it waits for the driver, so that nothing is trained
    that a decision could have made needless. Between these a slice is followed by the next one at
    once: the checkpoint of the last is written and the driver told of it meanwhile. A driver that
    is slow gets several slices in one report.
    """

    def __init__(self, orders: Sequence[Order]) -> None:
        self._slices = Slices(orders)
        self._change = threading.Condition()
        self._cuts: dict[int, Cut] = {}  # not told yet
        self._has_cuts = self._may_train = self._is_training = self._is_held = self._is_ended = (
            False
        )
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._train, name="training", daemon=True)
        self._thread.start()

    def next(self) -> list[Report]:
        """Reports of what was trained since the last ones, once that is a slice. Raises what ended
        the thread.
        """
        with self._change:
            if not self._has_cuts:
                self._may_train = True  # whatever was told before is decided on
                self._change.notify_all()
            self._change.wait_for(lambda: self._has_cuts or self._fault is not None)
            if self._fault is not None:
                raise self._fault
            cuts, self._cuts, self._has_cuts = list(self._cuts.values()), {}, False
        return self._slices.reports(cuts)

    def change(self, ended: Sequence[int], orders: Sequence[Order]) -> None:
        """The trials `ended` are over; train these too from now on."""
        with self._change:
            self._is_held = True  # the slice that is being trained is the last one for now
            self._change.wait_for(lambda: not self._is_training)
            try:
                self._slices.leave(ended)
                for number in ended:
                    self._cuts.pop(number, None)
                if orders:
                    self._slices.join(orders)
                if self._has_cuts:  # the report after this is to have all of them in it
                    self._cuts |= {order.number: Cut(order.number, 0) for order in orders}
            finally:
                self._is_held = False
                self._change.notify_all()

    def stop(self) -> None:
        """Train no more; a slice that is being trained is not waited for."""
        with self._change:
            self._is_ended = True
            self._change.notify_all()
        self._thread.join(_LONGEST_STOP_S)

    def _train(self) -> None:
        try:
            while True:
                with self._change:
                    self._change.wait_for(
                        lambda: self._is_ended or (self._may_train and not self._is_held)
                    )
                    if self._is_ended:
                        return
                    self._is_training = True
                cuts = self._slices.train()
                with self._change:
                    for cut in cuts:
                        earlier = self._cuts.get(cut.number)
                        self._cuts[cut.number] = cut if earlier is None else cut.after(earlier)
                    self._has_cuts, self._is_training = True, False
                    self._may_train = self._slices.may_go_on(cuts)
                    self._change.notify_all()
        except BaseException as error:  # whoever waits for the thread has to know
            with self._change:
                self._fault, self._is_training = error, False
                self._change.notify_all()
