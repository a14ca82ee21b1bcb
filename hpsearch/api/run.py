"""A final run as a notebook asks it: its answers, its curves, its scores.

The model is loaded by a trainer process, as for every verb: this process never imports torch.
"""

from __future__ import annotations

import os
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, overload

import pandas as pd

from hpsearch.api import frames
from hpsearch.api.html import facts_table
from hpsearch.api.values import picture_files, plain
from hpsearch.api.words import in_python
from hpsearch.errors import InputError
from hpsearch.evaluation import Evaluation
from hpsearch.opening.places import find_final_run, fixed_storage, storage_folder
from hpsearch.opening.trainers import kept_trainer
from hpsearch.results.final import RunFolder
from hpsearch.spec import StudySpec
from hpsearch.spec.evaluation import PromptName
from hpsearch.trial import TrialResult, best_report
from hpsearch.watch.words import format_metric, format_time

if TYPE_CHECKING:
    from PIL.Image import Image

    from hpsearch.bridge.trainer_process import StartTrainer
    from hpsearch.results.predict import PredictionOptions

    Picture = str | os.PathLike[str] | Image

T = TypeVar("T")


def load_run(run: str | os.PathLike[str], *, storage: str | os.PathLike[str] | None = None) -> Run:
    """A final run by its folder, or by its study's name.

    Args:
        run: the folder of a final run (`hpsearch train` makes it), or the name of its study.
        storage: the storage folder or its URL; default: $HPSEARCH_STORAGE, or ./storage.

    Raises:
        InputError: there is none, or its training is not complete.
    """
    with in_python():
        place = fixed_storage(storage)
        folder = find_final_run(os.fspath(run), place)
        return Run(folder, folder.load()[0].spec, place)


