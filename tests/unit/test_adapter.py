"""Going on from an adapter, before anything is trained: found, looked at, checked against the study, and kept to."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from hpsearch.adapter import checksum, read_adapter
from hpsearch.errors import FieldError, StudyFileErrors
from hpsearch.results.best import Best, as_command
from hpsearch.results.card import model_card
from hpsearch.spec import StudyFile, dump_study, load_study
from hpsearch.study.adapter import with_adapter
from tests.unit.answer_fixtures import trained
from tests.unit.opening_fixtures import Desk, inspecting
from tests.unit.worker_fixtures import nobody, plays

LAYER = "base_model.model.model.layers.0.self_attn"
OTHER_SPACE = "search.space={training.learning_rate: [1e-4, 2e-4]}"


def write_adapter(folder: Path, *, names: tuple[str, ...] = ("q_proj", "v_proj"), **config: Any) -> Path:
    """As peft writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = {
        "peft_type": "LORA",
        "base_model_name_or_path": None,
        "r": 8,
        "lora_alpha": 24,
        "lora_dropout": 0.1,
        "target_modules": list(names),
        "bias": "none",
        **config,
    }
    (folder / "adapter_config.json").write_text(json.dumps(whole))
    layers = [f"{LAYER}.{name}.lora_{side}.weight" for name in names for side in "AB"]
    save_file({layer: np.ones((2, 2), np.float32) for layer in layers}, folder / "adapter_model.safetensors")
    return folder


def file_of(desk: Desk, adapter: str, *overrides: str) -> StudyFile:
    return desk.file(f"model.adapter={adapter}", "lora={}", OTHER_SPACE, *overrides)


def refused(desk: Desk, adapter: str, *overrides: str) -> dict[str, str]:
    with pytest.raises(StudyFileErrors) as raised:
        with_adapter(file_of(desk, adapter, *overrides), desk.storage)
    return {mistake.key: mistake.message for mistake in raised.value.mistakes}


class TestWhatItIsLike:
    def test_the_study_has_the_adapter_s_values(self, desk: Desk) -> None:
        folder = write_adapter(desk.folder / "old", use_rslora=True)
        spec = with_adapter(file_of(desk, "./old"), desk.storage).spec
        assert spec.model.adapter == str(folder)
        assert spec.model.adapter_sha256 == checksum(folder)
        lora = spec.lora
        assert (lora.r, lora.alpha, lora.dropout, lora.rslora, lora.vision) == (8, 24, 0.1, True, False)
        assert lora.target_modules == ["q_proj", "v_proj"]

    def test_a_pattern_of_layers_is_shown_as_the_layers(self, desk: Desk) -> None:
        write_adapter(desk.folder / "old", target_modules=r".*\.(q|v)_proj")
        assert with_adapter(file_of(desk, "old"), desk.storage).spec.lora.target_modules == ["q_proj", "v_proj"]

    def test_the_dropout_may_be_the_study_s(self, desk: Desk) -> None:
        write_adapter(desk.folder / "old")
        file = file_of(desk, "old", "lora={dropout: 0.3, r: 8, target_modules: [v_proj, q_proj]}")
        assert with_adapter(file, desk.storage).spec.lora.dropout == 0.3

    def test_what_contradicts_it_is_reported_with_its_line(self, desk: Desk) -> None:
        write_adapter(desk.folder / "old")
        found = refused(desk, "old", "lora={r: 16, alpha: 24, target_modules: all-linear, vision: true}")
        words = "in the adapter, which training continues unchanged, not"
        assert found == {
            "lora.r": f"is 8 {words} 16: leave it out",
            "lora.target_modules": f"is ['q_proj', 'v_proj'] {words} all-linear: leave it out",
            "lora.vision": f"is False {words} True: leave it out",
        }

    @pytest.mark.parametrize(
        ("overrides", "key", "words"),
        [
            (["search.space.lora.r=[8, 16]"], "search.space.lora.r", "is fixed by the adapter: "),
            (["search.space.model.base=[a/b, c/d]"], "search.space.model.base", "model.adapter belongs to one base"),
            (["search.space.model.adapter=[x, y]"], "search.space.model.adapter", "there is no such field to search"),
            (["model.adapter=null", "model.adapter_revision=main"], "model.adapter_revision", "has no effect without"),
        ],
    )
    def test_what_no_trial_can_have(self, desk: Desk, overrides: list[str], key: str, words: str) -> None:
        with pytest.raises(StudyFileErrors) as raised:
            file_of(desk, "old", *overrides)
        ((found, message),) = [(mistake.key, mistake.message) for mistake in raised.value.mistakes]
        assert found == key
        assert message.startswith(words)

    def test_its_dropout_may_be_searched(self, desk: Desk) -> None:
        write_adapter(desk.folder / "old")
        file = file_of(desk, "old", "search.space.lora.dropout=[0.0, 0.1]")
        assert with_adapter(file, desk.storage).spec.with_values({"lora.dropout": 0.0}).lora.dropout == 0.0


