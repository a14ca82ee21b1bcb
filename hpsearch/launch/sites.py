"""Sites: the settings in `launch.yaml` for the places where workers are launched, kept out of study files.

    lab:
      on: slurm
      workers: 8
      time: 4h
      partition: gpu
      setup: module load cuda

A site's name is what `--profile` takes; an option of the command line counts before the site's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hpsearch.errors import InputError, cut, did_you_mean
from hpsearch.launch.engines import ENGINES
from hpsearch.launch.launcher import Launcher
from hpsearch.spec.base import Spec
from hpsearch.spec.explain import explain
from hpsearch.spec.yaml_limits import NotYaml, read_text, read_yaml

FILE = Path("launch.yaml")
_NOT_THE_ENGINES = ("on", "workers")


@dataclass(frozen=True)
class Site:
    engine: str
    launcher: Launcher
    options: Spec
    num_workers: int | None


def choose_site(profile: str | None, given: Mapping[str, Any], file: Path = FILE) -> Site:
    """The command line's options over the profile's. Raises InputError."""
    said = _read(file, profile) if profile else {}
    whole = {**said, **{key: value for key, value in given.items() if value is not None}}
    engine, num_workers = whole.get("on"), whole.get("workers")
    if not isinstance(engine, str) or engine not in ENGINES:
        known = ", ".join(ENGINES)
        raise InputError(
            f"--on: which engine? known: {known}"
            if engine is None
            else f"--on: there is no engine {cut(str(engine))!r}; {did_you_mean(str(engine), list(ENGINES))}"
        )
    if num_workers is not None and (type(num_workers) is not int or num_workers < 1):  # `yes` is no number
        raise InputError(f"workers: must be a whole number, at least 1, not {cut(repr(num_workers))}")
    launcher = ENGINES[engine]
    options = _options(engine, launcher.Options, {k: v for k, v in whole.items() if k not in _NOT_THE_ENGINES})
    return Site(engine, make_launcher(engine, options), options, num_workers)


def make_launcher(engine: str, options: Spec | Mapping[str, Any]) -> Launcher:
    """Raises InputError where this hpsearch doesn't know the engine, or the options, of a launch in the store."""
    if engine not in ENGINES:
        raise InputError(f"this hpsearch knows no engine {engine!r}")
    kind: Any = ENGINES[engine]
    return kind(options if isinstance(options, Spec) else _options(engine, kind.Options, options))  # type: ignore[no-any-return]


def _options(engine: str, kind: type[Spec], said: Mapping[str, Any]) -> Spec:
    try:
        return kind.model_validate(dict(said))
    except ValidationError as error:
        mistakes = [_told(engine, kind, found) for found in error.errors()]
        raise InputError("\n".join(mistakes)) from None


def _told(engine: str, kind: type[Spec], found: Any) -> str:
    name = ".".join(str(part) for part in found["loc"]) or engine
    if found["type"] == "extra_forbidden":
        known = list(kind.model_fields)
        return f"{name}: {engine} has no such option; " + (did_you_mean(name, known) if known else "it has none")
    return f"{name}: {explain(found)}"


def _read(file: Path, profile: str) -> dict[str, Any]:
    try:
        sites = read_yaml(read_text(file))
    except FileNotFoundError:
        raise InputError(f"--profile {cut(profile)}: there is no {file} in this folder; {_EXAMPLE}") from None
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}") from None
    except NotYaml as error:
        raise InputError(f"{file}: {error}") from None
    if not isinstance(sites, dict) or not all(isinstance(site, dict) for site in sites.values()):
        raise InputError(f"{file}: expected the name of each site, and its options below it; {_EXAMPLE}")
    if profile not in sites:
        names = [str(name) for name in sites]
        raise InputError(f"--profile: {file} has no {cut(profile)!r}; {did_you_mean(profile, names)}")
    # PyYAML follows YAML 1.1, where a bare `on` is the value true (https://yaml.org/type/bool.html).
    return {"on" if key is True else str(key): value for key, value in sites[profile].items()}


_EXAMPLE = "as in:\nlab:\n  on: slurm\n  workers: 8\n  time: 4h\n  partition: gpu"
