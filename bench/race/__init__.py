"""The race: trials per hour of one study with pruning, hpsearch against three other ways to run it.

| way | what it is |
|---|---|
| hpsearch | its worker and trainer on a study file |
| the tutorial's loop | Optuna by hand: load, SFTTrainer, prune in a callback, delete, collect garbage |
| Trainer's search | `transformers.Trainer.hyperparameter_search(backend="optuna")` |
| Ray Tune | a training function with OptunaSearch and ASHA |

In the tutorials' own setting: one row per forward and 16 per optimizer step, a frozen vision tower, four validations,
a median pruner. hpsearch is given the 16 and chooses the rest itself. All have the same trials (values, rows, seed,
order, steps), each in a process of its own, and take turns trial by trial, so that a busy machine is busy for all. What
could make the others' numbers differ is made equal in their favour: they save no checkpoints, validate four times and
not a fifth, and get hpsearch's environment.

Each way decides by itself which trials are stopped, so the results show the steps that each did beside the seconds,
and compare the losses of the trials that all of them trained to the end.
"""
