"""SQLite on a network file system is refused, by what Linux says of the mounts."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import make_url

import hpsearch.store.network as network
from hpsearch.errors import InputError
from hpsearch.store.network import file_system_of, refuse_network_file

MOUNTS = r"""22 1 0:21 / / rw,relatime shared:1 - overlay overlay rw,lowerdir=/a:/b
23 22 0:22 / /proc rw,nosuid - proc proc rw
30 22 0:40 / /home rw,relatime shared:2 master:7 - nfs4 server:/export/home rw,vers=4.2,addr=10.0.0.1
31 30 8:1 / /home/local rw - ext4 /dev/sda1 rw
32 22 0:41 / /mnt/my\040share\134x rw - cifs //server/share rw
33 22 0:42 / /mnt/twice rw - ext4 /dev/sdb1 rw
34 22 0:43 / /mnt/twice rw - fuse.sshfs me@host:/ rw
35 22 0:44 /sub /homes rw - xfs /dev/sdc1 rw
broken line
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/", "overlay"),
        ("/work", "overlay"),
        ("/home", "nfs4"),
        ("/home/me/storage", "nfs4"),
        ("/home/local/me", "ext4"),
        ("/homes/me", "xfs"),
        ("/homeless", "overlay"),
        ("/mnt/my share\\x/a", "cifs"),
        ("/mnt/twice/a", "fuse.sshfs"),
    ],
)
def test_the_longest_mount_point_above_a_folder_tells_its_kind(folder: str, kind: str) -> None:
    assert file_system_of(Path(folder), MOUNTS) == kind


def test_without_a_mount_nothing_is_known() -> None:
    assert file_system_of(Path("/a"), "") is None


def test_this_machine_s_own_mounts_are_understood(tmp_path: Path) -> None:
    assert file_system_of(tmp_path.resolve(), Path("/proc/self/mountinfo").read_text())


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that says that it is an NFS mount."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:40 / {tmp_path}/shared rw - nfs4 server:/ rw\n")
    monkeypatch.setattr(network, "_MOUNTS", mounts)
    return tmp_path / "shared"


def test_a_file_there_is_refused_with_the_reason_and_a_way_out(mounted: Path) -> None:
    with pytest.raises(InputError, match=r"network file system \(nfs4\).*WAL.*locks.*local disk.*PostgreSQL"):
        refuse_network_file(make_url(f"sqlite:///{mounted}/new/hpsearch.db"))
    assert not mounted.exists()


def test_a_link_to_there_is_refused_too(mounted: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(mounted)
    with pytest.raises(InputError):
        refuse_network_file(make_url(f"sqlite:///{tmp_path}/link/hpsearch.db"))


@pytest.mark.parametrize("url", ["sqlite:///{}/hpsearch.db", "sqlite://", "sqlite:///:memory:"])
def test_a_local_file_and_none_at_all_are_welcome(url: str, mounted: Path) -> None:
    refuse_network_file(make_url(url.format(mounted.parent)))
