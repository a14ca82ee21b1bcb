"""The training plane: a child process that builds models, trains, evaluates, and gives all memory back.

It reads and writes one trial folder at a time and speaks `protocol` with its worker, who starts it as a process. It
knows no store, no Optuna and no database.
"""
