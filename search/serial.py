"""A driver without Ray: the engine and one worker in this process, for debugging and for tiny
machines.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

import torch

from search.engine.controller import Controller
from search.messages import Report
from search.worker.slices import Slices
from search.worker.trial import forget_data


def train(
    controller: Controller,
    threads: int = 1,
    in_training: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
) -> Iterator[list[Report]]:
    """Train until the controller has nothing more to order, what trains in a context `in_training`;
    yields the reports of each slice once they are written down.

    Whoever stops iterating leaves the sweep as a killed driver would.
    """
    torch.set_num_threads(threads)
    forget_data()
    while orders := controller.next_orders():
        seat = [order.number for order in orders]
        with in_training():
            slices = Slices(orders)
        while seat:
            with in_training():
                reports = slices.next()
            ended, orders = controller.hear(seat, reports)
            yield reports
            slices.leave(ended)
            if orders:
                with in_training():
                    slices.join(orders)


def train_here(controller: Controller, threads: int) -> None:
    """The same to its end. Ctrl-C breaks training off, and waits where something is written."""
    if threading.current_thread() is not threading.main_thread():
        for _ in train(controller, threads):
            pass
        return

    def wait(*_: object) -> None:
        controller.verdicts.interrupt()

    before = signal.signal(signal.SIGINT, wait)

    @contextlib.contextmanager
    def in_training() -> Iterator[None]:
        signal.signal(signal.SIGINT, before)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, wait)

    try:
        for _ in train(controller, threads, in_training):
            pass
    finally:
        signal.signal(signal.SIGINT, before)
