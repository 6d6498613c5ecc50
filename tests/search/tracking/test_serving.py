"""A registered model is served by MLflow's own server and answers what `mmm predict` answers."""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mmm.bundle.write import save_run_bundle
from search.tracking.registry import ALIAS, example_input, register
from search.tracking.serving import ServedBundle
from search.tracking.store import default_tracking_uri, open_client
from tests.conftest import Corpus, trained
from tests.sweep_parts import call_inside


@pytest.fixture(scope="module")
def bundle(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "bundle"
    save_run_bundle(trained(corpus, "vanilla_concat", lr=1e-2, context=3), folder, name="served")
    return folder


def base64_of(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "hi"}, "column audio is missing; expected audio"),
        ({"audio": "%", "text": "hi"}, "row 0, audio: not base64"),
        ({"audio": "", "text": None}, "row 0, text: expected text, found NoneType"),
        (
            {"audio": "", "text": "hi", "history": ["a"], "history_audio": ["", ""]},
            "row 0: 2 history_audio for 1 history",
        ),
        ({"audio": "", "text": "hi", "history": "a"}, "row 0, history: expected a list of texts"),
    ],
)
def test_a_request_that_cannot_be_answered_is_refused_by_row_and_column(
    bundle: Path, row: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ServedBundle(bundle).predict(pd.DataFrame([row]))


def ask(port: int, body: dict[str, Any]) -> list[dict[str, float]]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: list[dict[str, float]] = json.load(answer)["predictions"]
    return found


def test_two_stores_in_one_process_have_a_registry_each(bundle: Path, tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        assert register(bundle, "emotion", tmp_path / name, None) == 1
        client, _ = open_client(tmp_path / name, None)
        assert int(client.get_model_version_by_alias("emotion", ALIAS).version) == 1


@pytest.mark.slow  # MLflow's server takes ten seconds to start
def test_the_registered_model_is_served_with_the_probabilities_of_mmm_predict(
    bundle: Path, corpus: Corpus, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    assert [register(bundle, "emotion", runs, None) for _ in range(2)] == [1, 2]
    client, _ = open_client(runs, None)
    assert client.get_model_version_by_alias("emotion", ALIAS).version in (2, "2")
    stored = [file for file in runs.rglob("*") if file.is_file()]
    assert not [
        file for file in stored if file.suffix in (".pkl", ".pickle", ".pt", ".bin", ".cloudpickle")
    ]
    model, *_ = [file for file in stored if file.name == "MLmodel"]
    assert "loader_module: search.tracking.serving" in model.read_text()
    assert (model.parent / "input_example.json").is_file()

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "models",
        "serve",
        "-m",
        f"models:/emotion@{ALIAS}",
        "--env-manager",
        "local",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    # MLflow starts its server by name, so that the environment's commands have to be on the path.
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": default_tracking_uri(runs),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(Path(__file__).parents[3]),
    }
    now, before = (
        corpus.manifest.audio_path(corpus.manifest.utterances[place]) for place in (3, 2)
    )
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, cwd=tmp_path, start_new_session=True
        )
        try:
            wait_for(port, server, tmp_path / "log")
            speech, earlier = base64_of(now), base64_of(before)
            rows = [
                {"audio": speech, "text": "그래 no!"},
                {
                    "audio": speech,
                    "text": "great",
                    "history": ["so", "well"],
                    "history_audio": ["", earlier],
                },
            ]
            found = ask(port, {"dataframe_records": rows[:1]}) + ask(
                port, {"dataframe_records": rows[1:]}
            )
            assert (
                len(
                    ask(
                        port,
                        {
                            "dataframe_split": json.loads(
                                example_input().to_json(orient="split", index=False)
                            )
                        },
                    )
                )
                == 1
            )
            with pytest.raises(urllib.error.HTTPError, match="400"):
                ask(port, {"dataframe_records": [{"audio": "%", "text": "hi"}]})
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
    history = [
        "--history",
        "so",
        "--history",
        "well",
        "--history-audio",
        "-",
        "--history-audio",
        before,
    ]
    for answer, arguments in zip(found, (("그래 no!",), ("great", *history)), strict=True):
        told = call_inside("mmm", "predict", bundle, "--json", "--audio", now, "--text", *arguments)
        expected = json.loads(told.stdout)
        assert list(answer) == list(expected)
        np.testing.assert_allclose(
            list(answer.values()), list(expected.values()), rtol=0, atol=1e-5
        )


def wait_for(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    """Until it answers; fails with its log where it ends or is silent for two minutes."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5):
                return
        except OSError:  # not yet
            try:
                server.wait(timeout=0.2)
                break
            except subprocess.TimeoutExpired:
                pass
    raise AssertionError(log.read_text())
