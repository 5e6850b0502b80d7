"""Start of the whole stack, and resident memory per service."""

import time

from bench.harness import Row, medians
from bench.system import running
from services.stack.layout import SERVICES


def rows() -> list[Row]:
    """Seconds from nothing to everything serving (keys, certificates, founding included), MiB per idle service."""
    resident: dict[str, list[float]] = {name: [] for name in SERVICES}

    def once() -> float:
        began = time.perf_counter()
        with running() as system:
            spent = time.perf_counter() - began
            for name in SERVICES:
                resident[name].append(system.resident(name))
        return spent

    (seconds,) = medians(once)
    memory = [Row(f"resident memory, idle: {name}", sorted(values)[1], "MiB") for name, values in resident.items()]
    return [Row("start of the whole stack, first time", seconds, "s"), *memory]
