"""Pushing to the hub, up to the hub's own client, and the card that goes along."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import yaml
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from hpsearch.cli import main
from hpsearch.errors import HpsearchError, InputError
from hpsearch.results.card import _table, model_card
from hpsearch.results.evaluate import EvaluationOptions, evaluate_run
from hpsearch.results.final import RunFolder
from hpsearch.store import Store
from hpsearch.trial import Outcome
from tests.unit.answer_fixtures import answering
from tests.unit.export_fixtures import exported, merging, run_with_adapter
from tests.unit.opening_fixtures import Desk
from tests.unit.worker_fixtures import MakeDemo, ends, nobody, plays


class FakeHub:
    """The part of huggingface_hub.HfApi that is used; remembers the calls, and the files as they came."""

    def __init__(self) -> None:
        self.repos: set[str] = set()
        self.created: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.ignored: list[str] = []
        self.tokens: set[str] = set()
        self.error: Exception | None = None

    def __call__(self, token: str) -> FakeHub:
        self.tokens.add(token)
        return self

    def whoami(self) -> dict[str, str]:
        return {"name": "me"}

    def repo_exists(self, repo_id: str) -> bool:
        if self.error:
            raise self.error
        return repo_id in self.repos

    def create_repo(self, repo_id: str, **options: Any) -> str:
        assert repo_id not in self.repos or options["exist_ok"]
        self.repos.add(repo_id)
        self.created.append(options)
        return f"https://huggingface.co/{repo_id}"

    def upload_folder(
        self, *, repo_id: str, folder_path: Path, commit_message: str, ignore_patterns: list[str]
    ) -> None:
        assert repo_id in self.repos
        assert commit_message
        self.ignored = ignore_patterns
        self.files = {
            file.name: file.read_bytes() for file in Path(folder_path).iterdir() if file.name not in ignore_patterns
        }


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub()
    monkeypatch.setattr(huggingface_hub, "HfApi", fake)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_secret")
    return fake


@pytest.fixture
def folder(desk: Desk) -> RunFolder:
    return run_with_adapter(desk)


def front_matter(card: str) -> dict[str, Any]:
    content = yaml.safe_load(card.split("---\n")[1])
    assert isinstance(content, dict)
    return content


def test_the_adapter_is_pushed_with_the_studys_card(desk: Desk, folder: RunFolder, hub: FakeHub) -> None:
    told = exported(desk, folder, nobody, to="hub", repo="me/demo")
    assert told == "pushed the adapter with its model card: https://huggingface.co/me/demo"
    assert set(hub.files) == {"adapter_model.safetensors", "adapter_config.json", "README.md"}
    assert hub.created == [{"private": None, "exist_ok": False}]
    assert hub.tokens == {"hf_secret"}
    assert json.loads(hub.files["adapter_config.json"]) == {"base_model_name_or_path": "tiny:qwen2", "r": 8}
    assert front_matter(hub.files["README.md"].decode())["library_name"] == "peft"
    assert (folder.adapter / "README.md").read_text() == "peft's card"


def test_the_merged_model_is_pushed_where_that_is_said(desk: Desk, folder: RunFolder, hub: FakeHub) -> None:
    exported(desk, folder, plays(merging()), to="hub", repo="demo", merged=True, private=True)
    assert hub.repos == {"me/demo"}
    assert hub.created[0]["private"] is True
    assert set(hub.files) == {"model.safetensors", "README.md"}
    card = hub.files["README.md"].decode()
    assert front_matter(card)["library_name"] == "transformers"
    assert "the logits differ from base and adapter by at most 0.01" in card


def test_a_repository_that_is_there_is_pushed_over_by_force_alone(desk: Desk, folder: RunFolder, hub: FakeHub) -> None:
    hub.repos.add("me/demo")
    with pytest.raises(
        InputError, match="me/demo is on the hub already: overwrite it with --force, or choose another --r"
    ):
        exported(desk, folder, nobody, to="hub", repo="demo", merged=True)
    assert hub.files == {}
    exported(desk, folder, nobody, to="hub", repo="demo", force=True)
    assert hub.files


def test_without_a_token_the_words_say_how_to_get_one(
    desk: Desk, folder: RunFolder, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(
        InputError, match="there is no token for the hub: hf auth login, or HF_TOKEN in the environment"
    ):
        exported(desk, folder, nobody, to="hub", repo="me/demo")
    with pytest.raises(InputError, match="--repo is missing"):
        exported(desk, folder, nobody, to="hub")
    assert hub.tokens == set()


@pytest.mark.parametrize(
    "error",
    [
        OfflineModeIsEnabled("no network\nat all"),
        HfHubHTTPError("no network", response=SimpleNamespace(headers={}, request=None)),  # type: ignore[arg-type]
        RuntimeError("no network"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_hub_that_refuses_is_quoted(desk: Desk, folder: RunFolder, hub: FakeHub, error: Exception) -> None:
    hub.error = error
    with pytest.raises(HpsearchError, match=r"^the hub refused me/demo: no network$") as raised:
        exported(desk, folder, nobody, to="hub", repo="me/demo")
    assert raised.value.exit_code == 1
    assert "hf_secret" not in str(raised.value)


def test_a_name_that_is_none_is_the_persons_mistake(
    desk: Desk, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the real client, which looks at the name before it asks anybody."""
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_secret")
    with pytest.raises(InputError, match="--repo: "):
        exported(desk, folder, nobody, to="hub", repo="me/not a name")


