"""One training run, a trial's or the final one: build, train, report, free everything."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from accelerate.utils import set_seed
from datasets import Dataset
from peft import PeftModel, load_peft_weights, set_peft_model_state_dict

from hpsearch.checkpoints import replace_folder, written_whole
from hpsearch.files import draft_of
from hpsearch.folders import JobFolder, StageFolder
from hpsearch.spec.metrics import LOSS
from hpsearch.train.adapters import attach, begin_again, parameter_counts, save_adapter, to_float32
from hpsearch.train.bases import Base, Bases, compute_dtype
from hpsearch.train.channel import Channel
from hpsearch.train.checkpoint import disk_errors
from hpsearch.train.encoding import Encoded, Encoder
from hpsearch.train.ending import write_end
from hpsearch.train.failure import failure
from hpsearch.train.features import make_encoder
from hpsearch.train.fitting import find_fit, known_fit, longest_rows
from hpsearch.train.ledger import LedgerBook
from hpsearch.train.memory import clear_traceback, give_back
from hpsearch.train.own_metrics import OwnMetric, loaded
from hpsearch.train.peak import keep_within
from hpsearch.train.reporter import Reporter, report_steps
from hpsearch.train.start import Plan, Start, find_start
from hpsearch.train.steps import ROWS_WITHOUT_GRADIENTS, MicroBatch, StepCollator, chosen
from hpsearch.train.stopwatch import Stopwatch
from hpsearch.train.tasks import TASKS
from hpsearch.train.tasks.task import Method, Stage
from hpsearch.train.tracking import Tracking
from hpsearch.train.trainer import ReportingTrainer, make_trainer, planned_steps
from hpsearch.train.validation import Validation
from hpsearch.trial import Fit, MemoryLedger, Outcome, Report, TrialConfig, TrialResult


class _Stopped(Exception):
    """The worker requested a stop before the first step."""


def run_trial(config: TrialConfig, folder: JobFolder, bases: Bases, book: LedgerBook, channel: Channel) -> TrialResult:
    """Trains by the config. Every path ends with a result and a closed ledger."""
    watch = Stopwatch()
    tracking = Tracking(config, folder)
    try:
        _begin_phase(channel, f"preparing {config.model.base}")
        base = bases.get(TASKS[config.task], config.model)
        book.open(base)
        watch.end_lap("base_s")
        tracking.start()
        keep_within(config.budget.memory_gib)
        with loaded(config.metrics_file if any(metric.is_own for metric in config.objectives) else None) as own:
            result = _train(config, folder, base, own, book, channel, watch, tracking)
    except _Stopped as stopped:
        result = TrialResult(outcome=Outcome.STOPPED)
        clear_traceback(stopped)
    except Exception as error:
        result = failure(error, channel.doing)
        clear_traceback(error)
    result = result.model_copy(update={"reports": folder.read_journal()})
    channel.tell("giving memory back", 0, 0)
    left = tracking.end(result, partial(_is_urgent, channel))
    if book.is_open:
        result = result.model_copy(update={"ledger": _closed(book, left)})
    return result.model_copy(update={"pace": watch.pace()})


def _closed(book: LedgerBook, left: list[str]) -> MemoryLedger | None:
    """With what is `left` besides the ledger's own findings.

    None where the device no longer answers: after a CUDA error such as an illegal address every further call raises the
    same, and the trial's own error would be lost.
    """
    try:
        ledger = book.close()
        return ledger.model_copy(update={"not_given_back": [*ledger.not_given_back, *left]})
    except RuntimeError as error:
        print(f"the memory ledger can't be closed: {error}", flush=True)
        clear_traceback(error)
        return None


def _is_urgent(channel: Channel, doing: str) -> bool:
    """Tells the worker, which would otherwise take a long wait for a hang."""
    channel.tell(doing, 0, 0)
    return channel.stop_wanted


def _begin_phase(channel: Channel, name: str) -> None:
    channel.tell(name, 0, 0)
    if channel.stop_wanted:
        raise _Stopped


@dataclass(frozen=True)
class _Run:
    """What the stages of one run share."""

    config: TrialConfig
    folder: JobFolder
    plan: Plan
    model: PeftModel
    encoder: Encoder
    validation: Validation
    reporter: Reporter
    train_rows: Dataset
    collator: StepCollator
    micro_batch: MicroBatch
    tracking: Tracking


def _train(
    config: TrialConfig,
    folder: JobFolder,
    base: Base,
    own: dict[str, OwnMetric],
    book: LedgerBook,
    channel: Channel,
    watch: Stopwatch,
    tracking: Tracking,
) -> TrialResult:
    _begin_phase(channel, "attaching the adapter")
    # The seed is set right before the adapter is drawn, so that nothing that ran earlier in this process affects it.
    set_seed(config.training.seed)
    task = TASKS[config.task]
    train_rows = Dataset.load_from_disk(str(config.train_rows))
    model = attach(base.fresh_model(), config.lora, config.model)
    encoder = make_encoder(base, model, config.rows, config.images, has_images=task.has_images)
    method = task.method(encoder, config.answers, train_rows)
    method.extend(model)
    stages = task.stages(config, train_rows)
    measured = [metric.name for metric in config.objectives if metric != LOSS]
    validation = Validation(
        Dataset.load_from_disk(str(config.validation_rows)),
        MicroBatch(chosen(config.training.evaluation_batch_size, ROWS_WITHOUT_GRADIENTS)),
        method,
        compute_dtype(config.model),
        measured,
        {name: own[name] for name in measured if name in own},
    )
    steps, num_reports = planned_steps(stages, config), config.budget.reports
    plan = Plan(steps, {number: step for step, number in report_steps(sum(steps), num_reports).items()})
    save_best = (
        (lambda: _save_best(model, method, base, encoder, folder.adapter, speaks=task.facts.speaks))
        if config.is_final
        else None
    )
    first = config.objectives[0]
    reporter = Reporter(channel, folder, first, num_reports, sum(steps), book.note_host, save_best, watch=watch)
    _begin_phase(channel, "looking for a checkpoint")
    start = find_start(folder, config.earlier, plan)
    _begin_phase(channel, "training")
    reporter.begin(list(start.reports))
    started = time.monotonic()
    micro_batch = MicroBatch(config.training.batch_size)
    with StepCollator(method.encode) as collator:
        run = _Run(
            config, folder, plan, model, encoder, validation, reporter, train_rows, collator, micro_batch, tracking
        )
        _train_stages(run, stages, start)
    trainable, total = parameter_counts(model)
    return TrialResult(
        outcome=reporter.outcome,
        train_seconds=time.monotonic() - started,
        num_steps=reporter.step,
        trainable_parameters=trainable,
        total_parameters=total,
        fit=micro_batch.fit,
        halvings=micro_batch.halvings,
        reason=_reason(reporter),
    )


def _train_stages(run: _Run, stages: list[Stage], start: Start) -> None:
    reporter, steps = run.reporter, run.plan.stage_steps
    reporter.begin_stage(start.step)
    for position in range(start.stage, len(stages)):
        place = run.plan.stage(run.folder, position)
        reporter.begin_stage(sum(steps[:position]))
        run.tracking.begin_stage(sum(steps[:position]))
        before = run.plan.stage(run.folder, position - 1) if position else None
        checkpoint = start.checkpoint if position == start.stage else None
        open_report = start.open_report if checkpoint else None
        _train_stage(run, stages[position], steps[position], place, before, checkpoint, open_report)
        if reporter.outcome is not Outcome.COMPLETE:
            return
        if len(stages) > 1:
            with written_whole(place.adapter) as draft, disk_errors(draft):
                save_adapter(run.model, draft)
                run.validation.method.save(run.model, draft)
            place.finish(reporter.reports)
        give_back()  # trl leaves the trainer, and with it the optimizer's state, in a reference cycle


def _train_stage(
    run: _Run,
    stage: Stage,
    num_steps: int,
    place: StageFolder,
    before: StageFolder | None,
    checkpoint: Path | None,
    open_report: Report | None,
) -> None:
    """Trains from the checkpoint, or else from the end of the stage `before` it."""
    config, reporter = run.config, run.reporter
    processor = run.encoder.processor
    trainer = make_trainer(
        run.model,
        processor,
        stage,
        num_steps,
        config,
        place.path,
        run.validation,
        reporter,
        run.collator,
        run.micro_batch,
        run.tracking,
    )
    to_float32(run.model)  # making a trainer rounds the weights that it finds, so learned ones are loaded after it
    if run.micro_batch.fit is None:
        reporter.fitting()
        run.micro_batch.begin(known_fit(config) or _found_fit(run, trainer))
        reporter.watch.end_lap("fit_s")
    trainer.recompute(run.micro_batch.recomputes)
    begin_again(run.model)
    if before:
        _take_over(run.model, run.validation.method, before)
        set_seed(config.training.seed + reporter.step)  # otherwise each stage would draw the same dropout masks
    if checkpoint is None:
        trainer.train()
        return
    trainer.resume(checkpoint)
    is_due = reporter.resume(trainer.state.global_step)
    if open_report:
        reporter.ask_again(open_report, trainer.control)
    elif is_due:
        trainer.evaluate()
    # From a checkpoint of the last step transformers (5.23) trains on to the epoch's next step.
    if reporter.outcome is Outcome.COMPLETE and trainer.state.global_step < num_steps:
        trainer.train(resume_from_checkpoint=str(checkpoint))


def _found_fit(run: _Run, trainer: ReportingTrainer) -> Fit:
    method = run.validation.method

    def read() -> list[Encoded]:
        rows = longest_rows(run.train_rows, method.num_tokens, run.config.training.batch_size)
        longest = sorted(map(method.encode, rows), key=len, reverse=True)
        method.batch(longest[:2])  # runs the vision tower first, whose own peak would hide a row's memory
        return longest

    return find_fit(run.config, read, parameter_counts(run.model)[0], trainer.probe)


def _save_best(model: PeftModel, method: Method, base: Base, encoder: Encoder, adapter: Path, *, speaks: bool) -> None:
    """A kill before the rename leaves none: the report is not in the journal then, and is repeated."""
    draft = draft_of(adapter)
    with disk_errors(draft):
        save_adapter(model, draft)
        method.save(model, draft)
        base.processor.save_pretrained(str(draft))
        if speaks:
            write_end(draft, encoder, base.model.generation_config)
    replace_folder(draft, adapter)


def _take_over(model: PeftModel, method: Method, before: StageFolder) -> None:
    """Starts from the end of the previous stage, whether that was just now or before a kill."""
    set_peft_model_state_dict(model, load_peft_weights(str(before.adapter), device=str(model.device)))
    method.load(model, before.adapter)


def _reason(reporter: Reporter) -> str | None:
    if reporter.outcome is Outcome.DIVERGED:
        return f"the loss became {reporter.reports[-1].loss}"
    if reporter.outcome is Outcome.PRUNED:
        return f"the pruner stopped it at report {reporter.reports[-1].step}"
    return None
