"""Where what is written goes: through links, never in the place of a device or a pipe."""

import os
import socket
import subprocess
from pathlib import Path

import pytest

from mmm.files import destination, new_directory, parse_json, write_bytes, write_text
from tests.conftest import names_in
from tests.search.cluster.test_storage import can_mount


def test_a_file_written_to_a_link_is_where_the_link_leads(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "old.csv").write_text("old")
    (tmp_path / "link.csv").symlink_to(tmp_path / "there" / "old.csv")
    (tmp_path / "second.csv").symlink_to("link.csv")
    (tmp_path / "new.csv").symlink_to(Path("there", "new.csv"))
    for link, file in (("link", "old"), ("second", "old"), ("new", "new")):
        write_text(tmp_path / f"{link}.csv", f"by {link}")
        assert (tmp_path / f"{link}.csv").is_symlink()
        assert (tmp_path / "there" / f"{file}.csv").read_text() == f"by {link}"
    assert names_in(tmp_path / "there") == ["new.csv", "old.csv"]


def test_a_folder_behind_a_link_is_replaced_and_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "there" / "bundle").mkdir(parents=True)
    (tmp_path / "there" / "bundle" / "old").touch()
    (tmp_path / "link").symlink_to(Path("there", "bundle"))
    with new_directory(tmp_path / "link") as folder:
        (folder / "new").touch()
    assert (tmp_path / "link").is_symlink()
    assert names_in(tmp_path / "there" / "bundle") == ["new"]
    assert names_in(tmp_path / "there") == ["bundle"]


def test_what_is_neither_a_file_nor_new_is_refused_and_stays(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(tmp_path / "socket"))
        (tmp_path / "to_pipe").symlink_to("pipe")
        before = names_in(tmp_path)
        for name, why in (
            ("pipe", "is a device, a pipe or a socket and no file"),
            ("to_pipe", "is a device, a pipe or a socket and no file"),
            ("socket", "is a device, a pipe or a socket and no file"),
            ("folder", "is a folder; name a file"),
            ("loop", "a link that leads back to itself"),
        ):
            with pytest.raises(ValueError, match=rf"{name}: {why}"):
                write_text(tmp_path / name, "text")
    with pytest.raises(ValueError, match="/dev/null: is a device"):
        destination(Path("/dev/null"))
    with pytest.raises(ValueError, match="pipe: is no folder"), new_directory(tmp_path / "pipe"):
        pass
    assert names_in(tmp_path) == before
    assert (tmp_path / "pipe").is_fifo()


def test_a_name_may_be_as_long_as_the_system_lets_it(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 255)
    write_text(path, "text")
    assert path.read_text() == "text"
    with pytest.raises(OSError, match="File name too long"):
        write_text(tmp_path / ("x" * 256), "text")
    assert names_in(tmp_path) == [path.name]


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[" * 5000 + "]" * 5000])
def test_json_that_is_too_deep_to_be_read_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="brackets in brackets, too many of them"):
        parse_json(text)


@pytest.mark.skipif(not can_mount(), reason="a small disk cannot be mounted")
def test_a_full_disk_is_told_of_by_the_name_that_was_given_and_nothing_is_left(
    tmp_path: Path,
) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", tmp_path], check=True)
    try:
        file, folder = tmp_path / "report.html", tmp_path / "best"
        with pytest.raises(OSError, match="No space left on device") as found:
            write_bytes(file, bytes(200_000))
        assert found.value.filename == str(file)
        with (
            pytest.raises(OSError, match="No space left on device") as found,
            new_directory(folder) as scratch,
        ):
            (scratch / "weights").write_bytes(bytes(200_000))
        assert found.value.filename == str(folder)
        assert names_in(tmp_path) == []
    finally:
        subprocess.run(["umount", tmp_path], check=True)
