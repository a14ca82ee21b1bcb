"""The study files of the vision-language recipes, each on its tiny twin and generated data, all else as shipped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpsearch.spec.metrics import METRICS
from hpsearch.trial import Outcome, best_report
from tests.integration.conftest import Driver
from tests.integration.workplaces import Workplace, photograph

pytestmark = pytest.mark.slow


def workplace_of(
    driver: Driver, tmp_path_factory: pytest.TempPathFactory, write: Callable[[Path], None]
) -> Iterator[Workplace]:
    workplace = Workplace(tmp_path_factory.mktemp("studies"), driver.process)
    write(workplace.folder)
    yield workplace
    workplace.close()


class TestSurgical:
    """80 questions on 40 images in three stages, as surgical_vqa.json."""

    BASE = "tiny:qwen2-vl"

    @pytest.fixture(scope="class")
    def workplace(self, driver: Driver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
        yield from workplace_of(driver, tmp_path_factory, self.write)

    @staticmethod
    def write(folder: Path) -> None:
        rows = [
            {
                "image_id": photograph(folder / f"{number // 2}.png", number // 2, (500, 400)),
                "question": f"Is there a polyp in view {number}?",
                "answer": ("yes", "no", "at the left")[number % 3],
                "stage": 1 + (number // 2) % 3,
            }
            for number in range(80)
        ]
        (folder / "surgical_vqa.json").write_text(json.dumps(rows))

    def test_curriculum_and_baselines(self, workplace: Workplace) -> None:
        view, config, result = workplace.search("qwen2vl_surgical_curriculum", self.BASE)
        assert [stage.name for stage in config.curriculum.stages] == ["quality control", "findings", "clinical"]
        assert (config.lora.r, config.training.learning_rate, config.rows.image_size) == (32, 5e-6, 448)
        assert config.training.gradient_checkpointing
        assert result.num_steps == 3, "a stage without a step"
        assert [report.step for report in result.reports] == [2, 4, 6]
        assert set(view.trials[0].params) >= {"curriculum.learning_rate_decay"}
        manifest = workplace.manifest("qwen2vl_surgical_curriculum")
        assert sum(map(len, manifest.splits.values())) == 80
        for order in ("random", "sequential"):
            name = f"qwen2vl_surgical_{order}"
            _, config, result = workplace.search(name, self.BASE)
            assert config.curriculum.order == order
            assert result.num_steps == 1
            assert workplace.manifest(name).sha256 == manifest.sha256, "they are compared on the same rows"


class TestPhotographs:
    BASE = "tiny:qwen2.5-vl"

    @pytest.fixture(scope="class")
    def workplace(self, driver: Driver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
        yield from workplace_of(driver, tmp_path_factory, self.write)

    @staticmethod
    def write(folder: Path) -> None:
        """formatted_dataset.json with its folder of images, and face_names.jsonl: two names, 2 to 1."""
        skin = [
            {
                "image": photograph(folder / "merged_total-4874img" / f"{number}.png", number),
                "question": "What is seen here?",
                "answer": ("eczema", "psoriasis")[number % 2],
            }
            for number in range(40)
        ]
        (folder / "formatted_dataset.json").write_text(json.dumps(skin))
        faces = [
            {
                "image": "faces/" + photograph(folder / "faces" / f"{number}.png", 100 + number),
                "name": "ryan" if number % 6 in (0, 1) else "alex",
                "person": f"person {number // 2}",
            }
            for number in range(150)
        ]
        (folder / "face_names.jsonl").write_text("\n".join(json.dumps(row) for row in faces))

    def test_skin_disease(self, workplace: Workplace) -> None:
        _, config, result = workplace.search("qwen2.5vl_skin_disease", self.BASE)
        assert (config.lora.r, config.lora.vision, config.training.max_grad_norm) == (8, False, 1.0)
        assert result.num_steps == 1
        assert workplace.train("qwen2.5vl_skin_disease", "final.max_steps=2").num_steps == 2

    def test_face_names_share_a_held_out_set_that_no_study_trains_on(self, workplace: Workplace) -> None:
        names = ["qwen2.5vl_face_names_balanced", "qwen2.5vl_face_names_natural"]
        configs = {}
        for name in names:
            view, config, result = workplace.search(name, self.BASE)
            configs[name] = config
            assert config.answers.classes == ["alex", "ryan"]
            assert set(result.reports[0].metrics) == {"balanced_accuracy"}
            assert (
                view.trials[0].value
                == best_report(result.reports, METRICS["balanced_accuracy"]).metrics["balanced_accuracy"]
            )
        assert configs[names[0]].answers.head.balance_beta is None
        assert configs[names[1]].answers.head.balance_beta == 0.999
        balanced, natural = (workplace.manifest(name) for name in names)
        counts = balanced.labels["train"]
        assert counts["alex"] == counts["ryan"] < natural.labels["train"]["alex"]

        held = json.loads((workplace.folder / "face_names.held_out.json").read_text())["rows"]
        for manifest in (balanced, natural):
            assert [list(key) for key in manifest.splits["test"]] == held
            trained = {sha256 for split in ("train", "validation") for _, sha256 in manifest.splits[split]}  # type: ignore[index]
            assert not trained & {sha256 for _, sha256 in held}

        for name in names:  # the one that drew the set finds it in its way now
            final = workplace.train(name, "final.max_steps=1", "final.train_fraction=0.1")
            assert final.outcome is Outcome.COMPLETE
            assert (workplace.storage.runs / name / "adapter" / "head.safetensors").exists()
