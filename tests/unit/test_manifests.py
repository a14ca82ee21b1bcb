"""Kubernetes' and KubeRay's manifests, and the commands in all files that start workers elsewhere.

Each object is checked against Kubernetes' own schemas, which allow no unknown field; nothing is applied to a cluster.
Of KubeRay's RayJob only the pod templates are checked: its own schema comes with the operator.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from typer.main import get_command

from hpsearch.cli.app import app
from hpsearch.watch.door.login import VARIABLE
from hpsearch.worker.endings import EXIT_CODES, Step
from tests.conftest import REPOSITORY
from tests.docs.pages import Page
from tests.unit.command_fixtures import commands_in, parse

DOCKER = REPOSITORY / "docker"
VERSIONS = ("1.31", kubernetes_validate.latest_version())
"""podFailurePolicy is stable since 1.31; the latest is the installed package's."""
FILES = [*sorted((DOCKER / "kubernetes").iterdir()), DOCKER / "kuberay.yaml"]


def documents(file: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(file.read_text()) if document]


def ray_templates(ray_job: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = ray_job["spec"]["rayClusterSpec"]
    return [group["template"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def objects() -> Iterator[dict[str, Any]]:
    """Everything that Kubernetes itself has a schema for."""
    for document in (one for file in FILES if file.name != "secret.yaml" for one in documents(file)):
        if document["kind"] != "RayJob":
            yield document
            continue
        for number, template in enumerate(ray_templates(document)):
            name = {"name": f"{document['metadata']['name']}-{number}"}
            yield {"apiVersion": "v1", "kind": "PodTemplate", "metadata": name, "template": template}


OBJECTS = {f"{one['kind']}-{one['metadata']['name']}": one for one in objects()}
PODS = {
    name: (one["template"] if one["kind"] == "PodTemplate" else one["spec"]["template"])["spec"]
    for name, one in OBJECTS.items()
    if "template" in one or "template" in one.get("spec", {})
}
JOB = OBJECTS["Job-hpsearch-workers"]["spec"]
WORKERS = [PODS["Job-hpsearch-workers"], PODS["PodTemplate-hpsearch-1"]]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", OBJECTS)
def test_kubernetes_knows_every_field(name: str, version: str) -> None:
    kubernetes_validate.validate(OBJECTS[name], version, strict=True)


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("Job-hpsearch-workers", "backoffLimitPerIndex"),
        ("Job-hpsearch-workers", "onPodConditions"),
        ("Job-hpsearch-workers", "claimName"),
        ("Deployment-hpsearch-dashboard", "tcpSocket"),
        ("Secret-hpsearch-store", "stringData"),
        ("PersistentVolumeClaim-hpsearch-shared", "accessModes"),
        ("PodTemplate-hpsearch-1", "terminationGracePeriodSeconds"),
    ],
)
def test_a_misspelt_field_is_found(name: str, field: str) -> None:
    text = json.dumps(OBJECTS[name])
    assert f'"{field}"' in text
    wrong = json.loads(text.replace(f'"{field}"', f'"{field}s"'))
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_what_is_mounted_is_there() -> None:
    there = {name for name in OBJECTS if name.startswith(("Secret", "PersistentVolumeClaim"))}
    wanted = set()
    for pod in PODS.values():
        for volume in pod.get("volumes", []):
            if claim := volume.get("persistentVolumeClaim"):
                wanted.add(f"PersistentVolumeClaim-{claim['claimName']}")
        for container in pod["containers"]:
            wanted |= {f"Secret-{source['secretRef']['name']}" for source in container.get("envFrom", [])}
            mounts = {mount["name"] for mount in container.get("volumeMounts", [])}
            assert mounts == {volume["name"] for volume in pod.get("volumes", [{"name": "database"}])}
    assert wanted == there


def test_secrets_hold_no_secret_and_have_the_names_that_hpsearch_reads() -> None:
    store, dashboard = (OBJECTS[f"Secret-hpsearch-{name}"]["stringData"] for name in ("store", "dashboard"))
    assert store["HPSEARCH_STORE"] == "postgresql+psycopg://hpsearch@hpsearch-postgres/hpsearch"
    assert {name: value for name, value in store.items() if name != "HPSEARCH_STORE"} == {
        "PGPASSWORD": "",
        "HF_TOKEN": "",
    }
    assert dashboard == {VARIABLE: ""}
    assert OBJECTS["Service-hpsearch-postgres"]["metadata"]["name"] in store["HPSEARCH_STORE"]


def test_pods_that_are_taken_away_come_back_and_mistakes_do_not() -> None:
    assert JOB["completionMode"] == "Indexed"
    assert JOB["completions"] == JOB["parallelism"] > 1
    assert JOB["template"]["spec"]["restartPolicy"] == "Never"
    first, *others = JOB["podFailurePolicy"]["rules"]
    assert first == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    (container,) = JOB["template"]["spec"]["containers"]
    assert {rule["onExitCodes"]["containerName"] for rule in others} == {container["name"]}
    follows = {code: rule["action"] for rule in others for code in rule["onExitCodes"]["values"]}
    assert follows == {
        EXIT_CODES[Step.STOPPED]: "Ignore",
        2: "FailJob",
        EXIT_CODES[Step.SET_ASIDE]: "FailIndex",
    }


@pytest.mark.parametrize("pod", WORKERS, ids=["job", "ray"])
def test_a_worker_has_a_gpu_and_the_time_to_save(pod: dict[str, Any]) -> None:
    assert pod["terminationGracePeriodSeconds"] >= 120
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    shared = next(volume for volume in pod["volumes"] if volume["name"] == "shm")
    assert shared["emptyDir"]["medium"] == "Memory"
    assert {"name": "shm", "mountPath": "/dev/shm"} in container["volumeMounts"]


def test_storage_is_shared_by_all_nodes() -> None:
    assert OBJECTS["PersistentVolumeClaim-hpsearch-shared"]["spec"]["accessModes"] == ["ReadWriteMany"]
    for pod in PODS.values():
        for container in pod["containers"]:
            places = {one["name"]: one["value"] for one in container.get("env", []) if "value" in one}
            assert places.get("HPSEARCH_STORAGE", "/work/shared/storage") == "/work/shared/storage"


@pytest.mark.parametrize("pod", PODS.values(), ids=PODS)
def test_nobody_is_root(pod: dict[str, Any]) -> None:
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"]
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }
        if "hpsearch" in container["image"]:
            assert f"USER {pod['securityContext']['runAsUser']}\n" in (DOCKER / "Dockerfile").read_text()


