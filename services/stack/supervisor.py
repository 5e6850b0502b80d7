"""Starts processes in order, watches them, and stops them in reverse."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

STOP_GRACE = 15.0
START_PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Process:
    """One process as data: what to run, with which variables, and how to see that it serves."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    serves: Callable[[], bool] = lambda: True
    stop_signal: signal.Signals = signal.SIGTERM


class Died(Exception):  # noqa: N818 -- what happened, not a programming error
    """A process ended that should not have: which, how, and its last words."""

    def __init__(self, name: str, status: int, last_lines: Sequence[str]) -> None:
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"exited with status {status}"
        super().__init__("\n    ".join([f"{name} {how}; its last lines:", *last_lines]))
        self.name = name


class Supervisor:
    """Owns the child processes of one installation; each child's output goes to its own file."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: dict[str, tuple[Process, subprocess.Popen[bytes]]] = {}
        logs.mkdir(parents=True, exist_ok=True)

    def start(self, process: Process) -> None:
        """Starts a process without waiting for it to serve."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PLANIER_")}
        with self.log_of(process.name).open("ab") as log:
            child = subprocess.Popen(  # noqa: S603 -- the commands are this module's callers' own
                process.command,
                env={**clean, **process.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C reaches only the supervisor, which stops the children in order.
                start_new_session=True,
            )
        self._running[process.name] = (process, child)

    def wait_until_serving(self, name: str, patience: float = START_PATIENCE) -> None:
        """Returns when the process serves; raises Died, or TimeoutError after `patience` seconds."""
        process, _ = self._running[name]
        deadline = time.monotonic() + patience
        while not process.serves():
            self.check()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{name} does not serve after {patience:.0f} s; see {self.log_of(name)}")
            time.sleep(0.05)

    def check(self) -> None:
        """Raises Died for the first child found dead."""
        for name, (_, child) in self._running.items():
            status = child.poll()
            if status is not None:
                raise Died(name, status, self._last_lines(name))

    def pid(self, name: str) -> int:
        """The process id of a child."""
        return self._running[name][1].pid

    def kill(self, name: str) -> None:
        """Kills a child with SIGKILL and forgets it."""
        _, child = self._running.pop(name)
        child.kill()
        child.wait()

    def stop(self, name: str) -> None:
        """Asks a child to stop, kills it after a grace, and forgets it."""
        process, child = self._running.pop(name)
        if child.poll() is None:
            child.send_signal(process.stop_signal)
        try:
            child.wait(STOP_GRACE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    def stop_all(self) -> None:
        """Stops every child, the last started first."""
        for name in reversed(list(self._running)):
            self.stop(name)

    def log_of(self, name: str) -> Path:
        """The file that holds a child's output."""
        return self._logs / f"{name}.log"

    def _last_lines(self, name: str) -> list[str]:
        return self.log_of(name).read_text(errors="replace").splitlines()[-10:]
