"""Has SkyPilot's own parser read `skypilot.yaml`, in an environment that has SkyPilot and nothing of ours: it pins
other versions than hpsearch. No machine is started, and no cloud is asked. `make skypilot` runs it.

On a client SkyPilot's schema lets unknown fields of `job_recovery` pass, since a server's plugins may know them
(0.14.1, sky/utils/schemas.py); so those are looked at here.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import NamedTemporaryFile

from sky.exceptions import InvalidSkyPilotConfigError
from sky.task import Task
from sky.utils.yaml_utils import read_yaml

FILE = Path(__file__).with_name("skypilot.yaml")
GIVEN = [("HPSEARCH_STORE", "postgresql+psycopg://hpsearch@db/hpsearch"), ("HPSEARCH_STORAGE", "s3://bucket/hpsearch")]
RECOVERY = {"strategy", "max_restarts_on_errors", "recover_on_exit_codes"}


def read(text: str) -> Task:
    with NamedTemporaryFile("w", suffix=".yaml") as draft:
        draft.write(text)
        draft.flush()
        config = read_yaml(draft.name)
    return Task.from_yaml_config(config, env_overrides=GIVEN, secrets_overrides=[("PGPASSWORD", "secret")])


def main() -> None:
    text = FILE.read_text()
    task = read(text)
    assert not set(task.envs) - {"STUDY", "HPSEARCH_STORE", "HPSEARCH_STORAGE"}
    (machine,) = task.resources
    assert machine.use_spot
    assert set(machine.job_recovery) <= RECOVERY, machine.job_recovery
    for field in ("use_spot", "workdir", "accelerators", "secrets"):
        try:
            read(text.replace(f"{field}:", f"{field}s:"))
        except InvalidSkyPilotConfigError:
            continue
        raise AssertionError(f"{field}s: passed, so this proves nothing")
    print(f"SkyPilot reads {FILE.name}: {task.name} on {machine}")


if __name__ == "__main__":
    main()
