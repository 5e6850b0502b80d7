"""The read model's tables, whose names all end in a suffix while they are being rebuilt beside the live ones.

`fact_versions` keeps each version by its position in ingest's store; `fact_placements` indexes the current ones and
`fact_superseded` the others, by bucket, source and start (services/analytics/placement.py), narrow, so that a viewport
scans them alone. Why: docs/adr/0006-read-model.md.
"""

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, SmallInteger, Table, Text

_ROWID = BigInteger().with_variant(Integer, "sqlite")
_EDGES = ("west", "south", "east", "north")


class Tables:
    """The tables of one suffix."""

    def __init__(self, suffix: str = "") -> None:
        self.suffix = suffix
        self.metadata = MetaData()
        self.names = self._names()
        self.buckets = self._buckets()
        self.versions = self._versions()
        self.history = self._history()
        self.placements = self._placements("fact_placements")
        superseded_us = Column("superseded_us", BigInteger, nullable=False)
        self.superseded = self._placements("fact_superseded", superseded_us)

    def sql(self, text: str) -> str:
        """A statement whose table names are written with `~` for the suffix."""
        return text.replace("~", self.suffix)

    def _names(self) -> Table:
        """Codes of sources, kinds and instruments."""
        code = Column("code", Integer, primary_key=True, autoincrement=False)
        return Table(f"fact_names{self.suffix}", self.metadata, code, Column("text", Text, nullable=False))

    def _buckets(self) -> Table:
        """The buckets in use by each source, with what each promises of its facts (placement.Bucket).

        By their western edge: a viewport reads those of its own band (placement.westernmost).
        """
        west, *edges = _EDGES
        return Table(
            f"fact_buckets{self.suffix}",
            self.metadata,
            Column("source", Integer, primary_key=True),
            Column("plain", SmallInteger, primary_key=True),
            Column(west, Integer, primary_key=True),
            Column("bucket", BigInteger, primary_key=True),
            Column("span_us", BigInteger, nullable=False),
            *(Column(edge, Integer, nullable=False) for edge in edges),
            sqlite_with_rowid=False,
        )

    def _versions(self) -> Table:
        return Table(
            f"fact_versions{self.suffix}",
            self.metadata,
            Column("position", _ROWID, primary_key=True, autoincrement=False),
            Column("fact_id", LargeBinary, nullable=False),
            Column("revision", Integer, nullable=False),
            Column("change", SmallInteger, nullable=False),
            Column("recorded_us", BigInteger, nullable=False),
            Column("instrument", Integer, nullable=False),
            Column("attendance_minimum", Integer, nullable=False),
            Column("attendance_maximum", Integer, nullable=False),
            Column("bucket", BigInteger, nullable=False),
            Column("source", Integer, nullable=False),
            Column("starts_us", BigInteger, nullable=False),
            Column("title", Text, nullable=False),
            # The serialised Fact; last, so that a row without need of it does not read it.
            Column("body", LargeBinary, nullable=False),
        )

    def _history(self) -> Table:
        """A table and not an index, because a rebuild makes indexes last and supersedes versions meanwhile."""
        return Table(
            f"fact_history{self.suffix}",
            self.metadata,
            Column("fact_id", LargeBinary, primary_key=True),
            Column("position", BigInteger, primary_key=True),
            sqlite_with_rowid=False,
        )

    def _placements(self, name: str, *more: Column[int]) -> Table:
        return Table(
            f"{name}{self.suffix}",
            self.metadata,
            Column("bucket", BigInteger, primary_key=True),
            Column("source", Integer, primary_key=True),
            Column("starts_us", BigInteger, primary_key=True),
            Column("position", BigInteger, primary_key=True),
            Column("ends_us", BigInteger, nullable=False),
            Column("longitude", Integer, nullable=False),
            Column("latitude", Integer, nullable=False),
            Column("kind", Integer, nullable=False),
            Column("status", SmallInteger, nullable=False),
            Column("cell", BigInteger, nullable=False),
            Column("recorded_us", BigInteger, nullable=False),
            # Absent where the fact is one point and one period.
            *(Column(edge, Integer) for edge in _EDGES),
            *more,
            sqlite_with_rowid=False,
        )
