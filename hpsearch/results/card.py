"""The model card: what a stranger must know about a model that came out of a study."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from hpsearch.data.manifest import Manifest
from hpsearch.evaluation import ABOUT_MOST_FREQUENT, Evaluation, VariantScores, alike
from hpsearch.jobs import ExportResult
from hpsearch.metrics import in_order
from hpsearch.results.final import RunFolder
from hpsearch.search.view import StudyView
from hpsearch.spec.metrics import Metric
from hpsearch.spec.model import ModelSpec
from hpsearch.spec.search import RangeSpec
from hpsearch.spec.study import StudySpec
from hpsearch.trial import TrialConfig, TrialResult

CardKind = Literal["adapter", "merged"]
_LIBRARIES = ("hpsearch", "torch", "transformers", "peft", "trl", "bitsandbytes", "datasets", "optuna")


def model_card(
    folder: RunFolder, kind: CardKind, study: StudyView | None = None, export: ExportResult | None = None
) -> str:
    """Markdown with the front matter that the hub reads. `study`: the search, where the store still has it.

    Raises:
        InputError: not a run folder.
    """
    from huggingface_hub import ModelCard

    file, manifest, config = folder.load()
    spec = file.spec
    scores = folder.scores / "scores.json"
    evaluation = folder.read(Evaluation, scores) if scores.exists() else None
    sections = [
        f"# {spec.study}\n\n{_summary(spec, kind)}",
        _how_to_use(spec, kind, has_ends=(folder.adapter / "generation_config.json").exists()),
        _data(spec, manifest),
        _training(spec, config, folder.read(TrialResult)),
        *([_search(study)] if study else []),
        _scores(evaluation),
        *([_merge(export)] if export else []),
        _versions(),
    ]
    front = _front_matter(spec, kind, evaluation)
    return str(ModelCard(f"---\n{front}\n---\n\n" + "\n\n".join(sections) + "\n"))


def _front_matter(spec: StudySpec, kind: CardKind, evaluation: Evaluation | None) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    source, base = spec.data.source, _on_hub(spec.model.base)
    results = []
    if evaluation is not None:
        tuned = evaluation.tuned
        results = [
            EvalResult(
                task_type=spec.task_facts.pipeline,
                dataset_type=without_folders(source),
                dataset_name=spec.study,
                dataset_split="test",
                metric_type=metric,
                metric_value=round(score.value, 4),
            )
            for metric, score in tuned.scores.items()
        ]
    data = ModelCardData(
        base_model=base,
        datasets=[source] if _on_hub(source) else None,
        library_name="peft" if kind == "adapter" else "transformers",
        pipeline_tag=spec.task_facts.pipeline,
        tags=["hpsearch", "lora", *(["qlora"] if spec.model.quantization == "nf4" else [])],
        model_name=spec.study,
        eval_results=results or None,
    )
    return data.to_yaml()


def _on_hub(name: str) -> str | None:
    """The name if it is one of the hub's: neither hpsearch's own nor a path."""
    is_path = name.startswith((".", "/", "~")) or Path(name).exists()
    return None if is_path or ":" in name or name.count("/") > 1 or Path(name).suffix in (".json", ".jsonl") else name


def without_folders(name: str) -> str:
    """A path's last part: the other folders are private to its owner."""
    return Path(name).name if name.startswith((".", "/", "~")) else name


def _summary(spec: StudySpec, kind: CardKind) -> str:
    how = "QLoRA (4-bit NormalFloat base)" if spec.model.quantization == "nf4" else "LoRA"
    what = "A LoRA adapter for" if kind == "adapter" else "A fine-tune, merged into full weights, of"
    about = f"{spec.description}\n\n" if spec.description else ""
    start = f", from the adapter `{_start(spec.model)}`" if spec.model.adapter else ""
    base = without_folders(spec.model.base)
    return f"{about}{what} `{base}`, trained with {how} on task `{spec.task}` by hpsearch{start}."


