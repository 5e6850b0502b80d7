"""`python -m services.ingest`: settings from the environment, then serve until asked to stop."""

from services.ingest.settings import IngestSettings
from services.ingest.wiring import build
from services.kernel import process

# The writing thread gives the lock away some ten times a transaction, and waits this long for it each time.
TURN = 0.001

if __name__ == "__main__":
    process.main(IngestSettings, build, turn=TURN)
