"""The persistent store: Optuna's tables and ours beside them, in one database.

Every method is one short transaction.
"""

from hpsearch.store.fence import Handover, Lease
from hpsearch.store.launches import LaunchedJob, StoredLaunch
from hpsearch.store.store import Store
from hpsearch.store.studies import StoredStudy, UnreadableStudy
from hpsearch.store.workers import Activity, StoredWorker

__all__ = [
    "Activity",
    "Handover",
    "LaunchedJob",
    "Lease",
    "Store",
    "StoredLaunch",
    "StoredStudy",
    "StoredWorker",
    "UnreadableStudy",
]
