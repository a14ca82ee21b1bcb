"""What only a GPU can show, unattended, in eight minutes: `make bench-gpu`, `python -m bench.gpu [PART…]`.

| part | what it measures |
|---|---|
| product | a plain bf16 product, with which later FLOP/s are compared |
| steps | time and peak memory of an optimizer step with each mechanism alone and with all, on three shapes; `auto`'s prediction against the real peak; FLOP/s of the language part |
| race | trials per hour at Gemma-3-4B's shape against the tutorial's loop |
| oom | a forward that does not fit, for real |
| ledger | fifty trials in one process, watched by NVML from outside |
| paged | what a paged optimizer leaves, and that it goes with its process |
| tests | `tests/gpu` |

Bases have the real layers, widths and vocabularies (`shapes.py`) and random weights, made on the spot: nothing is
downloaded. Each part is a process of its own, so that one which hangs or dies takes no other along; what does not fit
into the time is "not measured: out of time". Without a card nothing is measured. `--rehearse` runs every part on the
CPU with tiny bases, to see that it runs; its numbers mean nothing and are not shown.
"""  # noqa: E501