def _start(model: ModelSpec) -> str:
    """An adapter from a run is named after the run."""
    path = Path(model.adapter or "")
    return path.parent.name if path.is_absolute() and path.name == "adapter" else without_folders(str(path))


def _how_to_use(spec: StudySpec, kind: CardKind, *, has_ends: bool) -> str:
    """`has_ends`: the adapter's files name the end tokens; with an adapter transformers reads them from the base."""
    image = spec.data.columns.image is not None
    auto = "AutoModelForImageTextToText" if image else "AutoModelForCausalLM"
    reader = "AutoProcessor" if image else "AutoTokenizer"
    lines = [f"from transformers import {auto}, {reader}"]
    if kind == "adapter":
        lines += [
            "from peft import PeftModel",
            "",
            f'model = {auto}.from_pretrained("{without_folders(spec.model.base)}")',
            'model = PeftModel.from_pretrained(model, "THIS_REPOSITORY")',
        ]
        if has_ends:
            lines[0] += ", GenerationConfig"
            lines += ['model.generation_config = GenerationConfig.from_pretrained("THIS_REPOSITORY")']
    else:
        lines += ["", f'model = {auto}.from_pretrained("THIS_REPOSITORY")']
    lines += [f'processor = {reader}.from_pretrained("THIS_REPOSITORY")']
    notes = []
    if spec.data.system_prompt:
        notes.append(f"Every conversation began with this system prompt:\n\n{_quote(spec.data.system_prompt)}")
    if spec.data.template.columns:
        notes.append(f"Each question was made from the row's columns with this template:\n\n{_quote(spec.data.prompt)}")
    if spec.data.examples:
        notes.append(f"Before each question came {spec.data.examples} training rows with their answers.")
    if spec.data.image_size:
        notes.append(f"Images were resized to {spec.data.image_size} pixels first.")
    if spec.task_facts.has("head"):
        column = spec.data.columns.question
        notes.append(
            "The class comes from the head in `head.safetensors`: two linear layers with GELU between them, on the "
            "mean of the last hidden states over all tokens except padding; `head.json` has the classes in order. "
            f"The prompt was {f'the column {column}' if column else repr(spec.data.prompt)}."
        )
    return "\n\n".join(["## How to use", "```python\n" + "\n".join(lines) + "\n```", *notes])


def _quote(text: str) -> str:
    return "\n".join(f"> {line}" for line in text.splitlines())


def _data(spec: StudySpec, manifest: Manifest) -> str:
    rows = [[split, str(len(keys))] for split, keys in manifest.splits.items()]
    left_out = [f"{len(ids)} × {reason}" for reason, ids in manifest.left_out.items()]
    text = f"## Data\n\n`{without_folders(spec.data.source)}`, split once; no row, group or image is in two splits.\n\n"
    text += _table(["split", "rows"], rows)
    if manifest.classes:
        header = ["label", *manifest.splits]
        counts = [
            [label, *(str(manifest.labels[split].get(label, 0)) for split in manifest.splits)]
            for label in in_order(manifest.classes)
        ]
        text += f"\n\n{_table(header, counts)}" if len(counts) <= 50 else ""
    if manifest.notes:
        text += f"\n\nNotes on the data: {'; '.join(manifest.notes)}."
    if left_out:
        text += f"\n\nLeft out: {', '.join(left_out)}."
    return text + f"\n\nChecksum of the split: `{manifest.sha256}`."


def _training(spec: StudySpec, config: TrialConfig, result: TrialResult) -> str:
    values = [[knob, without_folders(_told(spec.value(knob)))] for knob in spec.knobs]
    losses = [report.loss for report in result.reports]
    best = f", best validation loss {min(losses):.4f} {spec.task_facts.loss_unit}" if losses else ""
    return (
        f"## Training\n\n{result.num_steps} optimizer steps in {result.train_seconds:.0f} s{best}; "
        f"{result.trainable_parameters:,} of {result.total_parameters:,} parameters were trained "
        f"(seed {config.training.seed}).\n\n{_table(['parameter', 'final run'], values)}"
    )


