"""Side-by-side benchmarks: hpsearch's way and another way, on the same machine, in turn, as ratios.

    python -m bench                    all of them (make bench)
    python -m bench warm_base cli_start    some of them

| name | hpsearch's way | the other way |
|---|---|---|
| warm_base | a trainer that keeps the 4-bit base | `trials_per_process: 1`: the same base loaded for each trial |
| memory_growth | hpsearch's trainer, trial after trial | a hand-written Optuna loop, as tutorials have it |
| store_throughput | claim, report, tell with leases and fencing | plain Optuna: ask, report, tell |
| store_size | a study of 5,000 trials: reading it, and its next trial | plain Optuna: all trials; ask to tell |
| store_load | 64 and 256 workers on one PostgreSQL | the goals |
| cli_start | `hpsearch --help` | `python -c "import torch"` |
| race | a study with pruning in the tutorials' setting | the tutorial's loop, Trainer's own search, Ray Tune |

What only a GPU can show is measured by `python -m bench.gpu`. [RESULTS.md](RESULTS.md) keeps what was measured.

`python -m bench.coverage` is no comparison of speed: it simulates how often intervals hold the truth.

A ratio is the other way's number divided by hpsearch's: above 1, hpsearch needs less. Where a benchmark takes a
number several times, the two sides take turns (one trial here, one there), so that a busy machine is busy for
both; the ratio is the median of the pairs' ratios, the range behind it the smallest and the largest of them.
Every row has the command that measures it again. The machine and the versions are above the table: a ratio without them
says little.

What is trained: without CUDA `tiny:qwen2` (its first use on a machine pretrains it for a minute, before anything is
timed), all in all less than five minutes on two cores, and ten for the race (on `tiny:gemma3`). With CUDA a model
of Qwen2.5-0.5B's shape with random weights, built on the spot; nothing is downloaded. Trials are short on purpose
(a few steps): the comparison is about everything around training, and a longer trial moves the ratio of seconds
towards 1, but not the seconds saved. In the race the steps themselves are compared.

Timings are for people. No test asserts one: a shared machine would make it a coin toss.
"""
