"""Crossing's tables, beside those of the facts and under the same suffix while they are rebuilt.

`crossing_facts` holds the current version of each fact that some rule concerns, `crossing_cells` where and when it is,
`crossing_conflicts` one row for each pair of versions (or version that needs something) under a rule with the span of
time in which the platform knew both, `crossing_links` the rows of each fact.
"""

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, SmallInteger, Table, Text

EDGES = ("west", "south", "east", "north")


class CrossingTables:
    """The tables of one suffix, added to a projection's own."""

    def __init__(self, suffix: str, metadata: MetaData) -> None:
        self.suffix = suffix
        self.facts = Table(
            f"crossing_facts{suffix}",
            metadata,
            Column("fact_id", LargeBinary, primary_key=True),
            Column("position", BigInteger, nullable=False),
            Column("since_us", BigInteger, nullable=False),
            Column("starts_us", BigInteger, nullable=False),
            Column("ends_us", BigInteger, nullable=False),
            *_where_and_which(),
            # The serialised Fact, and its shape in metres as WKB.
            Column("body", LargeBinary, nullable=False),
            Column("shape", LargeBinary, nullable=False),
            sqlite_with_rowid=False,
        )
        self.cells = Table(
            f"crossing_cells{suffix}",
            metadata,
            Column("cell", BigInteger, primary_key=True),
            # The class of duration (cells.py).
            Column("span", SmallInteger, primary_key=True),
            Column("starts_us", BigInteger, primary_key=True),
            Column("fact_id", LargeBinary, primary_key=True),
            Column("ends_us", BigInteger, nullable=False),
            *_where_and_which(),
            sqlite_with_rowid=False,
        )
        self.conflicts = self._conflicts(metadata)
        self.links = Table(
            f"crossing_links{suffix}",
            metadata,
            Column("fact_id", LargeBinary, primary_key=True),
            Column("conflict_id", LargeBinary, primary_key=True),
            Column("left_position", BigInteger, primary_key=True),
            Column("right_position", BigInteger, primary_key=True),
            sqlite_with_rowid=False,
        )

    def sql(self, text: str) -> str:
        """A statement whose table names are written with `~` for the suffix."""
        return text.replace("~", self.suffix)

    def _conflicts(self, metadata: MetaData) -> Table:
        table = Table(
            f"crossing_conflicts{self.suffix}",
            metadata,
            Column("conflict_id", LargeBinary, primary_key=True),
            # Versions, by their position in ingest's store; right is 0 for a fact that needs something.
            Column("left_position", BigInteger, primary_key=True),
            Column("right_position", BigInteger, primary_key=True),
            Column("rule", SmallInteger, nullable=False),
            Column("left_fact", LargeBinary, nullable=False),
            Column("right_fact", LargeBinary, nullable=False),
            Column("left_source", Text, nullable=False),
            # Empty for a fact that needs something.
            Column("right_source", Text, nullable=False),
            Column("since_us", BigInteger, nullable=False),
            Column("until_us", BigInteger, nullable=False),
            Column("starts_us", BigInteger, nullable=False),
            Column("ends_us", BigInteger, nullable=False),
            # 1e-7 degree, rounded outwards.
            *(Column(edge, Integer, nullable=False) for edge in EDGES),
            Column("body", LargeBinary, nullable=False),
        )
        Index(f"crossing_by_end{self.suffix}", table.c.ends_us)
        return table


def _where_and_which() -> list[Column[int]]:
    """A box in decimetres, rounded outwards, and the bits of the rules on whose sides the fact is."""
    edges = [Column(edge, Integer, nullable=False) for edge in EDGES]
    return [*edges, *(Column(side, BigInteger, nullable=False) for side in ("left_rules", "right_rules"))]