def _search(study: StudyView) -> str:
    spec = study.study.spec
    tally = Counter(trial.outcome for trial in study.trials if trial.is_finished)
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in tally.most_common())
    text = (
        f"## Search\n\n{sum(tally.values())} trials ({outcomes}); sampler {spec.searched.sampler.name}, pruner "
        f"{spec.searched.pruner.name}; objective: {', '.join(spec.objective_names)} on the validation rows. "
        f"Each trial ran {spec.budget.epochs:g} epochs on {spec.budget.train_fraction:.0%} of the train split at most."
    )
    best = study.best
    header = ["parameter", "searched over", *([f"best (trial {best.number})"] if best else [])]
    rows = [
        [knob, _format_space(parameter), *([_told(best.params.get(knob))] if best else [])]
        for knob, parameter in spec.searched.space.items()
    ]
    text += f"\n\n{_table(header, rows)}"
    if best and best.value is not None:
        text += f"\n\nThe best trial reached a {spec.objectives[0].title} of {best.value:.4f}."
    return text


def _format_space(parameter: RangeSpec | Sequence[Any]) -> str:
    if isinstance(parameter, RangeSpec):
        return f"{parameter.low:g} to {parameter.high:g}{', logarithmic' if parameter.log else ''}"
    return ", ".join(_told(choice) for choice in parameter)


def _told(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _scores(evaluation: Evaluation | None) -> str:
    if evaluation is None:
        return "## Scores\n\nNot evaluated on the test rows yet."
    header = ["", *(variant.name for variant in evaluation.variants)]
    without = "" if evaluation.base else " The base model was not evaluated."
    rows = [
        [", ".join(one.title for one in group), *(_format_score(variant, group[0]) for variant in evaluation.variants)]
        for group in alike(evaluation.metrics, evaluation.variants)
    ]
    units = evaluation.resampled
    intervals = f"; in brackets 95 % bootstrap intervals, resampled over {units.text}"
    if not units.are_enough:
        intervals = f"; {units.text} {'is' if units.num == 1 else 'are'} too few for intervals"
    elif not all(score.interval for variant in evaluation.variants for score in variant.scores.values()):
        intervals += f". {units.all_alike.rstrip('.')}"
    said = f"On {evaluation.num_rows} test rows that no trial has seen{intervals}.{without}"
    if evaluation.guess:
        said += f" {ABOUT_MOST_FREQUENT[:1].upper()}{ABOUT_MOST_FREQUENT[1:]}"
    return f"## Scores\n\n{said}\n\n{_table(header, rows)}"


def _format_score(variant: VariantScores, metric: Metric) -> str:
    score = variant.scores.get(metric.name)
    if score is None:
        return ""
    around = score.interval
    if metric.unit != "share":
        return f"{score.value:.4f}" + (f" ({around.low:.4f} to {around.high:.4f})" if around else "")
    return f"{score.value:.1%}" + (f" ({100 * around.low:.1f} to {100 * around.high:.1f})" if around else "")


def _merge(export: ExportResult) -> str:
    words = (
        f"## Merging\n\nThe adapter was merged into unquantized weights. At {export.num_positions} answer tokens of "
        f"a few prompts the logits differ from base and adapter by at most {export.difference:.2g} (the largest "
        f"logit is {export.largest_logit:.3g})."
    )
    if export.quantized_agreement is not None:
        words += (
            f" The scores above are those of the adapter on the 4-bit base, which predicts the same token at "
            f"{export.quantized_agreement:.0%} of these positions."
        )
    return words


def _versions() -> str:
    found = []
    for name in _LIBRARIES:
        try:
            found.append([name, version(name)])
        except PackageNotFoundError:
            continue
    return f"## Versions\n\n{_table(['library', 'version'], found)}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(_variant, line)) + " |" for line in lines)


def _variant(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