def test_a_card_tells_data_values_and_versions(desk: Desk, folder: RunFolder) -> None:
    card = model_card(folder, "adapter")
    assert "`rows.jsonl`, split once" in card
    assert str(desk.folder) not in card, "folders of whoever trained it"
    assert "| train | 16 |" in card
    assert "| lora.r | 16 |" in card
    assert "head." not in card
    assert "| transformers | " in card
    assert "Not evaluated on the test rows yet." in card
    assert "## Search" not in card
    assert front_matter(card)["tags"] == ["hpsearch", "lora", "qlora"]
    assert "base_model" not in front_matter(card), "the hub knows no tiny:qwen2"


def test_a_card_tells_scores_with_their_intervals(desk: Desk) -> None:
    folder = run_with_adapter(desk, "model.base=Qwen/Qwen2.5-0.5B", "evaluation.metrics=[exact_match]")
    evaluate_run(folder, EvaluationOptions(), desk.storage, plays(answering()), desk.tell)
    card = model_card(folder, "merged")
    assert "| exact match | 0.0% | 0.0% | 100.0% |" in card
    assert "On 2 test rows that no trial has seen; 2 rows are too few for intervals. Most frequent" in card
    front = front_matter(card)
    assert front["base_model"] == "Qwen/Qwen2.5-0.5B"
    (result,) = front["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "exact_match", "value": 1.0}]


def test_a_card_tells_what_its_intervals_are_resampled_over(desk: Desk) -> None:
    desk.write_rows([{"q": f"question {number}", "a": str(number % 2)} for number in range(100)])
    folder = run_with_adapter(desk, "evaluation.metrics=[exact_match, token_f1]")
    evaluate_run(folder, EvaluationOptions(), desk.storage, plays(answering()), desk.tell)
    card = model_card(folder, "merged")
    assert "in brackets 95 % bootstrap intervals, resampled over 10 rows. Where each draw of 10 rows gives" in card
    assert "| 100.0% |" in card
    assert "\n| exact match, " in card, "metrics with the same numbers are one row"


def test_a_card_tells_what_was_searched(folder: RunFolder, make_demo: MakeDemo) -> None:
    demo = make_demo()
    demo.worker(plays(ends(Outcome.COMPLETE, 0.5))).step()
    card = model_card(folder, "adapter", demo.view)
    assert "1 trials (1 complete); sampler random, pruner none; objective: loss on the validation rows" in card
    assert "| training.learning_rate | 1e-05 to 0.001, logarithmic | " in card
    assert "| lora.r | 8, 16 | " in card
    assert "The best trial reached a validation loss of 0.5000." in card


def test_the_command_tells_the_search_where_the_store_knows_it(
    desk: Desk, folder: RunFolder, make_demo: MakeDemo, empty_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_demo().worker(plays(ends(Outcome.COMPLETE, 0.5))).step()
    monkeypatch.setenv("HPSEARCH_STORAGE", str(desk.storage.path))
    monkeypatch.setenv("HPSEARCH_STORE", empty_store.url.render_as_string())
    monkeypatch.setattr("hpsearch.bridge.trainer_process.TrainerProcess", lambda *_: plays(merging())())
    monkeypatch.setattr(sys, "argv", ["hpsearch", "export", str(folder.path), "--to", "merged"])
    with pytest.raises(SystemExit) as exited:
        main()
    assert exited.value.code == 0
    assert "1 trials (1 complete)" in (folder.exports / "merged-bfloat16" / "README.md").read_text()


def test_a_card_quotes_the_system_prompt_line_by_line(desk: Desk) -> None:
    folder = run_with_adapter(desk, 'data.system_prompt="Be short.\\nBe kind."', "description=a --- b")
    card = model_card(folder, "adapter")
    assert "> Be short.\n> Be kind." in card
    assert front_matter(card)["library_name"] == "peft"


def test_what_would_end_a_cell_does_not() -> None:
    assert _table(["a|b"], [["c\nd"]]).splitlines() == ["| a\\|b |", "| --- |", "| c d |"]
