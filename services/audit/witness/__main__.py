"""`python -m services.audit.witness`: settings from the environment, then serve until asked to stop."""

from services.audit.witness.settings import WitnessSettings
from services.audit.witness.wiring import run
from services.kernel.config import load

if __name__ == "__main__":
    run(load(WitnessSettings))
