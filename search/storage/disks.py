"""On what kind of file system a folder lies: SQLite's locks and its log are not safe on all."""

import re
from pathlib import Path

# Shared by machines. SQLite's log is memory that two of them do not share, and some only pretend
# to lock (SQLite's "How To Corrupt An SQLite Database File", 2.1).
_SHARED = frozenset(
    (
        *("nfs", "nfs3", "nfs4", "cifs", "smb3", "smbfs", "lustre", "beegfs", "gpfs", "afs", "9p"),
        *("ceph", "fuse.ceph", "glusterfs", "fuse.glusterfs"),
        *("fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse", "fuse.rclone"),
    )
)


def file_system_of(path: Path, mounts: str) -> str | None:
    """The kind of file system that an absolute path lies on, by the text of `/proc/mounts`; None
    where that does not say.
    """
    found: tuple[int, str] | None = None
    for line in mounts.splitlines():
        _, point, kind, *_ = [*line.split(), "", "", ""]
        if not point.startswith("/"):
            continue
        # Blanks in names are written as octal numbers.
        folder = Path(re.sub(r"\\(\d{3})", lambda sign: chr(int(sign[1], 8)), point))
        depth = len(folder.parts)
        # Of two that are mounted on one folder the later one is seen.
        if path.is_relative_to(folder) and (found is None or depth >= found[0]):
            found = depth, kind
    return None if found is None else found[1]


def shared_disk_warning(runs: Path, mounts: str | None = None) -> str | None:
    """What to say of a runs folder on a disk that several machines share; None elsewhere."""
    if mounts is None:
        try:
            mounts = Path("/proc/mounts").read_text(encoding="utf-8", errors="replace")
        except OSError:  # macOS has none
            return None
    kind = file_system_of(runs.resolve(), mounts)
    if kind not in _SHARED:
        return None
    return (
        f"warning: {runs} lies on {kind}, where an SQLite ledger may be damaged; keep --runs on a"
        " disk of this machine, and have it copied with --storage URL (a path does, too)"
    )
