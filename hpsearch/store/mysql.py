"""What is special about MySQL and MariaDB.

Their tables compare text by the database's collation, by default ignoring case, accents and trailing blanks: `Demo`
would be the study `demo`, and a parameter with a Russian name an error in a Latin database. So an empty database is
set to compare exactly. One class of their errors holds outages and mistakes alike: the error number tells which.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import create_engine, inspect, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError

from hpsearch.errors import InputError

COLLATION = "utf8mb4_bin"

_OUTAGES = {
    *(1040, 1042, 1043, 1203, 1226),  # too many connections; no handshake
    *(1044, 1045, 1049),  # no such user, password or database: as with PostgreSQL, it may exist soon
    *(1053, 1077, 1079, 1080, 1317, 1927, 4031),  # shut down, killed, idle for too long
    *(1158, 1159, 1160, 1161),  # the network
    *(1205, 1206, 1213),  # a held lock, a deadlock: the other transaction continues
    *(1969, 3024),  # a statement that took too long
    *(1290, 1836),  # read-only: a replica, until it becomes the primary
    *(3, 1021, 1037, 1038, 1041, 1114, 1135),  # no space, no memory
}
"""https://mariadb.com/docs/server/reference/error-codes and, from 2000 on, those of the client."""


def is_outage(error: Any) -> bool:
    """Whether a driver's OperationalError is temporary."""
    number = error.args[0] if error.args else 0
    return number in _OUTAGES or (isinstance(number, int) and 2000 <= number < 3000)


def compare_exactly(url: URL, options: dict[str, Any]) -> None:
    """Gives a database without tables the character set and the collation that our tables and Optuna's need.

    Raises InputError where it has others and may not be changed.
    """
    engine = create_engine(url, **options)
    try:
        with engine.connect() as connection:
            found = str(connection.scalar(text("SELECT @@collation_database")))
            if found.startswith("utf8mb4") and found.endswith(("_bin", "_as_cs")):
                return
            if inspect(connection).get_table_names():
                return  # existing tables hold studies, which stay readable
            name = engine.dialect.identifier_preparer.quote_identifier(str(url.database))
            change = f"ALTER DATABASE {name} CHARACTER SET utf8mb4 COLLATE {COLLATION}"
            try:
                connection.execute(text(change))
            except OperationalError as error:
                raise InputError(
                    f"--store: the database {url.database} compares text as {found} and may not be changed by "
                    f"{url.username}; ask its administrator to run once: {change}"
                ) from error
    finally:
        engine.dispose()
