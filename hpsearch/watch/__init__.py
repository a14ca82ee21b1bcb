"""Looking at studies: status tables, the live terminal, plots, the report, the dashboard.

Reads the store; writes nothing into it but which pictures the dashboard shows.
"""
