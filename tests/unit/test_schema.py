"""The JSON schemas say of a file what loading says of it, as far as a schema can."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import BaseModel, ValidationError
from typer.testing import CliRunner

from hpsearch.cli.app import app
from hpsearch.errors import InputError, StudyFileErrors
from hpsearch.launch.engines import ENGINES
from hpsearch.launch.schema import launch_schema
from hpsearch.launch.sites import choose_site
from hpsearch.spec import load_study
from hpsearch.spec.cross import cross_mistakes
from hpsearch.spec.knobs import KNOBS, space_mistakes
from hpsearch.spec.load import _PARAMETER, _Loader
from hpsearch.spec.schema import as_text, schema_line, study_schema
from hpsearch.spec.study import StudySpec
from tests.conftest import REPOSITORY
from tests.docs.pages import Page

STUDY = jsonschema.Draft202012Validator(study_schema())
LAUNCH = jsonschema.Draft202012Validator(launch_schema())
SHIPPED = sorted((REPOSITORY / "studies").glob("*.yaml"))
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
GOOD = """\
study: demo
task: text-sft
model: {base: "tiny:qwen2"}
data: {source: rows.jsonl, columns: {question: q, answer: a}}
search:
  space:
    training.learning_rate: {low: 1e-6, high: 1e-4, log: true}
    lora.r: [8, 16]
