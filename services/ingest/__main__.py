"""`python -m services.ingest`: settings from the environment, then serve until asked to stop."""

from services.ingest.settings import IngestSettings
from services.ingest.wiring import build
from services.kernel import process

if __name__ == "__main__":
    process.main(IngestSettings, build)
