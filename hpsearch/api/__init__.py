"""The Python interface: what a notebook reads of studies, and asks of final runs (`docs/reference/python.md`).

It is thin: what is shown here is what `hpsearch status`, `best`, `report` and `predict` show, in DataFrames.
"""

import warnings

with warnings.catch_warnings():
    # In a kernel without ipywidgets tqdm warns when Optuna imports it, even if no bar is shown (tqdm 4.70,
    # autonotebook.py and notebook.py; Optuna 5.0, progress_bar.py). No bar is shown here.
    warnings.filterwarnings("ignore", "IProgress not found")
    import optuna  # noqa: F401
