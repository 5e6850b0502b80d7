"""`planier`: what officers, officials and auditors do from a terminal."""

from services.cli.app import main

__all__ = ["main"]
