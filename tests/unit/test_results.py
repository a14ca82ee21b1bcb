"""The best parameters: which trial is chosen, and that each form of it says the whole truth."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpsearch.errors import InputError
from hpsearch.results.best import Best, as_command, as_json, as_yaml, choose
from hpsearch.spec import dump_study, load_study
from hpsearch.spec.data import DataSpec
from hpsearch.spec.study import changes
from hpsearch.spec.tasks import SECTIONS, TASKS, Section
from hpsearch.spec.training import BudgetSpec
from hpsearch.trial import Outcome
from tests.unit.worker_fixtures import MANIFEST, Demo, MakeDemo, Play, ends, ledger, plays, study_spec

SPACE: dict[str, Any] = {
    "training.learning_rate": {"low": 1e-6, "high": 1e-3, "log": True},
    "training.gradient_checkpointing": [True, False],
    "lora.r": [8, 16],
    "lora.dropout": {"low": 0.0, "high": 0.1, "step": 0.05},
    "lora.target_modules": ["all-linear", ["q_proj", "v_proj"]],
    "model.dtype": ["bfloat16", "float32"],
}
CHOSEN: dict[str, Any] = {
    "training.learning_rate": 2e-5,
    "training.gradient_checkpointing": False,
    "lora.r": 8,
    "lora.dropout": 0.05,
    "lora.target_modules": ["q_proj", "v_proj"],
    "model.dtype": "float32",
}


def worked_on(demo: Demo, *plays_of_trials: Play) -> Demo:
    worker = demo.worker(plays(*plays_of_trials))
    for _ in plays_of_trials:
        worker.step()
    return demo


@pytest.fixture
def searched(make_demo: MakeDemo, tmp_path: Path) -> Demo:
    """A study over many kinds of knobs whose only trial has the CHOSEN values."""
    (tmp_path / "rows.jsonl").touch()
    changes = {"data": {"source": "rows.jsonl", "image_size": [28, 28]}, "description": "50 %: größer, ja"}
    demo = make_demo(spec=changes, space=SPACE)
    demo.enqueue(CHOSEN | {"lora.target_modules": json.dumps(CHOSEN["lora.target_modules"])})
    return worked_on(demo, ends(Outcome.COMPLETE, 0.5))


def test_the_best_is_the_complete_trial_with_the_lowest_loss(demo: Demo) -> None:
    complete = Outcome.COMPLETE
    worked_on(demo, ends(complete, 2.0, 1.7), ends(complete, 1.5, 3.0), ends(Outcome.PRUNED, 0.1), ends(complete, 1.6))
    best = choose(demo.view, None)
    assert (best.trial.number, best.trial.value) == (1, 1.5)
    assert best.values == demo.trials[1].params
    assert best.final.training.learning_rate == demo.trials[1].params["training.learning_rate"]


def test_a_trial_can_be_chosen_by_its_number(demo: Demo) -> None:
    worked_on(demo, ends(Outcome.COMPLETE, 1.0), ends(Outcome.FAILED))
    assert choose(demo.view, 1).values == demo.trials[1].params
    with pytest.raises(InputError, match=r"study 'demo' has no trial 2; it has trials 0 to 1"):
        choose(demo.view, 2)


def test_a_trial_that_needs_too_much_memory_is_not_the_best(make_demo: MakeDemo) -> None:
    demo = make_demo(spec={"budget": {"reports": 3, "memory_gib": 16}})
    large, small = (ends(Outcome.COMPLETE, loss, ledger=ledger(gib)) for loss, gib in ((1.0, 24), (2.0, 15.9)))
    worked_on(demo, large, small)
    assert choose(demo.view, None).trial.number == 1
    assert choose(demo.view, 0).trial.value == 1.0


@pytest.mark.parametrize(
    ("trials", "found"),
    [([], "none begun"), ([ends(Outcome.FAILED), ends(Outcome.PRUNED, 1.0)], "failed, pruned")],
)
def test_no_complete_trial_is_said_with_what_there_is(demo: Demo, trials: list[Any], found: str) -> None:
    worked_on(demo, *trials)
    with pytest.raises(InputError, match=rf"study 'demo' has no complete trial yet \({found}\); see `hpsearch status`"):
        choose(demo.view, None)


def test_the_final_study_has_the_values_the_data_and_nothing_left_to_search(searched: Demo, tmp_path: Path) -> None:
    best = choose(searched.view, None)
    assert best.values == CHOSEN
    assert best.final.search is None
    assert {knob: best.final.value(knob) for knob in CHOSEN} == CHOSEN
    assert best.final.data.source == str(tmp_path / "rows.jsonl")
    assert best.final.data.manifest == MANIFEST.sha256
    assert best.final.final == searched.study.spec.final


def test_the_yaml_form_loads_again_as_the_final_study(searched: Demo, tmp_path: Path) -> None:
    best = choose(searched.view, None)
    file = tmp_path / "elsewhere.yaml"
    file.write_text(as_yaml(best))
    assert load_study(file).spec == best.final
    assert "# Trial 0 of study demo: validation loss 0.500000" in file.read_text()
    by_steps = replace(best, study=best.study.model_copy(update={"budget": BudgetSpec(max_steps=30)}))
    assert "# Its budget: 30 optimizer steps.\n" in as_yaml(by_steps)


def test_the_json_form_says_the_same(searched: Demo) -> None:
    best = choose(searched.view, None)
    said = json.loads(as_json(best))
    assert (said["study"], said["number"], said["values"], said["params"]) == ("demo", 0, {"loss": 0.5}, CHOSEN)
    assert type(best.final).model_validate(said["final"]) == best.final


def overrides_of(command: str) -> dict[str, str]:
    """KEY=VALUE of every --set, as a shell hands them to `hpsearch`."""
    shell = "hpsearch() { printf '%s\\0' \"$@\"; }\n"
    heard = subprocess.run(["sh", "-c", shell + command], capture_output=True, text=True, check=True).stdout
    verb, file, flag, *sets = heard.split("\0")[:-1]
    assert (verb, Path(file).name, flag) == ("train", "demo.yaml", "--no-search")
    assert sets[::2] == ["--set"] * (len(sets) // 2)
    return dict(override.split("=", 1) for override in sets[1::2])


def test_the_shell_form_names_every_knob_of_the_task(searched: Demo) -> None:
    best = choose(searched.view, None)
    assert len(best.final.knobs) >= 20
    assert set(overrides_of(as_command(best))) >= set(best.final.knobs)


@pytest.mark.parametrize("form", [as_yaml, as_json, as_command], ids=lambda form: form.__name__)
def test_no_form_has_the_sections_of_other_tasks(searched: Demo, form: Callable[[Best], str]) -> None:
    text = form(choose(searched.view, None))
    assert {name: name in text for name in ("lora", *SECTIONS)} == {"lora": True} | dict.fromkeys(SECTIONS, False)


@pytest.mark.parametrize("section", sorted(SECTIONS))
def test_every_form_keeps_the_sections_of_its_task(section: Section) -> None:
    task = next(name for name, task in TASKS.items() if section in task.sections)
    spec = study_spec(spec={"task": task})
    assert section not in spec.foreign_sections
    assert f"\n{section}:" in dump_study(spec)


def test_a_file_of_an_earlier_version_with_every_section_is_the_same_study(searched: Demo, tmp_path: Path) -> None:
    best = choose(searched.view, None)
    whole = yaml.safe_load(as_yaml(best)) | {name: getattr(best.final, name).model_dump() for name in SECTIONS}
    (tmp_path / "older.yaml").write_text(yaml.safe_dump(whole))
    assert not changes(load_study(tmp_path / "older.yaml").spec, best.final)


def test_the_shell_form_keeps_the_words_of_the_data(searched: Demo, tmp_path: Path) -> None:
    best = choose(searched.view, None)
    words = {"answers": {"0.5": "half", "x=y": "the same"}, "labels": {"a.b": None, "c": "d"}}
    columns = {"question": "q", "answer": "a", "label": "l"}
    data = DataSpec.model_validate({**best.final.data.model_dump(), "columns": columns, **words})
    best = replace(best, final=best.final.model_copy(update={"data": data}))
    file = tmp_path / "demo.yaml"
    file.write_text(yaml.safe_dump(searched.study.spec.model_dump(mode="json")))
    sets = [f"{knob}={value}" for knob, value in overrides_of(as_command(best)).items()]
    assert load_study(file, sets).spec.data == data


def test_the_shell_form_gives_the_same_training(searched: Demo, tmp_path: Path) -> None:
    best = choose(searched.view, None)
    file = tmp_path / "demo.yaml"
    file.write_text(yaml.safe_dump(searched.study.spec.model_dump(mode="json")))
    sets = [f"{knob}={value}" for knob, value in overrides_of(as_command(best)).items()]
    spec = load_study(file, sets).spec
    assert (spec.training, spec.lora, spec.model, spec.final) == (
        best.final.training,
        best.final.lora,
        best.final.model,
        best.final.final,
    )


def test_a_loss_of_zero_is_the_best_there_is(demo: Demo) -> None:
    worked_on(demo, ends(Outcome.COMPLETE, 1.0), ends(Outcome.COMPLETE, 0.0))
    assert choose(demo.view, None).trial.number == 1


def test_complete_trials_that_all_need_too_much_memory_are_said_to_be_so(make_demo: MakeDemo) -> None:
    demo = make_demo(spec={"budget": {"reports": 3, "memory_gib": 16}})
    worked_on(demo, ends(Outcome.COMPLETE, 1.0, ledger=ledger(24)))
    with pytest.raises(InputError, match="memory"):
        choose(demo.view, None)


def test_a_number_in_a_study_without_trials_is_answered_in_words(demo: Demo) -> None:
    with pytest.raises(InputError, match="no trial 0") as raised:
        choose(demo.view, 0)
    assert "-1" not in str(raised.value)


def test_names_that_look_like_numbers_survive_the_yaml_form(make_demo: MakeDemo, tmp_path: Path) -> None:
    demo = make_demo(spec={"model": {"base": "tiny:qwen2", "revision": "1e5"}})
    best = choose(worked_on(demo, ends(Outcome.COMPLETE, 1.0)).view, None)
    (tmp_path / "best.yaml").write_text(as_yaml(best))
    assert load_study(tmp_path / "best.yaml").spec.model.revision == "1e5"


def test_the_shell_form_names_a_searched_knob_that_is_none(make_demo: MakeDemo) -> None:
    model = {"base": "tiny:qwen2", "revision": "v2"}
    demo = make_demo(spec={"model": model}, space={"model.revision": [None, "v2"]})
    demo.enqueue({"model.revision": None})
    best = choose(worked_on(demo, ends(Outcome.COMPLETE, 1.0)).view, None)
    assert overrides_of(as_command(best))["model.revision"] == "null"


def test_a_spec_for_tests_is_what_a_person_could_write(tmp_path: Path) -> None:
    (tmp_path / "demo.yaml").write_text(yaml.safe_dump(study_spec().model_dump(mode="json", exclude_none=True)))
    assert load_study(tmp_path / "demo.yaml").spec == study_spec()
