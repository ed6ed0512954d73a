"""Runs programs with a time limit. Each ends with its child processes, and logs to a file."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

TAIL = 30
WIDTH = 400


class Failure(Exception):
    """The reason for which a script ends, and its log file."""

    status = 1

    def __init__(self, reason, log=None):
        super().__init__(reason)
        self.log = log

    def __str__(self):
        reason = super().__str__()
        if not self.log or not Path(self.log).exists():
            return reason
        lines = Path(self.log).read_text(errors="replace").splitlines()[-TAIL:]
        return "\n".join([reason, f"the end of {self.log}:", *(f"  {line[:WIDTH]}" for line in lines)])


def to_the_end(work):
    """Does the work, prints its result, and exits with a status.

    SIGTERM then ends the program and its child processes, as Ctrl-C does.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        print(work())
    except Failure as failure:
        print(failure, file=sys.stderr)
        sys.exit(failure.status)
    except AssertionError as failure:
        sys.exit(f"assertion failed: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)


def start(command, log, answer=None, **options):
    """Starts a program in its own process group.

    `log` gets its output, except stdout if `answer` is set.
    """
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as said, open(answer, "wb") if answer else contextlib.nullcontext(said) as output:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=said, start_new_session=True, **options
        )


def stop(process, timeout_s=15):
    """Ends a program and its child processes."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout_s)
    # Child processes may outlive it.
    kill(process)


def kill(process):
    """Ends a program and its child processes, which cannot clean up."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def running(command, log, end=stop, **options):
    """Runs a program while the block runs."""
    process = start(command, log, **options)
    try:
        yield process
    finally:
        end(process)


def run(command, log, within_s, **options):
    """Runs a program to its end."""
    name = " ".join(str(word) for word in command[:2])
    with running(command, log, **options) as process:
        try:
            status = process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise Failure(f"{name} did not end within {within_s} s", log) from None
    if status:
        raise Failure(f"{name}: exit status {status}", log)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(ask, what, within_s=60, log=None, pause_s=0.2):
    """Calls `ask` until its result is true, and returns it."""
    end = time.monotonic() + within_s
    while True:
        if answer := ask():
            return answer
        if time.monotonic() > end:
            raise Failure(f"timed out after {within_s} s, waiting for: {what() if callable(what) else what}", log)
        time.sleep(pause_s)


def there(process, name, ask, log):
    """Calls `ask` until a started program responds, and returns the result."""

    def look():
        if process.poll() is not None:
            raise Failure(f"{name}: exit status {process.returncode}", log)
        with contextlib.suppress(OSError):
            return ask()

    return until(look, f"{name} responds", log=log)
