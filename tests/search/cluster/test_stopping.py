"""Signals and closed terminals: a sweep ends in good order, whoever ends it and whether or not
anybody still listens.
"""

import contextlib
import fcntl
import io
import os
import pty
import shutil
import signal
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console

from mmm.bundle.read import load_bundle
from search.ledger.events import read_history
from search.ledger.history import History
from search.live import lasting
from search.stopping import Stopping
from tests.conftest import Corpus
from tests.sweep_parts import TIMEOUT_S, call_inside, command, environment, write_space

# Trials that do not end by themselves in a test's time.
SPACE = """
def suggest(trial):
    return {"architecture": "mlp_mixer", "context": trial.suggest_int("context", 1, 3),
            "width": 64, "num_blocks": 1,
            "lr": trial.suggest_float("lr", 1e-4, 1e-3, log=True)}
"""
EPOCHS = 1_000_000
POLITE = [signal.SIGTERM, signal.SIGHUP]


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in (*POLITE, signal.SIGINT)]


@pytest.mark.parametrize("number", POLITE)
def test_a_polite_signal_is_one_ctrl_c_and_more_of_them_change_nothing(
    number: signal.Signals,
) -> None:
    before, stopped = handlers(), []
    with Stopping(lambda: stopped.append(1)) as stopping:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
        for again in (*POLITE, number):
            os.kill(os.getpid(), again)
    assert (stopped, stopping.is_asked) == ([1], True)
    assert handlers() == before


def test_what_has_to_be_written_at_the_end_is_not_disturbed() -> None:
    with Stopping(lambda: None) as stopping:
        with stopping.ending():
            for number in (signal.SIGINT, *POLITE):
                os.kill(os.getpid(), number)
        for number in POLITE:
            os.kill(os.getpid(), number)
        assert not stopping.is_asked
        with pytest.raises(
            KeyboardInterrupt
        ):  # whoever is in a hurry need not wait for the pictures
            os.kill(os.getpid(), signal.SIGINT)


def test_a_command_that_a_script_started_in_the_background_is_stopped_too() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Stopping(lambda: None), pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_under_nohup_a_closed_terminal_stops_nothing() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Stopping(lambda: None) as stopping:
            os.kill(os.getpid(), signal.SIGHUP)
        assert not stopping.is_asked
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("of", ["pipe", "terminal"])
def test_a_console_whose_reader_is_gone_is_silent(of: str) -> None:
    reading, writing = os.pipe() if of == "pipe" else pty.openpty()
    stream = os.fdopen(writing, "w", encoding="utf-8")
    console = Console(file=stream)
    with lasting(console):
        assert console.is_terminal == (of == "terminal")
        console.print("heard")
        assert os.read(reading, 100).strip() == b"heard"
        os.close(reading)
        console.print("not heard")
        with console.status("nor this"):
            pass
        assert console.is_terminal == (of == "terminal")
    console.print("nor this")  # Python writes what it has buffered when it ends
    stream.close()


def test_a_console_that_is_heard_says_the_same_as_before() -> None:
    stream = io.StringIO()
    console = Console(file=stream)
    with lasting(console):
        console.print("one")
    console.print("two")
    assert stream.getvalue() == "one\ntwo\n"
    assert console.file is stream


def test_a_console_of_standard_output_follows_it_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Console()
    with lasting(console):
        console.print("one")
    assert capsys.readouterr().out == "one\n"
    monkeypatch.setattr("sys.stdout", elsewhere := io.StringIO())
    console.print("two")
    assert elsewhere.getvalue() == "two\n"


def run_command(corpus: Corpus, store: Path, folder: Path) -> list[str]:
    (folder / "runs").mkdir()
    shutil.copy(store, folder / "runs")
    space = write_space(folder / "long.py", SPACE)
    return command(
        "search",
        "run",
        space,
        corpus.manifest.path,
        "--features",
        corpus.features_dir,
        "--name",
        "first",
        "--trials",
        9,
        "--epochs",
        EPOCHS,
        "--first-rung",
        EPOCHS - 1,
        "--workers",
        1,
        "--packs",
        "off",
        "--runs",
        folder / "runs",
    )


def history_of(folder: Path) -> History:
    return read_history(folder / "runs" / "first" / "ledger.sqlite")


