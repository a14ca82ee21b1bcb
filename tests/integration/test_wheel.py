"""hpsearch as people install it: the wheel, in an environment without the checkout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from hpsearch import __version__
from hpsearch.convert.shipped import EXAMPLES
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.storm

SHIPPED = ("*.py", "*.j2", "*.css", "*.sh", "*.mako", "py.typed", "*.json")
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("HPSEARCH_ST", "PYTHONPATH"))}


def built(folder: Path, source: Path, *kinds: str) -> None:
    """Without an environment of its own, so that nothing is downloaded."""
    command = [sys.executable, "-m", "build", "--no-isolation", *kinds, "--outdir", str(folder), str(source)]
    subprocess.run(command, check=True, capture_output=True, text=True)


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    built(folder, REPOSITORY)
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    return dist / f"hpsearch-{__version__}-py3-none-any.whl"


@pytest.fixture(scope="module")
def bin_folder(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an environment that has the wheel, and of this one its libraries alone: a .pth names their folder, in which
    Python follows no other .pth, such as that of an editable hpsearch."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "libraries.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True, env=ENVIRONMENT)
    return folder / "bin"


def said(bin_folder: Path, *command: str, folder: Path) -> str:
    run = subprocess.run(
        [str(bin_folder / command[0]), *command[1:]],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout
    return run.stdout


def test_a_wheel_holds_the_package_and_its_studies_and_nothing_else(wheel: Path) -> None:
    package = REPOSITORY / "hpsearch"
    wanted = {f"hpsearch/{file.relative_to(package)}" for kind in SHIPPED for file in package.rglob(kind)}
    wanted |= {f"hpsearch/studies/{name}.yaml" for name in EXAMPLES}
    assert len(wanted) > 250
    assert {name for name in contents(wheel) if ".dist-info/" not in name} == wanted


def test_the_sdist_builds_the_same_wheel(dist: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(dist / f"hpsearch-{__version__}.tar.gz") as sdist:
        sdist.extractall(tmp_path, filter="data")
    built(tmp_path, tmp_path / f"hpsearch-{__version__}", "--wheel")
    assert contents(tmp_path / wheel.name) == contents(wheel)


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as file:
        return {name: file.read(name) for name in file.namelist()}


def test_it_runs_where_there_is_no_checkout(bin_folder: Path, tmp_path: Path) -> None:
    where = said(bin_folder, "python", "-c", "import hpsearch; print(hpsearch.__file__)", folder=tmp_path)
    assert where.startswith(str(bin_folder.parent))
    assert "Usage: hpsearch" in said(bin_folder, "hpsearch", "--help", folder=tmp_path)
    assert f"hpsearch {__version__}" in re.sub(r"\s+", " ", said(bin_folder, "hpsearch", "doctor", folder=tmp_path))


def test_the_quickstart_from_the_wheel(bin_folder: Path, tmp_path: Path) -> None:
    said(bin_folder, "hpsearch", "new", "--example", "quickstart", folder=tmp_path)
    said(bin_folder, "hpsearch", "run", "quickstart.yaml", "--trials", "1", folder=tmp_path)
    said(bin_folder, "hpsearch", "best", "quickstart", "-o", "best.yaml", folder=tmp_path)
    said(bin_folder, "hpsearch", "train", "best.yaml", "--set", "final.epochs=1", folder=tmp_path)
    assert (tmp_path / "storage/runs/quickstart/adapter/adapter_model.safetensors").exists()
    said(bin_folder, "hpsearch", "report", "quickstart", folder=tmp_path)
