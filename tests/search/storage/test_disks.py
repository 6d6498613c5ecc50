"""A runs folder on a disk that machines share is warned of before anything is written."""

from pathlib import Path

import pytest

from search.storage.disks import file_system_of, shared_disk_warning

MOUNTS = r"""
overlay / overlay rw,relatime 0 0
proc /proc proc rw 0 0
/dev/sda1 /home ext4 rw 0 0
server:/export /home/shared nfs4 rw,vers=4.2 0 0
//server/data /mnt/our\040data cifs rw 0 0
10.0.0.1@tcp:/scratch /scratch lustre rw 0 0
tmpfs /scratch tmpfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/me/runs", "ext4"),
        ("/home/shared/runs", "nfs4"),
        ("/home/sharedness", "ext4"),
        ("/mnt/our data/runs", "cifs"),
        ("/scratch/runs", "tmpfs"),  # mounted over the other
        ("/elsewhere", "overlay"),
    ],
)
def test_the_file_system_of_a_folder_is_that_of_the_nearest_mount(path: str, kind: str) -> None:
    assert file_system_of(Path(path), MOUNTS) == kind


def test_a_shared_disk_is_warned_of_with_what_to_do() -> None:
    said = shared_disk_warning(Path("/home/shared/runs"), MOUNTS)
    assert said is not None
    assert said.startswith("warning: /home/shared/runs lies on nfs4, where an SQLite ledger may be")
    assert "--storage URL" in said
    assert shared_disk_warning(Path("/home/me/runs"), MOUNTS) is None
    assert shared_disk_warning(Path("/home/me/runs"), "") is None
    assert shared_disk_warning(Path("/"), "a line of three\n\nx") is None
