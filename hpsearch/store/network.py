"""SQLite on a network file system is refused, because it can lose data there without any error.

Linux lists the file system of every mount in /proc/self/mountinfo (proc_pid_mountinfo(5)); other systems aren't
checked.
"""

from __future__ import annotations

import re
from pathlib import Path

from sqlalchemy.engine import URL

from hpsearch.errors import InputError

_MOUNTS = Path("/proc/self/mountinfo")
_NETWORK = {
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "9p", "ceph", "lustre", "gpfs", "beegfs", "glusterfs"),
    *("pvfs2", "orangefs", "ocfs2", "gfs2", "wekafs", "panfs", "quobyte", "vastnfs", "acfs", "ncpfs", "coda"),
    *("fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.ceph-fuse", "fuse.rclone", "fuse.s3fs", "fuse.gcsfuse"),
    *("fuse.juicefs", "fuse.mount-s3", "fuse.goofys", "fuse.blobfuse", "fuse.blobfuse2", "fuse.smbnetfs"),
    *("fuse.beegfs", "fuse.quobyte", "fuse.moosefs", "fuse.lizardfs", "fuse.davfs", "fuse.curlftpfs", "fuse.drivefs"),
}


def refuse_network_file(url: URL) -> None:
    """Raises InputError for an SQLite file that several machines may share."""
    if url.database in (None, "", ":memory:") or not _MOUNTS.exists():
        return
    file = Path(str(url.database))
    kind = file_system_of(file.parent.resolve(), _MOUNTS.read_text(errors="surrogateescape"))
    if kind in _NETWORK:
        raise InputError(
            f"--store: {file} is on a network file system ({kind}). SQLite can't be kept there: its WAL mode needs "
            "memory that all users of the file share, and locks that network file systems don't keep; the store would "
            "be damaged sooner or later. Give a file on a local disk (--store sqlite:////local/folder/hpsearch.db), "
            "or use PostgreSQL, which any number of machines may share"
        )


def file_system_of(folder: Path, mounts: str) -> str | None:
    """The type of the file system that holds an absolute folder, from the text of mountinfo; None: no mount holds
    it.
    """
    found: tuple[int, str | None] = (-1, None)
    for line in mounts.splitlines():
        fields, _, rest = line.partition(" - ")
        parts = fields.split(" ")
        if len(parts) < 5 or not rest:
            continue
        point = Path(_unescaped(parts[4]))
        if folder.is_relative_to(point) and len(point.parts) >= found[0]:  # the later of two on one point
            found = len(point.parts), rest.split(" ")[0]
    return found[1]


def _unescaped(text: str) -> str:
    r"""Spaces, tabs, newlines and backslashes are written as \040, \011, \012 and \134."""
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), text)
