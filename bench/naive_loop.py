"""The other side of memory_growth: Optuna and SFTTrainer by hand, in one process, written as tutorials write it.

Each trial loads and quantizes the base, wraps it with PEFT, trains, evaluates, deletes its names and collects
garbage. Run as `python -m bench.naive_loop BASE STEPS FOLDER`; every line on stdin asks for one trial, which `DONE`
on stdout answers.
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from typing import Any

from bench.shapes import NUM_TRAIN_ROWS, NUM_VALIDATION_ROWS

DONE = "the trial is done"


def main(base: str, steps: int, folder: Path) -> None:
    import datasets
    import optuna

    datasets.disable_progress_bars()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rows = datasets.Dataset.from_list(
        [
            {
                "messages": [
                    {"role": "user", "content": row["question"]},
                    {"role": "assistant", "content": row["answer"]},
                ]
            }
            for row in map(json.loads, (folder / "rows.jsonl").read_text().splitlines())
        ]
    )
    train = rows.select(range(NUM_TRAIN_ROWS))
    validation = rows.select(range(NUM_TRAIN_ROWS, NUM_TRAIN_ROWS + NUM_VALIDATION_ROWS))
    study = optuna.create_study(direction="minimize")
    for _ in sys.stdin:
        study.optimize(lambda trial: objective(trial, base, steps, folder, train, validation), n_trials=1)
        print(DONE, flush=True)


def objective(trial: Any, base: str, steps: int, folder: Path, train: Any, validation: Any) -> float:
    import torch
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
    from trl import SFTConfig, SFTTrainer

    on_gpu = torch.cuda.is_available()
    dtype = torch.bfloat16 if on_gpu else torch.float32
    tokenizer = AutoTokenizer.from_pretrained(base)
    quantization = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    model: Any = AutoModelForCausalLM.from_pretrained(
        base, quantization_config=quantization, dtype=dtype, device_map={"": 0} if on_gpu else None
    )
    model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    lora = LoraConfig(r=8, lora_alpha=16, lora_dropout=0.05, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(model, lora)
    arguments = SFTConfig(
        output_dir=str(folder / "output"),
        max_steps=steps,
        per_device_train_batch_size=4,
        per_device_eval_batch_size=4,
        learning_rate=trial.suggest_float("learning_rate", 1e-5, 1e-3, log=True),
        bf16=on_gpu,
        use_cpu=not on_gpu,
        gradient_checkpointing=False,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    trainer = SFTTrainer(
        model=model, args=arguments, train_dataset=train, eval_dataset=validation, processing_class=tokenizer
    )
    trainer.train()
    loss = float(trainer.evaluate()["eval_loss"])
    del trainer, model, tokenizer
    gc.collect()
    if on_gpu:
        torch.cuda.empty_cache()
    return loss


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
