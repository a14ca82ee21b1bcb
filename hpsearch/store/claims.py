"""Claims: of several processes that see the same event in a study, only one announces it.

A claim is a row among the study's system attributes, in Optuna's own table, where a key can exist once (`UNIQUE
(study_id, key)`; 5.0.0, storages/_rdb/models.py): the database refuses the second. It is deleted with the study.
"""

from __future__ import annotations

from sqlalchemy import Engine, column, delete, insert, table
from sqlalchemy.exc import IntegrityError

_attributes = table("study_system_attributes", column("study_id"), column("key"), column("value_json"))
_PREFIX = "hpsearch:claim:"


class Claims:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def take(self, study_id: int, what: str) -> bool:
        """False where it is taken already."""
        values = {"study_id": study_id, "key": f"{_PREFIX}{what}", "value_json": "true"}
        try:
            with self._engine.begin() as connection:
                connection.execute(insert(_attributes).values(values))
        except IntegrityError:
            return False
        return True

    def give_up(self, study_id: int) -> None:
        """Removes all claims of the study, so that later events are reported again."""
        own = (_attributes.c.study_id == study_id) & _attributes.c.key.startswith(_PREFIX)
        with self._engine.begin() as connection:
            connection.execute(delete(_attributes).where(own))
