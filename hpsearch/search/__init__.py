"""The search: asks for parameter values, reports losses, tells outcomes. The only user of optuna.Study."""

from hpsearch.search.search import ActiveTrial, Search

__all__ = ["ActiveTrial", "Search"]