def wait_for_checkpoint(driver: subprocess.Popen[bytes], folder: Path) -> None:
    """Until a trial has the best it has seen so far on the disk, so that there will be a bundle."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline and driver.poll() is None:
        with contextlib.suppress(ValueError, FileNotFoundError):
            for trial in history_of(folder).trials.values():
                best = trial.best("macro_f1")
                if (
                    best is not None
                    and trial.checkpoint is not None
                    and trial.checkpoint.epoch >= best[0]
                ):
                    return
        with contextlib.suppress(subprocess.TimeoutExpired):
            driver.wait(0.2)
    raise AssertionError(f"status {driver.poll()} before there was a checkpoint")


def check_ended_in_good_order(folder: Path) -> str:
    """Which epochs the only trial was not kept with, in words."""
    sweep, history = folder / "runs" / "first", history_of(folder)
    assert history.last_close is not None
    assert history.last_close.why == "interrupted"
    assert [(trial.state, trial.dead_workers) for trial in history.trials.values()] == [
        ("running", 0)
    ]
    assert (sweep / "report.html").read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert (sweep / "leaderboard.csv").read_text(encoding="utf-8").count(
        "\n"
    ) == 3  # its header, the trial, the linear baseline
    load_bundle(sweep / "bundle")
    assert not (sweep / "lock").read_bytes()  # released
    (trial,) = history.trials.values()
    kept = trial.checkpoint.epoch if trial.checkpoint is not None else 0
    return f"{trial.epoch - kept} of {trial.epoch} reported epochs without a checkpoint"


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/stat").is_file(), reason="Ray's processes are found through /proc"
)
@pytest.mark.parametrize(
    ("driver_option", "send"),
    [
        pytest.param([], os.kill, id="Ray", marks=pytest.mark.chaos),
        pytest.param([], os.killpg, id="Ray with all its processes"),
        pytest.param(["--serial"], os.kill, id="serial"),
    ],
)
def test_a_sweep_that_is_terminated_closes_as_with_ctrl_c_whatever_comes_after_the_first_signal(
    corpus: Corpus,
    empty_store: Path,
    tmp_path: Path,
    driver_option: list[str],
    send: Callable[[int, int], None],
    record_property: Callable[[str, object], None],
) -> None:
    command = [*run_command(corpus, empty_store, tmp_path), *driver_option]
    with (
        open(tmp_path / "told", "wb") as told,
        subprocess.Popen(
            command, env=environment(), stdout=told, stderr=told, start_new_session=True
        ) as driver,
    ):
        try:
            wait_for_checkpoint(driver, tmp_path)
            asked = time.monotonic()
            # To all of them is what `timeout` and batch systems do: Ray is gone before the driver
            # has heard.
            for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGHUP):
                with contextlib.suppress(ProcessLookupError):
                    send(driver.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    driver.wait(0.5)
            status = driver.wait(TIMEOUT_S)
            ended_s = time.monotonic() - asked
        finally:
            driver.kill()
    said = (tmp_path / "told").read_text()
    assert status == 0, said
    assert (
        f"ended: interrupted; go on with: mmm-search resume first --runs {tmp_path / 'runs'}\n"
        in said
    )
    assert "SIGTERM" not in said  # Ray's stack trace
    where = " ".join(["serial" if driver_option else "Ray", send.__name__])
    kept = check_ended_in_good_order(tmp_path)
    record_property("lost", f"{where}: status {status} after {ended_s:.1f} s, {kept}")
    before = history_of(tmp_path).trials[0]
    assert before.checkpoint is not None
    call_inside(
        "search", "resume", "first", "--runs", tmp_path / "runs", "--compute-budget", "1s"
    )  # more is used up already
    assert history_of(tmp_path).trials[0].state == "running"


@contextlib.contextmanager
def in_a_terminal(arguments: list[str]) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """A command whose terminal is ours: what is read from it and, when that is closed, what a
    closed window is to it.
    """
    ours, its = pty.openpty()

    def take_terminal() -> None:
        fcntl.ioctl(its, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        arguments,
        env={**environment(), "TERM": "xterm"},
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
        preexec_fn=take_terminal,
    )
    os.close(its)
    try:
        yield process, ours
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/stat").is_file(), reason="Ray's processes are found through /proc"
)
def test_a_sweep_whose_terminal_is_closed_still_writes_all_it_has(
    corpus: Corpus,
    empty_store: Path,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    with in_a_terminal(run_command(corpus, empty_store, tmp_path)) as (driver, terminal):
        os.set_blocking(terminal, False)
        wait_for_checkpoint(driver, tmp_path)
        with contextlib.suppress(BlockingIOError):
            while os.read(terminal, 65536):
                pass
        os.close(terminal)
        closed = time.monotonic()
        status = driver.wait(TIMEOUT_S)
        ended_s = time.monotonic() - closed
        assert status == 0
    kept = check_ended_in_good_order(tmp_path)
    record_property("lost", f"terminal closed: status {status} after {ended_s:.1f} s, {kept}")
