"""The pulse of a study: when any of its workers last reached the store, and until when no lease is taken over.

After an outage all leases have expired, and the first worker to return would take over trials from workers that live
and are only slower to return. So each heartbeat also writes the pulse. A worker that finds a pulse older than any
worker stays silent knows that the store was away, for whatever time, and gives all holders one lease time to renew.
"""

from __future__ import annotations

from sqlalchemy import Connection, and_, case, update

from hpsearch.store.tables import studies

_SILENCE_S = 30.0
"""A worker with a lease renews it every ten seconds; one without asks for a trial twice a second."""
_NOTE_EVERY_S = 5.0
"""Otherwise many workers would update the mark many times a second and wait for each other."""
GRACE_S = 60.0


def beat(connection: Connection, study_id: int, now: float, seen_at: float, grace_until: float) -> float:
    """A sign of life of any of the study's workers, at `now` by the database's clock; the caller has locked the study's
    row and read its marks. Returns the time until which no lease of a silent worker is taken over.
    """
    if seen_at >= now - _NOTE_EVERY_S:
        return grace_until
    until = now + GRACE_S if seen_at < now - _SILENCE_S else grace_until
    chosen = studies.c.study_id == study_id
    connection.execute(update(studies).where(chosen).values(grace_until=until, seen_at=now))
    return until


def renew(connection: Connection, study_id: int, now: float) -> None:
    """The same from a worker that has not read the marks; it waits for the row only where there is something to
    update.
    """
    was_away = studies.c.seen_at < now - _SILENCE_S
    grace = case((was_away, now + GRACE_S), else_=studies.c.grace_until)
    chosen = and_(studies.c.study_id == study_id, studies.c.seen_at < now - _NOTE_EVERY_S)
    # The order matters: MySQL sets one column after the other, and the second would see the first one's new value.
    values = (studies.c.grace_until, grace), (studies.c.seen_at, now)
    connection.execute(update(studies).where(chosen).ordered_values(*values))
