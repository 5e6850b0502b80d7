"""`python -m services.access`: settings from the environment, then serve until asked to stop."""

from services.access.settings import AccessSettings
from services.access.wiring import build
from services.kernel import process

if __name__ == "__main__":
    process.main(AccessSettings, build)
