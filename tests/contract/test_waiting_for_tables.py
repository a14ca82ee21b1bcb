"""Workers that start together wait for each other's changes to the tables, and not for ever."""

from __future__ import annotations

import psycopg
import pytest
from contract_parts import opened
from sqlalchemy import make_url

from hpsearch.errors import StoreUnreachable
from hpsearch.store.migrate import _LOCK_NUMBER


@pytest.mark.parametrize("backend", ["postgresql"])
def test_one_that_takes_too_long_is_an_outage(store_url: str) -> None:
    """A worker outlives it, as it does any other: it tries again."""
    url = make_url(store_url)
    impatient = url.update_query_dict({"options": "-c lock_timeout=50"}).render_as_string(hide_password=False)
    with psycopg.connect(url.set(drivername="postgresql").render_as_string(hide_password=False)) as other:
        other.execute(f"SELECT pg_advisory_lock({_LOCK_NUMBER})".encode())
        with pytest.raises(StoreUnreachable, match="lock timeout"):
            opened(impatient)
    opened(impatient).close()
