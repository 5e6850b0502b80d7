"""Composition root of a witness, and the life of its process."""

import asyncio
import logging
import signal

import uvloop

from services.audit.witness.door import Witness
from services.audit.witness.protocol import MAX_BODY
from services.audit.witness.settings import WitnessSettings, read_logs
from services.audit.witness.state import WitnessState
from services.kernel import logs, process
from services.kernel.clock import SystemClock
from services.kernel.https import HttpsServer
from services.kernel.keys import read_private_key

_log = logging.getLogger(__name__)


def run(settings: WitnessSettings) -> None:
    """Serves until SIGTERM or SIGINT; exits with 78 where starting again would change nothing."""
    logs.configure(settings)
    process.ending_with_words(lambda: uvloop.run(_serve(settings)))


async def _serve(settings: WitnessSettings) -> None:
    known = read_logs(settings.logs_file)
    state = WitnessState(settings.database_url, known)
    await asyncio.to_thread(state.open)
    key = read_private_key(settings.witness_key_file)
    witness = Witness(settings.witness_name, key, state, known, SystemClock())
    server = HttpsServer(witness, settings.listen, settings.tls, MAX_BODY)
    asked_to_stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked_to_stop.set)
    try:
        port = await server.start()
        _log.info("serving", extra={"port": port, "witness": witness.cosigner.text()})
        await asked_to_stop.wait()
    finally:
        await server.stop()
        state.close()