class Run:
    """A final run, from `load_run`. Its model is loaded by the first prediction and stays until `close`, or the end of
    a `with` block.

    Attributes:
        folder: the run's folder.
        adapter: the folder of its LoRA adapter, as PEFT loads it.
        spec: what its study file says.
    """

    def __init__(self, folder: RunFolder, spec: StudySpec, storage: str) -> None:
        self.folder: Path = folder.path
        self.adapter: Path = folder.adapter
        self.spec = spec
        self._run = folder
        self._storage = storage
        self._open = ExitStack()
        self._start: StartTrainer | None = None
        weakref.finalize(self, self._open.close)  # a cell that is run again leaves no trainer behind

    @overload
    def predict(  # type: ignore[overload-overlap]  # text is an iterable of texts, too
        self,
        question: str | None = None,
        image: Picture | Sequence[Picture] | None = None,
        *,
        prompt: PromptName = "none",
        max_new_tokens: int | None = None,
    ) -> str: ...

    @overload
    def predict(
        self,
        question: Iterable[str],
        image: Picture | Sequence[Picture] | None = None,
        *,
        prompt: PromptName = "none",
        max_new_tokens: int | None = None,
    ) -> list[str]: ...

    def predict(
        self,
        question: str | Iterable[str] | None = None,
        image: Picture | Sequence[Picture] | None = None,
        *,
        prompt: PromptName = "none",
        max_new_tokens: int | None = None,
    ) -> str | list[str]:
        """The run's answer to a question, or to each of several; what was asked before is not asked again.

        Args:
            question: one, or a list or a column of them; leave it out where the study has one prompt for all rows.
            image: what the question is about: a path or a PIL image, or a list of them that all belong to each
                question. For many rows with images of their own, see `predict_rows`.
            prompt: the study's system prompt to ask with: none, static or adaptive.
            max_new_tokens: the longest answer, in tokens; default: the study's.

        Raises:
            InputError: a question or an image is missing, superfluous or can't be used.
            HpsearchError: the model could not be loaded, or no device is free.
        """
        from hpsearch.results.predict import ask

        is_one = question is None or isinstance(question, str)
        questions = [question] if isinstance(question, str) else [] if question is None else list(question)
        if not is_one and not questions:
            return []
        storage, options = storage_folder(self._storage), _options(prompt, max_new_tokens)
        files = [Path(file) for file in picture_files(image, storage)]
        said = self._asking(
            lambda start: ask(self._run, files, questions, options, storage, start, _silent),
        )
        if any(one.is_cut for one in said):
            warnings.warn("an answer was cut at the generation limit: max_new_tokens raises it", stacklevel=2)
        answers = [one.answer for one in said]
        return answers[0] if is_one else answers

    def predict_rows(
        self,
        rows: pd.DataFrame | Sequence[Mapping[str, Any]],
        *,
        prompt: PromptName = "none",
        max_new_tokens: int | None = None,
    ) -> pd.DataFrame:
        """What the run says to each row; the rows have the columns that the study file names, without the answer.

        Args:
            rows: a DataFrame, or a list of dicts. Images are paths or PIL images, or lists of them.
            prompt: as in `predict`.
            max_new_tokens: as in `predict`.

        Returns:
            The same rows with a column `prediction`, and a column `error` that says why a row has none.

        Raises:
            InputError: no row can be answered.
            HpsearchError: the model could not be loaded, or no device is free.
        """
        from hpsearch.results.predict import predict_rows

        frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
        storage, options = storage_folder(self._storage), _options(prompt, max_new_tokens)
        asked = [{name: plain(value, storage) for name, value in row.items()} for row in frame.to_dict("records")]
        if not asked:
            return frame.assign(prediction=[], error=[])
        said = self._asking(lambda start: predict_rows(self._run, asked, options, storage, start, _silent))
        added = {name: [row.get(name) for row in said] for name in ("prediction", "error")}
        return frame.assign(**added)

    @property
    def history(self) -> pd.DataFrame:
        """One row for each optimizer step. Columns: step, loss (of its batch, in nats per learned token),
        learning_rate.
        """
        return frames.history_frame(self._run.read_history())

    @property
    def curves(self) -> pd.DataFrame:
        """One row for each report. Columns: report (its number, from 1), step (the optimizer step), loss (on the
        validation rows, in nats per learned token), and a column for each metric.
        """
        result = self._run.read(TrialResult)
        return frames.run_curves_frame(result.reports, result.num_steps)

    @property
    def scores(self) -> pd.DataFrame:
        """What `hpsearch evaluate` found on the test rows: one row for each variant and metric, with its value and the
        ends of its 95 % interval, low and high.

        Raises:
            InputError: the run is not evaluated yet.
        """
        found = self._evaluation()
        if found is None:
            raise InputError(f"{self.folder} is not evaluated yet: hpsearch evaluate {self.folder}")
        return frames.scores_frame(found)

    def close(self) -> None:
        """Ends the trainer process, so that the device and its memory are free. The next prediction loads it again."""
        self._start = None
        self._open.close()

    def _asking(self, ask: Callable[[StartTrainer], T]) -> T:
        """After an error other than the person's the trainer's state is unknown, and it is replaced."""
        if self._start is None:
            self._start = self._open.enter_context(kept_trainer("prediction", self._storage))
        try:
            with in_python():
                return ask(self._start)
        except InputError:
            raise
        except BaseException:
            self.close()
            raise

    def _evaluation(self) -> Evaluation | None:
        file = self._run.scores / "scores.json"
        return self._run.read(Evaluation, file) if file.exists() else None

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    def _repr_html_(self) -> str:
        result, found = self._run.read(TrialResult), self._evaluation()
        objective = self.spec.objectives[0]
        facts = {
            "base": f"{self.spec.model.base}, {self.spec.task}",
            "trained": f"{result.num_steps} optimizer steps in {format_time(result.train_seconds)}",
            "folder": str(self.folder),
        }
        if result.reports:
            best = best_report(result.reports, objective)
            facts[f"best {objective.title}"] = f"{format_metric(objective, best.value(objective))} (report {best.step})"
        if found and found.metrics:
            metric = found.metrics[0]
            scores = {variant.name: variant.scores.get(metric.name) for variant in found.variants}
            scored = [f"{name} {format_metric(metric, score.value)}" for name, score in scores.items() if score]
            facts[f"{metric.title}, test"] = ", ".join(scored)
        return facts_table(f"{self.spec.study}: final run", facts)


def _options(prompt: PromptName, max_new_tokens: int | None) -> PredictionOptions:
    from hpsearch.results.predict import PredictionOptions

    return PredictionOptions(prompt=prompt, max_new_tokens=max_new_tokens)


def _silent(name: str, done: int, total: int) -> None:
    del name, done, total
