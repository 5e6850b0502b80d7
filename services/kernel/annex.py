"""Annex 1 in use is the signed one, or nothing is let in (art2.documents)."""

import asyncio
import logging
from typing import Final

from planier.access.v1.access_pb2 import GetCommitmentsRequest
from planier.access.v1.access_pb2_grpc import AccessServiceStub

from services.kernel.config import CannotStart
from services.kernel.errors import Problem
from services.kernel.registry import Registry

CALL_SECONDS: Final = 2.0
PAUSE_SECONDS: Final = 0.5

logger = logging.getLogger(__name__)


class AnnexMismatchError(CannotStart):
    """The annex of this deployment is not the one that the parties signed: the service does not start."""


async def await_signed(access: AccessServiceStub, registry: Registry) -> None:
    """Returns once access commits to the hash of this very annex; waits while it is silent or nothing is signed.

    Raises:
        AnnexMismatchError: another annex is signed.
    """
    told = ""
    while True:
        try:
            commitments = await access.GetCommitments(GetCommitmentsRequest(), timeout=CALL_SECONDS)
        except Problem as problem:
            why = problem.reason
        else:
            if commitments.annex_hash == registry.hash:
                return
            if commitments.annex_hash:
                message = f"annex 1 here has SHA-256 {registry.hash}, the signed one {commitments.annex_hash}"
                raise AnnexMismatchError(message)
            why = "NO_CONVENTION"
        if why != told:
            logger.info("waiting for the signed annex: %s", why)
            told = why
        await asyncio.sleep(PAUSE_SECONDS)
