"""The benchmarks run: one of them for real, all of them by name; the race and the card's on stand-ins."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from bench import cli_start
from bench.__main__ import main
from bench.comparison import Comparison, NotMeasured
from bench.gpu import __main__ as on_card
from bench.gpu import process
from bench.gpu.figures import WHAT, from_line, not_measured
from bench.gpu.part import measure_of
from bench.gpu.shapes import GEMMA3_4B, QWEN_2_5_HALF_B, QWEN_2_5_VL_7B, Shape
from bench.gpu.steps import prediction
from bench.race import race
from bench.race.racers import OURS, Racer, Seen, racers
from bench.race.setting import Setting, rows_of
from bench.results import write_section
from hpsearch.trial import GIB
from tests.conftest import REPOSITORY


def bench(*names: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", *names]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False)


def test_the_quickest_one_prints_its_ratio(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cli_start, "NUM_PAIRS", 1)
    monkeypatch.setattr(sys, "argv", ["bench", "cli_start"])
    assert main() == 0
    assert "import torch" in capsys.readouterr().out


def test_an_unknown_one_is_reported_with_those_that_there_are() -> None:
    done = bench("cli_strat")
    assert done.returncode != 0
    assert "cli_start" in done.stdout + done.stderr


def test_each_section_of_the_results_is_replaced_alone(tmp_path: Path) -> None:
    file = tmp_path / "RESULTS.md"
    write_section(file, "one", ["a machine"], ["measured", "found"], [["x", "1"]], ["trial 1: 2 s"])
    write_section(file, "other", ["another"], ["measured", "found"], [["y", "a | b"]])
    write_section(file, "one", ["a machine"], ["measured", "found"], [["x", "3"]])
    text = file.read_text()
    assert text.count("## one") == text.count("## other") == 1
    assert "| x | 3 |" in text
    assert "| x | 1 |" not in text
    assert "| y | a / b |" in text


SETTING = Setting("tiny", "base", 28, train_rows=8, validation_rows=4, steps=8, gradient_checkpointing=False, trials=3)


class TestRace:
    def seen(self) -> dict[str, Seen]:
        whole, pruned = [0.9, 0.8, 0.7, 0.6], [0.9, 0.8]
        return {
            OURS: Seen(1.0, [2.0, 1.0, 1.0], [whole, pruned, whole], [3.0, 1.0, 2.0]),
            "other": Seen(2.0, [5.0, 4.0, 6.0], [whole, pruned, pruned], [3.0, 6.0, 6.0]),
        }

    def test_whole_studies_and_trials_without_the_first_are_compared(self) -> None:
        study, trials, processor, absent = race.findings(SETTING, self.seen(), {"third": "it is not here"})
        assert isinstance(study, Comparison)
        assert study.ratio() == "3.40×"
        assert "2,160 trials an hour, 20 steps done" in study.hpsearch.name
        assert isinstance(trials, Comparison)
        assert trials.ratio() == "5.00× (4.00 to 6.00)"
        assert isinstance(processor, Comparison)
        assert processor.ratio() == "4.50× (3.00 to 6.00)"
        assert isinstance(absent, NotMeasured)
        assert absent.why == "it is not here"

    def test_losses_are_shown_of_trials_that_everyone_trained_to_the_end(self) -> None:
        head, *trials = race.losses(SETTING, self.seen())
        assert OURS in head
        assert [line.split(",")[0].strip() for line in trials] == ["trial 1"]
        assert trials[0].endswith("0.60000  0.60000")

    def test_it_ends_before_its_time_is_over(self) -> None:
        said: list[str] = []
        runner: Any = SimpleNamespace(name=OURS, seen=Seen(), run_trial=lambda: runner.seen.seconds.append(1.0))
        race._take_turns([runner], SETTING, said.append, time.monotonic())
        assert len(runner.seen.seconds) == 1
        assert said[-1] == "out of time after 1 of 3 trials"

    def test_every_way_has_the_same_trials_and_rows(self, tmp_path: Path) -> None:
        SETTING.write(tmp_path)
        SETTING.write_rows(tmp_path)
        assert Setting.read(tmp_path) == SETTING
        assert Setting.read(tmp_path).points() == SETTING.points()
        assert [len(rows_of(tmp_path, split)) for split in ("train", "validation")] == [8, 4]

    def test_a_way_that_ends_early_says_its_last_words(self, tmp_path: Path) -> None:
        with (
            pytest.raises(RuntimeError, match=r"broken ended with exit code 1:\n.*No module named"),
            racers(tmp_path, {"broken": "no_such_way"}),
        ):
            pass

    def test_a_racer_says_what_its_trials_reported(self, tmp_path: Path) -> None:
        (tmp_path / "way").mkdir()
        SETTING.write(tmp_path)
        way = tmp_path / "standin.py"
        way.write_text(
            "from bench.race.lane import Lane\n"
            "lane = Lane()\nprint('noise')\nlane.ready()\nlane.wait_for_turn()\nlane.ran([0.5])\nlane.wait_for_turn()\n"
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", f"{tmp_path}:{REPOSITORY}")
            racer = Racer("stand-in", "standin", tmp_path / "way")
        racer.wait_until_ready()
        racer.run_trial()
        racer.end()
        assert racer.seen.losses == [[0.5]]
        assert (tmp_path / "way" / "log.txt").read_text() == "noise\n"

    def test_the_others_learn_the_same_tokens(self, tmp_path: Path) -> None:
        from bench.race.stock import Collator, load_processor, load_rows
        from hpsearch.train.encoding import Encoder
        from hpsearch.train.tiny import ensure_tiny
        from hpsearch.trial import RowsConfig

        setting = Setting("tiny", str(ensure_tiny("tiny:gemma3", lambda *_: None)), 28, 4, 2, 4, False)
        setting.write_rows(tmp_path)
        processor = load_processor(setting)
        theirs = Collator(processor)(list(load_rows(tmp_path, "train")))
        rows = RowsConfig(row_format="question-answer", image_size=None, system_prompt=None, max_tokens=256)
        encoder = Encoder(processor, rows, has_images=True)
        ours = encoder.collate(
            [
                {
                    "messages": [
                        {"role": "user", "content": row["question"]},
                        {"role": "assistant", "content": row["answer"]},
                    ],
                    "images": [row["image"]],
                    "image_sha256s": [row["image"]],
                }
                for row in rows_of(tmp_path, "train")
            ]
        )
        assert theirs["input_ids"].tolist() == ours["input_ids"].tolist()
        assert theirs["labels"].tolist() == ours["labels"].tolist()


class TestOnACard:
    def console(self) -> Console:
        return Console(quiet=True)

    def test_without_one_nothing_is_measured_and_everything_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(on_card, "has_card", lambda: False)
        figures, failed = on_card.measure(list(WHAT), self.console(), rehearses=False)
        assert [figure.part for figure in figures] == list(WHAT)
        assert {figure.found for figure in figures} == {"not measured: no card was at hand"}
        assert not failed

    def test_every_part_has_its_file(self) -> None:
        assert all(callable(measure_of(part)) for part in WHAT)
        assert set(on_card.MOST_S) == set(WHAT)

    def test_what_does_not_fit_into_the_time_is_reported(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert process.run_part("product", tmp_path, 1.0, self.console(), rehearses=True) == ([], "out of time")
        monkeypatch.setattr(process, "LEAST_S", 0.0)
        assert process.run_part("product", tmp_path, 0.1, self.console(), rehearses=True) == ([], "out of time")

    def test_a_part_says_what_it_found_or_why_not(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        figures, why = process.run_part("no_such_part", tmp_path, 60.0, self.console(), rehearses=True)
        assert figures == []
        assert why is not None
        assert "no_such_part" in why
        found = not_measured("race", "a reason")
        program = f"print('loading'); print({found.told()!r})"
        monkeypatch.setattr(process, "command", lambda *_, **__: [sys.executable, "-c", program])
        assert process.run_part("race", tmp_path, 60.0, self.console(), rehearses=True) == ([found], None)

    def test_a_figure_crosses_the_border(self) -> None:
        figure = not_measured("race", "a reason")
        assert from_line(figure.told()) == figure
        assert from_line("a library's word") is None

    def test_a_prediction_is_held_against_the_peak(self) -> None:
        result: Any = SimpleNamespace(
            fit=SimpleNamespace(predicted_bytes=11 * GIB), ledger=SimpleNamespace(peak_device_bytes=10 * GIB)
        )
        assert prediction(result) == "11.00 GiB predicted, 10.00 GiB at the peak: +10 %"

    @pytest.mark.parametrize(
        ("shape", "billions"), [(GEMMA3_4B, 4.300), (QWEN_2_5_VL_7B, 8.292), (QWEN_2_5_HALF_B, 0.494)]
    )
    def test_shapes_have_as_many_weights_as_the_real_models(self, shape: Shape, billions: float) -> None:
        import torch

        model_class, config, _ = shape.build()
        with torch.device("meta"):
            model = model_class(config)
        assert sum(weight.numel() for weight in model.parameters()) / 1e9 == pytest.approx(billions, abs=5e-4)
