"""What the roll-up owes, kept in the metadata so that a crash at any point loses and doubles nothing.

The unit is a slice: the rows of one batch in one quarter of an hour. Partitions begin and end at full quarters in
every time zone, so a slice lies in one partition, and ClickHouse stores all of it or none. A slice is written here
before it is stored; it leaves with the roll-up that took it. Thus a stored slice is either here or rolled up.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import delete, select, update

from deepflow.resources import Metadata
from deepflow.resources.metadata import owed, rollups

SLICE_S = 900
SLICE_SQL = f"intDiv(toUInt32(time), {SLICE_S})"


@dataclass(frozen=True, slots=True)
class Slice:
    """Rows of one batch in one quarter of an hour: `number` is the time in s divided by 900."""

    batch: int
    number: int
    rows: int


class Journal:
    """The owed slices of all 1s tables."""

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata
        with metadata.begin() as connection:
            # No insert is under way when a server starts: a slice is in the store, or it rolls up to nothing.
            connection.execute(update(owed).values(stored=1))

    def begin(self, table: str, slices: Iterable[Slice]) -> None:
        """Notes slices that are about to be stored; durable on return.

        Raises:
            MetadataError: a roll-up that was begun has one of them; when it is finished, the call can be repeated.
        """
        rows = [
            {"table_name": table, "batch": f"{item.batch:016x}", "slice": item.number, "rows": item.rows, "stored": 0}
            for item in slices
        ]
        with self._metadata.begin() as connection:
            for row in rows:
                connection.execute(
                    delete(owed).where(
                        owed.c.table_name == table,
                        owed.c.batch == row["batch"],
                        owed.c.slice == row["slice"],
                        owed.c.rollup.is_(None),
                    )
                )
            if rows:
                connection.execute(owed.insert(), rows)

    def stored(self, table: str, batches: Iterable[int]) -> None:
        """Notes that all slices of the batches are stored, so that a roll-up may take them."""
        names = [f"{batch:016x}" for batch in batches]
        with self._metadata.begin() as connection:
            connection.execute(update(owed).where(owed.c.table_name == table, owed.c.batch.in_(names)).values(stored=1))

    def take(self, table: str, rollup: int, max_slices: int, max_rows: int) -> list[Slice]:
        """Begins a roll-up: gives it stored slices that none has, oldest first; empty when there are none."""
        with self._metadata.begin() as connection:
            found = connection.execute(
                select(owed.c.batch, owed.c.slice, owed.c.rows)
                .where(owed.c.table_name == table, owed.c.stored == 1, owed.c.rollup.is_(None))
                .order_by(owed.c.slice)
                .limit(max_slices)
            ).all()
            taken: list[Slice] = []
            rows = 0
            for row in found:
                rows += row.rows
                if taken and rows > max_rows:
                    break
                taken.append(Slice(int(row.batch, 16), row.slice, row.rows))
            if taken:
                connection.execute(rollups.insert().values(rollup=f"{rollup:016x}", table_name=table))
            for item in taken:
                connection.execute(
                    update(owed)
                    .where(
                        owed.c.table_name == table, owed.c.batch == f"{item.batch:016x}", owed.c.slice == item.number
                    )
                    .values(rollup=f"{rollup:016x}")
                )
            return taken

    def unfinished(self) -> list[tuple[str, int, list[Slice]]]:
        """Roll-ups that were begun and not ended: table, id, slices."""
        with self._metadata.begin() as connection:
            begun = connection.execute(select(rollups)).all()
            return [
                (
                    row.table_name,
                    int(row.rollup, 16),
                    [
                        Slice(int(item.batch, 16), item.slice, item.rows)
                        for item in connection.execute(select(owed).where(owed.c.rollup == row.rollup)).all()
                    ],
                )
                for row in begun
            ]

    def finish(self, rollup: int) -> None:
        """Ends a roll-up whose rows are stored; its slices are owed no longer."""
        name = f"{rollup:016x}"
        with self._metadata.begin() as connection:
            connection.execute(delete(owed).where(owed.c.rollup == name))
            connection.execute(delete(rollups).where(rollups.c.rollup == name))
