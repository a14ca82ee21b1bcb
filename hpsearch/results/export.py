"""Exporting a final run for other tools: which steps the asked format needs, and what each prints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hpsearch.bridge.trainer_process import StartTrainer
from hpsearch.errors import InputError
from hpsearch.folders import StorageFolder
from hpsearch.jobs import ExportResult, Tell
from hpsearch.results.card import model_card
from hpsearch.results.export_folder import Dtype
from hpsearch.results.final import RunFolder
from hpsearch.results.gguf import Gguf, check_convertible, convert, find_llama_cpp, write_modelfile
from hpsearch.results.hub import adapter_files, check_repo, push
from hpsearch.results.merge import Merged, merge_run
from hpsearch.search.view import StudyView
from hpsearch.trial import Record


class ExportOptions(Record):
    """Options of the person. `merged`: push the merged model to the hub instead of the adapter."""

    to: Literal["merged", "gguf", "ollama", "hub"]
    output: Path | None = None
    dtype: Dtype = "bfloat16"
    llama_cpp: Path | None = None
    python: Path | None = None
    repo: str | None = None
    private: bool = False
    merged: bool = False
    force: bool = False


@dataclass(frozen=True)
class Export:
    """One export of one run. `study`: the search, where the store has it."""

    folder: RunFolder
    options: ExportOptions
    storage: StorageFolder
    start_trainer: StartTrainer
    tell: Tell
    study: StudyView | None = None

    def run(self) -> str:
        """Returns what was made, as text.

        Raises:
            InputError: not a run folder, options that don't fit, something missing, or the target exists.
            HpsearchError: a step failed; nothing incomplete is left.
        """
        self._check_options()
        match self.options.to:
            case "merged":
                return self._merged_words(self._merge(self.options.output, force=self.options.force))
            case "gguf":
                return self._gguf_words(self._convert())
            case "ollama":
                return self._ollama()
            case "hub":
                return self._push()

    def _check_options(self) -> None:
        options = self.options
        misplaced = {
            "--llama-cpp": options.llama_cpp and options.to not in ("gguf", "ollama"),
            "--python": options.python and options.to not in ("gguf", "ollama"),
            "--repo": options.repo and options.to != "hub",
            "--private": options.private and options.to != "hub",
            "--merged": options.merged and options.to != "hub",
            "-o": options.output and options.to == "hub",
        }
        for name, is_misplaced in misplaced.items():
            if is_misplaced:
                raise InputError(f"{name} does not go together with --to {options.to}")

    def _merge(self, target: Path | None, *, force: bool) -> Merged:
        return merge_run(
            self.folder,
            target or self.folder.exports / f"merged-{self.options.dtype}",
            self.options.dtype,
            lambda result: model_card(self.folder, "merged", self.study, result),
            self.storage,
            self.start_trainer,
            self.tell,
            force=force,
        )

    def _merged_words(self, merged: Merged) -> str:
        head = merged.folder / "head.safetensors"
        lines = [
            f"{'merged' if merged.is_new else 'merged already'}: {merged.folder}",
            _checked(merged.result),
            *([f"The classifier lies beside it: {head.name}, with its classes in head.json."] if head.exists() else []),
        ]
        return "\n".join(lines)

    def _convert(self) -> Gguf:
        options = self.options
        check_convertible(self.folder.load()[0].spec)
        llama_cpp = find_llama_cpp(options.llama_cpp, options.python)
        merged = self._merge(None, force=False)
        target = options.output or self.folder.exports / f"gguf-{options.dtype}"
        return convert(self.folder, merged, target, options.dtype, llama_cpp, self.tell, force=options.force)

    def _gguf_words(self, gguf: Gguf) -> str:
        lines = [f"{'converted' if gguf.is_new else 'converted already'}:", *(f"  {file}" for file in gguf.files)]
        return "\n".join([*lines, _checked(gguf.result)])

    def _ollama(self) -> str:
        gguf = self._convert()
        spec = self.folder.load()[0].spec
        file = write_modelfile(gguf, spec, force=self.options.force)
        create = f"ollama create {spec.study.lower()} -f {file}"
        return f"{self._gguf_words(gguf)}\n{file}\nNext: {create}\n  or in 4 bit: {create} --quantize q4_K_M"

    def _push(self) -> str:
        options = self.options
        self.folder.load()
        repo = check_repo(options.repo, force=options.force)
        if options.merged:
            files, what = self._merge(None, force=False).folder, "merged model"
        else:
            files, what = adapter_files(self.folder, model_card(self.folder, "adapter", self.study)), "adapter"
        self.tell(f"pushing to {repo}", 0, 0)
        message = f"{what.capitalize()} of run {self.folder.path.name}, by hpsearch"
        address = push(repo, files, message, private=options.private, force=options.force)
        return f"pushed the {what} with its model card: {address}"


def _checked(result: ExportResult) -> str:
    words = (
        f"Checked: at {result.num_positions} answer tokens its logits differ from base and adapter by at most "
        f"{result.difference:.2g} (the largest is {result.largest_logit:.3g}; up to {result.tolerance:.2g} would pass)."
    )
    if result.quantized_agreement is not None:
        words += f" The 4-bit model would say the same token at {result.quantized_agreement:.0%} of them."
    return words
