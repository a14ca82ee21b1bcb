"""The Python interface: what a notebook reads of studies, and asks of final runs (`docs/reference/python.md`).

It is thin: what is shown here is what `hpsearch status`, `best`, `report` and `predict` show, in DataFrames.
"""
