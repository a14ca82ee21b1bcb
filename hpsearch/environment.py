"""The variables of the environment that hpsearch reads or sets, for people. One row each.

Each is read where it is needed; a test holds that this table has every one.
"""

from __future__ import annotations

READ = {
    "HPSEARCH_STORE": "Database URL of the store, where `--store` gives none; by default SQLite in the storage folder. "
    "It may contain a password, unlike a command line.",
    "HPSEARCH_STORAGE": "Folder for trials, final runs, prepared data and logs, or a bucket (`s3://BUCKET/PREFIX`, "
    "`gs://BUCKET/PREFIX`) for machines that share no folder; by default `./storage`.",
    "HPSEARCH_CACHE": "Folder for what all storage folders share: quantized and tiny bases, and this machine's side of "
    "a bucket; by default `~/.cache/hpsearch`.",
    "HPSEARCH_NOTIFY": "Command that `run` and `worker` call when a study ends, like `--notify`.",
    "HPSEARCH_DASHBOARD_TOKEN": "Token that `hpsearch dashboard` asks for, from 16 characters; by default a new one.",
    "HPSEARCH_JOB": "Name of the job that a worker runs in, shown by `hpsearch status`; launchers set it.",
}
"""Set by a person, or by a launcher."""
GIVEN = {
    "HPSEARCH_STUDY": "The study's name.",
    "HPSEARCH_EVENT": "finished, paused, limit, stopped or failed.",
    "HPSEARCH_MESSAGE": "The message, as on standard input.",
    "HPSEARCH_HOST": "The machine that sends it.",
    "HPSEARCH_TRIALS_FINISHED": "Trials that have ended.",
    "HPSEARCH_TRIALS_WANTED": "Trials in all.",
    "HPSEARCH_OBJECTIVE": "The first objective.",
    "HPSEARCH_BEST_VALUE": "The best trial's value of it; empty where no trial is complete.",
    "HPSEARCH_BEST_TRIAL": "The best trial's number; empty where no trial is complete.",
}
"""Given to the command of `--notify`."""
INTERNAL = {
    "HPSEARCH_STARTED_BY_RUN": "Process that keeps this worker running: the worker ends with it.",
    "HPSEARCH_DEVICE_PARTS": "Number of trainers that share the device; set for trainers.",
}
"""Between hpsearch's own processes: not for people."""