def test_ray_is_of_the_version_that_is_tried() -> None:
    """The image has the newest that pyproject.toml allows; KubeRay believes what the manifest says."""
    (job,) = documents(DOCKER / "kuberay.yaml")
    said = job["spec"]["rayClusterSpec"]["rayVersion"]
    assert re.search(rf'"ray\[[a-z,]+\]>={said.removesuffix(".0")}"', (REPOSITORY / "pyproject.toml").read_text())
    # The entrypoint leaves once the workers are asked for.
    assert job["spec"]["shutdownAfterJobFinishes"] is False


def test_every_command_is_one_that_hpsearch_has() -> None:
    commands = [container["args"] for pod in PODS.values() for container in pod["containers"] if "args" in container]
    commands += commands_in(documents(DOCKER / "kuberay.yaml")[0]["spec"]["entrypoint"])
    commands += commands_in(yaml.safe_load((DOCKER / "skypilot.yaml").read_text())["run"])
    assert [parse(command) for command in commands] == ["dashboard", "worker", "launch", "worker"]
    for command in commands:
        assert command[0] != "worker" or "--keep" in command


PAGES = [REPOSITORY / "docs" / "how-to" / f"{name}.md" for name in ("containers", "kubernetes", "spot-machines")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_a_page_is_one_that_hpsearch_has(page: Path) -> None:
    text = page.read_text()
    inline = re.compile(r"`[^`\n]+`")
    commands = commands_in("\n".join(block.text for block in Page(page).blocks if block.language == "bash"))
    assert commands
    for command in commands:
        parse(command)
    for verb, *options in commands_in("\n".join(inline.findall(text))):
        assert verb in get_command(app).commands, verb  # type: ignore[attr-defined]
        if options:
            parse([verb, *options])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    text = page.read_text()
    named = set(re.findall(r"\bdocker/[a-z./-]+[a-z]\b", text)) - {"docker/.env", "docker/kubernetes/secret.yaml"}
    assert named
    for name in named:
        assert (REPOSITORY / name).exists(), name
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("https://") or (page.parent / target).exists(), target
