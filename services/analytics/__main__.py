"""`python -m services.analytics`: settings from the environment, follow ingest, serve until asked to stop."""

from services.analytics.settings import AnalyticsSettings
from services.analytics.wiring import build
from services.kernel import process

if __name__ == "__main__":
    process.main(AnalyticsSettings, build)