"""


def parsed(text: str) -> Any:
    return yaml.load(text, _Loader)


def why_not(text: str) -> str:
    return "; ".join(f"{error.json_path}: {error.message}" for error in STUDY.iter_errors(parsed(text)))


def studies_of(page: Path) -> list[str]:
    blocks = [block.text for block in Page(page).blocks if block.language == "yaml"]
    return [block for block in blocks if re.search(r"^study:", block, re.M) and re.search(r"^task:", block, re.M)]


def test_both_are_schemas_of_the_dialect_that_they_name() -> None:
    for schema in (study_schema(), launch_schema()):
        jsonschema.Draft202012Validator.check_schema(schema)
        assert schema["$schema"] == jsonschema.Draft202012Validator.META_SCHEMA["$id"]


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_a_shipped_study_is_valid_and_names_the_schema_that_is_kept(file: Path) -> None:
    text = file.read_text()
    assert why_not(text) == ""
    assert text.startswith(schema_line("schema/study.json") + "\n")
    assert (file.parent / "schema" / "study.json").is_file()


def test_studies_on_the_pages_are_valid() -> None:
    found = [(page.name, study) for page in PAGES for study in studies_of(page)]
    assert found
    assert {name: why for name, study in found if (why := why_not(study))} == {}


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (("study: demo\n", ""), "study"),
        (("study: demo", "study: a study"), "study"),
        (("task: text-sft", "task: vlm"), "task"),
        (("task: text-sft", "task: vlm-sft"), "data"),
        (("study: demo", "study: demo\nstudies: 2"), "studies"),
        (("base:", "quantisation: nf4, base:"), "quantisation"),
        (("base:", "quantization: int8, base:"), "quantization"),
        (("search:", "lora: {r: 0}\nsearch:"), "lora"),
        (("search:", "lora:\nsearch:"), "lora"),
        (("search:", "lora: {target_modules: []}\nsearch:"), "target_modules"),
        (("search:", "training: {gradient_accumulation_steps: 4}\nsearch:"), "gradient_accumulation_steps"),
        (("search:", "training: {micro_batch: all}\nsearch:"), "micro_batch"),
        (("search:", "objective: bertscore\nsearch:"), "objective"),
        (("search:", "objective: [loss, reward_margin]\nsearch:"), "objective"),
        (("search:", "evaluation: {metrics: [loss]}\nsearch:"), "metrics"),
        (("columns:", "image_size: [28], columns:"), "image_size"),
        (("columns:", "answers: {no: false}, columns:"), "answers"),
        (("columns:", "split: {column: fold, train: 1}, columns:"), "split"),
        (("columns:", "split: {column: fold, share: 0.1}, columns:"), "split"),
        (("search:", "search:\n  sampler: tpee"), "sampler"),
        (("search:", "search:\n  sampler: {startup_trials: 3}"), "sampler"),
        (("search:", "search:\n  sampler: {name: random, startup_trials: 3}"), "sampler"),
        (("search:", "search:\n  pruner: {name: hyperband, warmup_reports: 3}"), "pruner"),
        (("search:", "search:\n  limits: {until: 2026}"), "until"),
        (("lora.r:", "lora.rank:"), "rank"),
        (("[8, 16]", "[]"), "lora.r"),
        (("[8, 16]", "[8, many]"), "lora.r"),
        (("[8, 16]", "{low: 1.5, high: 8}"), "lora.r"),
        (("[8, 16]", "{low: 0, high: 8}"), "lora.r"),
        (("[8, 16]", "{low: 4}"), "lora.r"),
        (("lora.r: [8, 16]", "lora.target_modules: {low: 1, high: 2}"), "target_modules"),
        (("1e-4, log", "1e-4, step: 1e-6, log"), "learning_rate"),
        (("low: 1e-6", "low: 0"), "learning_rate"),
    ],
    ids=lambda value: str(value)[-40:],
)
def test_a_bad_file_is_refused_by_schema_and_loading(tmp_path: Path, change: tuple[str, str], key: str) -> None:
    assert change[0] in GOOD
    text = GOOD.replace(*change)
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(StudyFileErrors) as raised:
        load_study(tmp_path / "study.yaml")
    assert key in str(raised.value)
    assert key in why_not(text)


@pytest.mark.parametrize(
    "lines",
    [
        "objective: [loss, exact_match]",
        "objective: my_own\nevaluation: {metrics_text: 'def f(): pass'}",
        "training: {micro_batch: auto, evaluation_batch_size: 4, gradient_checkpointing: true}",
        "lora: {target_modules: [q_proj, v_proj]}",
        "head: {}\nsilence: {loading_minutes: 90}",
        "budget: {max_steps: null, memory_gib: 14.5}",
    ],
)
def test_short_forms_are_valid(lines: str) -> None:
    assert why_not(f"{GOOD}\n{lines}\n") == ""


@pytest.mark.parametrize(
    "searched",
    [
        "sampler: grid",
        "sampler: {name: gp, startup_trials: 3}\n  pruner: none",
        "pruner: {name: percentile, keep_percent: 50}",
        "limits: {until: 2026-12-24 08:00, cost: 10, price_per_device_hour: 2.5}",
        "limits: {until: '2026-12-24T08:00:00+01:00'}",
    ],
)
def test_short_forms_of_a_search_are_valid(tmp_path: Path, searched: str) -> None:
    text = GOOD.replace("search:", f"search:\n  {searched}").replace("{low: 1e-6, high: 1e-4, log: true}", "[1e-4]")
    (tmp_path / "study.yaml").write_text(text)
    load_study(tmp_path / "study.yaml")
    assert why_not(text) == ""


ODD: list[Any] = [
    0,
    1,
    -1,
    3,
    0.5,
    1.5,
    2e-4,
    "auto",
    "none",
    "linear",
    "x y",
    "",
    None,
    [],
    ["a"],
    [1, 2],
    {},
    {"a": 1},
]
RANGES: list[Any] = [{"low": a, "high": b} for a, b in [(0, 1), (1, 4), (0.1, 0.2), (-1, 8)]]
RANGES += [{"low": 1, "high": 4, "step": 0.5}, {"low": 1, "high": 4, "log": True}, [1, 0.5], ["auto"], [None], [[]]]


def draw(rng: random.Random) -> tuple[dict[str, Any], Any]:
    """The good file with an odd value somewhere, and the value."""
    raw, value = parsed(GOOD), rng.choice(ODD)
    if rng.random() < 0.4:
        value = rng.choice([*RANGES, *ODD])
        raw["search"]["space"][rng.choice([*KNOBS])] = value
        return raw, value
    place, model = raw, StudySpec
    while True:
        name = rng.choice([*model.model_fields])
        section = model.model_fields[name].annotation
        if not (isinstance(section, type) and issubclass(section, BaseModel)) or rng.random() < 0.1:
            place[name] = value
            return raw, value
        place, model = place.setdefault(name, {}), section


def mistakes(raw: dict[str, Any]) -> tuple[list[str], bool]:
    """Those of one field, which a schema can know, and whether there are others."""
    errors, others = [], []
    try:
        others = cross_mistakes(StudySpec.model_validate(raw))
    except ValidationError as error:
        errors = error.errors()
    space = raw["search"].get("space") if isinstance(raw["search"], dict) else None
    wrong = [knob for knob, value in space.items() if _misfits(knob, value)] if isinstance(space, dict) else []
    own = [str(error["loc"]) for error in errors if error["type"] != "value_error" or error["loc"] == ("task",)]
    return own + wrong, bool(errors or others)


def _misfits(knob: str, value: Any) -> bool:
    try:
        return bool(space_mistakes(knob, _PARAMETER.validate_python(value)))
    except ValidationError:
        return False  # reported with the others


def test_random_files_are_judged_alike() -> None:
    rng, judged = random.Random(0), {True: 0, False: 0}
    for _ in range(800):
        raw, value = draw(rng)
        (own, others), refused = mistakes(raw), [error.message for error in STUDY.iter_errors(raw)]
        if own:
            assert refused, (raw, own)
        elif refused and not others:
            assert value in (0, 1), (raw, refused)  # as truth values, which loading takes
        judged[not refused] += 1
    assert min(judged.values()) > 50


def test_every_field_is_explained_in_a_sentence() -> None:
    schema, engines = study_schema(), {name: engine.Options.model_fields for name, engine in ENGINES.items()}
    models = {"study": schema, **schema["$defs"]}
    fields = {
        f"{model}.{name}": field.get("description", "")
        for model, content in models.items()
        for name, field in content.get("properties", {}).items()
        if "const" not in field and model != "OtherSampler"
    }
    fields |= {
        f"{engine}.{name}": field.description or "" for engine, has in engines.items() for name, field in has.items()
    }
    assert len(fields) > 100
    poor = {name: about for name, about in fields.items() if not re.fullmatch(r"\S.{8,}\.", about)}
    assert poor == {}, "each has a description: a sentence, with a full stop at its end"


SITES = """\
lab: {on: slurm, workers: 8, time: 4h, partition: gpu, memory: 64G, gpus: 1}
cluster: {on: ray, address: "http://head:8265", gpus: 0.5, memory: 8G}
here: {on: local, workers: 2}
any: {workers: 2, cpus: 4}
"""


def as_editors_read(text: str) -> Any:
    """In YAML 1.2 `on` is a text."""
    return {name: {"on" if k is True else k: v for k, v in site.items()} for name, site in yaml.safe_load(text).items()}


def test_sites_are_valid_for_schema_and_loading(tmp_path: Path) -> None:
    assert list(LAUNCH.iter_errors(as_editors_read(SITES))) == []
    (tmp_path / "launch.yaml").write_text(SITES)
    for site in ("lab", "cluster", "here"):
        choose_site(site, {}, tmp_path / "launch.yaml")


@pytest.mark.parametrize(
    "site",
    [
        "{on: slrum}",
        "{on: local, partition: gpu}",
        "{on: slurm, partiton: gpu}",
        "{on: slurm, time: 4 hours}",
        "{on: slurm, time: 240}",
        "{on: slurm, memory: 64}",
        "{on: ray, memory: 64 GB}",
        "{on: ray, gpus: -1}",
        "{on: slurm, cpus: 0}",
        "{on: local, workers: 0}",
    ],
)
def test_a_bad_site_is_refused_by_schema_and_loading(tmp_path: Path, site: str) -> None:
    text = f"lab: {site}\n"
    (tmp_path / "launch.yaml").write_text(text)
    with pytest.raises(InputError):
        choose_site("lab", {}, tmp_path / "launch.yaml")
    assert list(LAUNCH.iter_errors(as_editors_read(text)))


def test_the_command_prints_either_or_writes_it(tmp_path: Path) -> None:
    runner = CliRunner()
    assert runner.invoke(app, ["schema"]).stdout == as_text(study_schema())
    file = tmp_path / "new" / "launch.json"
    told = runner.invoke(app, ["schema", "launch", "-o", str(file)])
    assert file.read_text() == as_text(launch_schema())
    assert schema_line("launch.json") in told.stdout
