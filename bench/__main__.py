"""`make bench [ARGS=...]`: measures, prints and writes var/bench.json. Usage: python -m bench [GROUP...]."""

import sys
from collections.abc import Callable, Mapping, Sequence

from bench import access, audit, conflicts, cost, ingest, oversight, read, recheck, revocation, start, tension
from bench import map as map_bench
from bench.harness import OUT, Row, write

GROUPS: Mapping[str, Callable[[], Sequence[Row]]] = {
    "start": start.rows,
    "read": read.rows,
    "access": access.rows,
    "access-decisions": access.decision_rows,
    "audit": audit.rows,
    "telemetry": read.telemetry_rows,
    "recheck": recheck.rows,
    "revocation": revocation.rows,
    "ingest": ingest.rows,
    "ingest-cost": cost.rows,
    "visible": ingest.visible_rows,
    "ingest-postgres": ingest.postgres_rows,
    "overload": ingest.overload_rows,
    "oversight": oversight.rows,
    "tension": tension.rows,
    "conflicts": conflicts.rows,
    "map": map_bench.rows,
}


def main(names: Sequence[str]) -> int:
    """Runs the groups named, or all; 1 where a goal is not met."""
    unknown = set(names) - set(GROUPS)
    if unknown:
        print(f"no such group: {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}")
        return 2
    met = True
    for name in names or GROUPS:
        rows = GROUPS[name]()
        for row in rows:
            print(row, flush=True)
            met = met and row.met
        write(rows)
    print(f"written to {OUT}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