class TestWhereItLies:
    def test_a_final_run_is_known_by_name_and_by_path(self, desk: Desk) -> None:
        """Its study said which layers, in its own words."""
        run = trained(desk, "lora={r: 8, alpha: 24, target_modules: all-linear}")
        folder = write_adapter(run.adapter)
        for name in ("demo", "storage/runs/demo", "storage/runs/demo/adapter", str(run.path)):
            spec = with_adapter(file_of(desk, name, "lora.target_modules=all-linear"), desk.storage).spec
            assert (spec.model.adapter, spec.lora.target_modules) == (str(folder), "all-linear")

    def test_a_run_that_has_not_ended_is_none_yet(self, desk: Desk) -> None:
        run = trained(desk)
        write_adapter(run.adapter)
        run.result.unlink()
        assert "not complete" in refused(desk, "demo")["model.adapter"]

    @pytest.mark.parametrize("name", ["no-such-run", "./gone", "/gone/adapter", "a/b/c"])
    def test_what_is_nowhere(self, desk: Desk, name: str) -> None:
        message = refused(desk, name)["model.adapter"]
        assert message.startswith(f"{name!r}: there is no folder /")
        assert "on this machine, and no final run of that name in " in message

    def test_a_name_of_the_hub_that_is_out_of_reach(self, desk: Desk) -> None:
        message = refused(desk, "someone/some-adapter", "model.adapter_revision=v1")["model.adapter"]
        assert message.startswith("'someone/some-adapter' can't be downloaded from the hub: ")

    def test_a_name_of_the_hub(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = write_adapter(desk.folder / "downloaded")
        asked: list[tuple[str, Any]] = []

        def download(name: str, *, revision: str | None, **_: Any) -> str:
            asked.append((name, revision))
            return str(folder)

        monkeypatch.setattr("huggingface_hub.snapshot_download", download)
        spec = with_adapter(file_of(desk, "someone/some-adapter", "model.adapter_revision=v1"), desk.storage).spec
        assert spec.model.adapter == "someone/some-adapter"
        assert spec.model.adapter_sha256 == checksum(folder)
        assert asked == [("someone/some-adapter", "v1")]


class TestWhatCanNotBeContinued:
    @pytest.mark.parametrize(
        ("config", "words"),
        [
            ({"peft_type": "IA3"}, "is no LoRA adapter, but of type IA3"),
            ({"use_dora": True}, "training can't continue from it: it is a DoRA adapter"),
            ({"modules_to_save": ["lm_head"]}, "it has full layers besides LoRA (modules_to_save)"),
            ({"bias": "all"}, "it trained the layers' biases as well"),
            ({"init_lora_weights": "pissa"}, "it was begun by pissa, which changes the base"),
            ({"lora_alpha": 0.5}, "a study can't say its alpha, 0.5"),
        ],
        ids=lambda case: str(case) if isinstance(case, dict) else "",
    )
    def test_the_reason_is_given(self, desk: Desk, config: dict[str, Any], words: str) -> None:
        write_adapter(desk.folder / "old", **config)
        assert words in refused(desk, "old")["model.adapter"]

    def test_a_folder_without_one(self, desk: Desk) -> None:
        (desk.folder / "old").mkdir()
        assert "has no adapter_config.json" in refused(desk, "old")["model.adapter"]

    def test_weights_that_are_a_pickle(self, desk: Desk) -> None:
        folder = write_adapter(desk.folder / "old")
        (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
        assert "load it with peft and save it again" in refused(desk, "old")["model.adapter"]

    def test_torn_files(self, desk: Desk) -> None:
        folder = write_adapter(desk.folder / "old")
        (folder / "adapter_model.safetensors").write_bytes(b"\x08")
        assert "can't be read" in refused(desk, "old")["model.adapter"]
        (folder / "adapter_config.json").write_text("{")
        assert "can't be read" in refused(desk, "old")["model.adapter"]

    def test_other_weights_than_lora_s(self, desk: Desk) -> None:
        folder = write_adapter(desk.folder / "old")
        save_file({"base_model.model.lm_head.weight": np.ones(2)}, folder / "adapter_model.safetensors")
        with pytest.raises(FieldError, match=r"it holds base_model\.model\.lm_head\.weight besides LoRA"):
            read_adapter(folder)

    @pytest.mark.parametrize(
        ("recorded", "base", "fits"),
        [
            ("Qwen/Qwen2.5-0.5B-Instruct", "Qwen/Qwen2.5-0.5B", False),
            ("unsloth/qwen2.5-0.5b-unsloth-bnb-4bit", "Qwen/Qwen2.5-0.5B", True),
            ("/home/me/bases/qwen", "Qwen/Qwen2.5-0.5B", True),
            ("Qwen/Qwen2.5-0.5B", "tiny:qwen2", False),
            ("Qwen/Qwen2.5-0.5B", "./base", True),
        ],
    )
    def test_names_of_bases_that_surely_differ(self, desk: Desk, recorded: str, base: str, fits: bool) -> None:
        write_adapter(desk.folder / "old", base_model_name_or_path=recorded)
        (desk.folder / "base").mkdir()
        if fits:
            with_adapter(file_of(desk, "old", f"model.base={base}"), desk.storage)
        else:
            found = refused(desk, "old", f"model.base={base}")["model.adapter"]
            assert f"is an adapter of {recorded}, not of {base}; " in found


class TestPartOfTheStudy:
    def opened(self, desk: Desk) -> None:
        write_adapter(desk.folder / "old")
        desk.open("model.adapter=old", "lora={}", OTHER_SPACE, start=plays(inspecting()))

    def test_a_changed_adapter_is_refused_in_words(self, desk: Desk) -> None:
        self.opened(desk)
        write_adapter(desk.folder / "old", lora_alpha=48)
        with pytest.raises(StudyFileErrors) as raised:
            desk.open("model.adapter=old", "lora={}", OTHER_SPACE)
        ((key, message),) = [(mistake.key, mistake.message) for mistake in raised.value.mistakes]
        assert key == "model.adapter"
        assert "is not the adapter that study 'demo' began with: it has changed since" in message

    def test_a_place_may_change(self, desk: Desk) -> None:
        self.opened(desk)
        shutil.move(desk.folder / "old", desk.folder / "elsewhere")
        moved = desk.open("model.adapter=elsewhere", "lora={}", OTHER_SPACE, start=nobody)
        assert moved.trial_config(0, {}).model.adapter == str(desk.folder / "elsewhere")

    def test_rows_that_the_adapter_has_learned_are_reported(self, desk: Desk) -> None:
        run = trained(desk, "lora={r: 8, alpha: 24}")
        write_adapter(run.adapter)
        wanted = ("model.adapter=demo", "lora={}", OTHER_SPACE)
        assert desk.open("study=same", *wanted, start=plays(inspecting())).manifest.notes == []
        (note,) = desk.open("study=other", *wanted, "data.split.seed=1", start=plays(inspecting())).manifest.notes
        assert note.startswith("model.adapter was trained on ")
        assert note.endswith(" test rows: take its split, seed or data.held_out")

    def test_another_machine_may_have_the_adapter_without_its_run(self, desk: Desk) -> None:
        """The run calls its layers all-linear, the adapter by their names."""
        run = trained(desk, "lora={r: 8, alpha: 24, target_modules: all-linear}")
        write_adapter(run.adapter)
        study = ("study=next", "lora={}", OTHER_SPACE)
        first = desk.open("model.adapter=demo", *study, start=plays(inspecting()))
        copied = shutil.copytree(run.adapter, desk.folder / "copied")
        desk.open(f"model.adapter={copied}", *study, start=nobody, joins=True)
        best = desk.folder / "best.yaml"
        best.write_text(dump_study(first.spec))
        spec = with_adapter(load_study(best, [f"model.adapter={copied}"]), desk.storage).spec
        assert (spec.model.adapter, spec.lora) == (str(copied), first.spec.lora)

    def test_a_worker_that_does_not_find_it_says_so(self, desk: Desk) -> None:
        self.opened(desk)
        shutil.rmtree(desk.folder / "old")
        with pytest.raises(StudyFileErrors, match=r"there is no folder .*old on this machine"):
            desk.open("model.adapter=old", "lora={}", OTHER_SPACE, joins=True)

    def test_trials_know_it(self, desk: Desk) -> None:
        self.opened(desk)
        config = desk.open("model.adapter=old", "lora={}", OTHER_SPACE).trial_config(0, {"training.learning_rate": 1})
        assert config.model.adapter_sha256 == checksum(desk.folder / "old")
        assert (config.lora.r, config.lora.alpha) == (8, 24)

    def test_the_final_run_and_its_card_name_it(self, desk: Desk, tmp_path_factory: pytest.TempPathFactory) -> None:
        folder = write_adapter(tmp_path_factory.mktemp("elsewhere") / "old")
        run = trained(desk, f"model.adapter={folder}", "lora={}")
        kept = load_study(run.study).spec
        assert (kept.model.adapter, kept.model.adapter_sha256) == (str(folder), checksum(folder))
        assert with_adapter(load_study(run.study), desk.storage).spec == kept
        command = as_command(Best(kept, None, {}, kept, run.study))  # type: ignore[arg-type]
        assert f"""--set 'model.adapter="{folder}"'""" in command
        assert f"""--set 'model.adapter_sha256="{checksum(folder)}"'""" in command
        assert "by hpsearch, from the adapter `old`." in model_card(run, "adapter")
