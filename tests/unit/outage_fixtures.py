"""A database that is out of reach for a while."""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import OperationalError


class Outage:
    """While `is_down`, no transaction can begin."""

    is_down = False
    refused = 0

    def begin(self, _: object) -> None:
        if self.is_down:
            self.refused += 1
            raise OperationalError("BEGIN", {}, sqlite3.OperationalError("the server closed the connection"))
