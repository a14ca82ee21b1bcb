"""The pulse of a study: when one of its workers last reached the store, and until when nobody takes over.

After an outage all leases have run out, and the first worker to return would take over from those that live and are
only slower to return. So each sign of life moves a mark in the database. Whoever finds that the mark stood still for
longer than any worker stays silent knows that the store was away, however long, and gives all holders the time of a
lease to renew.
"""

from __future__ import annotations

from sqlalchemy import Connection, case, update

from hpsearch.store.tables import studies

_SILENCE_S = 30.0
"""A worker with a lease renews it every ten seconds; one without asks for a trial twice a second."""
GRACE_S = 60.0


def beat(connection: Connection, study_id: int, now: float) -> None:
    """A sign of life of any of the study's workers, at `now` by the database's clock."""
    was_away = studies.c.seen_at < now - _SILENCE_S
    grace = case((was_away, now + GRACE_S), else_=studies.c.grace_until)
    connection.execute(update(studies).where(studies.c.study_id == study_id).values(grace_until=grace, seen_at=now))
