"""The demo page answers what `predict` answers, to this machine alone."""

import http.client
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from gradio_client import Client, handle_file

import mmm
from mmm.bundle.write import save_run_bundle
from mmm.predict.page import as_markdown, opened
from mmm.predict.predictor import Predictor
from tests.conftest import Corpus, trained


@pytest.fixture(scope="module")
def predictor(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    folder = tmp_path_factory.mktemp("demo") / "bundle"
    save_run_bundle(trained(corpus, "vanilla_concat", lr=1e-2, context=3), folder, name="shown")
    return mmm.load(folder)


@pytest.fixture(scope="module")
def port(predictor: Predictor) -> Iterator[int]:
    """Where the page is open."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
    with opened(predictor, number):
        yield number


def test_the_page_answers_what_predict_answers(
    port: int, predictor: Predictor, corpus: Corpus, tmp_path: Path
) -> None:
    audio = corpus.manifest.audio_path(corpus.manifest.utterances[3])
    client = Client(f"http://127.0.0.1:{port}", verbose=False, download_files=str(tmp_path))
    found = client.predict(handle_file(str(audio)), "그래 no!", api_name="/predict")
    expected = predictor.predict(audio, "그래 no!")
    assert {row["label"]: row["confidence"] for row in found["confidences"]} == pytest.approx(
        expected, abs=1e-6
    )
    assert found["label"] == max(expected, key=expected.__getitem__)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("localhost", 200),
        ("evil.example", 400),
        ("127.0.0.1.evil.example", 400),
    ],
)
def test_a_request_that_names_another_host_is_refused(port: int, host: str, status: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/", headers={"Host": f"{host}:{port}"})
    answer = connection.getresponse()
    assert answer.status == status
    page = answer.read().decode()
    assert "fonts.googleapis.com" not in page
    assert "cdnjs" not in page


def test_a_port_that_is_taken_is_a_clear_error(port: int, predictor: Predictor) -> None:
    with (
        pytest.raises(
            ValueError, match=rf"port {port} cannot be used .*choose another with --port"
        ),
        opened(predictor, port),
    ):
        pass


def test_a_bundles_name_is_shown_and_fetches_nothing() -> None:
    assert as_markdown("mixer K3 그래") == "mixer K3 그래"
    assert as_markdown("![x](http://a/b)<img src=x>\n# y") == r"!\[x\](http://a/b)\<img src=x\> # y"
