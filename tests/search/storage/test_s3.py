"""An S3 store: moto's server, really asked over HTTP."""

import importlib.util
import logging
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmm.features.store import list_recipes, open_store
from search.ledger.events import read_history
from search.storage.door import StorageError, Store
from search.storage.fetch import check_storage
from search.storage.here import features_here, manifest_here
from search.storage.stage import Features
from tests.conftest import Corpus
from tests.search.engine.test_controller import Sweep
from tests.search.storage.test_copies import bring_as_if_elsewhere, copies_of
from tests.sweep_parts import small_spec

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("moto") is None or importlib.util.find_spec("s3fs") is None,
    reason="moto's server or s3fs is not installed",
)


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """An empty one; its URL. The environment says where it is, as a user's does."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "nobody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        boto3.client("s3").create_bucket(Bucket="sweeps")
        yield "s3://sweeps"
    server.stop()


def test_a_sweep_is_copied_to_s3_and_brought_from_it(
    corpus: Corpus, bucket: str, tmp_path: Path
) -> None:
    url = f"{bucket}/of/mine"
    check_storage(url, "small")
    sweep = Sweep(tmp_path / "runs" / "small", small_spec(corpus, trials=2))
    controller = sweep.controller()
    copies = copies_of(sweep, url)
    copies.copy(ended=False)
    controller.close_session("interrupted")
    sweep.run()
    copies.copy(ended=False)
    with pytest.raises(StorageError, match=f"{url}/small: holds sweep 'small'"):
        check_storage(url, "small")
    bring_as_if_elsewhere(copies.store, url, tmp_path / "other")
    assert read_history(tmp_path / "other" / "small" / "ledger.sqlite") == sweep.history
    kept = "trials/00000/best.safetensors"
    other = tmp_path / "other" / "small" / kept
    assert other.read_bytes() == (sweep.folder / kept).read_bytes()
    shutil.rmtree(sweep.folder / "trials" / "00000")
    copies.copy(ended=True)
    assert kept not in copies.store.files()


def test_features_in_s3_are_brought_and_the_same(
    corpus: Corpus, bucket: str, tmp_path: Path
) -> None:
    store = Store(f"{bucket}/features")
    for file in corpus.features_dir.rglob("*"):
        if file.is_file():
            store.put(file, file.relative_to(corpus.features_dir).as_posix())
    features = Features(f"{bucket}/features", tmp_path)
    name = min(path.name for path in list_recipes(features.path))
    stored = features.stores[name]["values.npy"]
    mark = "".join(sign for sign in stored.version if sign.isalnum())[:40]
    whole = (corpus.features_dir / name / "values.npy").read_bytes()
    making = features.path / f".{name}.part"
    making.mkdir()
    (making / f".values.npy.{mark}.part").write_bytes(whole[:1000])  # it was broken off there
    folder = features.bring()
    assert (folder / name / "values.npy").read_bytes() == whole
    for path in list_recipes(folder):
        open_store(path).check("values")


def test_what_is_wrong_with_a_store_is_one_sentence(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from s3fs import S3FileSystem

    with pytest.raises(StorageError, match=r"^s3://none/mine/small: \w+: .*bucket") as fault:
        check_storage("s3://none/mine", "small")
    assert "\n" not in str(fault.value)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
        S3FileSystem.clear_instance_cache()  # a process asks one server
        with pytest.raises(StorageError, match=r"^s3://sweeps/away/small: \w+: Could not connect"):
            check_storage(f"{bucket}/away", "small")
        for here in (features_here, manifest_here):
            with pytest.raises(StorageError, match="Could not connect") as fault:
                here(f"{bucket}/away/manifest.csv", tmp_path)
            assert "\n" not in str(fault.value)
    S3FileSystem.clear_instance_cache()
    with pytest.raises(StorageError, match="AWS_ACCESS_KEY_ID") as fault:
        Store("s3://key:secret@sweeps/mine")
    assert "secret@" not in str(fault.value)
    with pytest.raises(StorageError, match="nothing can be written there"):
        Store("https://host/folder")
    with pytest.raises(StorageError, match="Protocol not known: nope"):
        Store("nope://host/folder")
