"""The search: ask for values, report losses, tell outcomes. The only user of optuna.Study.

May import `store`, `trial`, `spec` and `errors`.
"""

from hpsearch.search.search import ActiveTrial, Search

__all__ = ["ActiveTrial", "Search"]
