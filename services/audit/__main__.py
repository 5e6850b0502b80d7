"""`python -m services.audit`: settings from the environment, then serve until asked to stop."""

from services.audit.settings import AuditSettings
from services.audit.wiring import build
from services.kernel import process

if __name__ == "__main__":
    process.main(AuditSettings, build)
