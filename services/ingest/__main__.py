"""`python -m services.ingest`: settings from the environment, then serve until asked to stop."""

import gc

from services.ingest.settings import IngestSettings
from services.ingest.wiring import build
from services.kernel import process

# A batch makes thousands of short-lived objects and no cycles: the default of 700 collects dozens of times a batch.
_COLLECT_AFTER = 50_000

if __name__ == "__main__":
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, 20, 20)
    process.main(IngestSettings, build)
