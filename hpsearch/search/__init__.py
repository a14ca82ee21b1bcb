"""The search: ask for values, report losses, tell outcomes. The only user of optuna.Study."""

from hpsearch.search.search import ActiveTrial, Search

__all__ = ["ActiveTrial", "Search"]
