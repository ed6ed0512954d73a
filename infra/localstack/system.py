"""Runs the local system."""

import contextlib
import re

from processes import run, running, stop, there
from tools import ROOT

BUILDING_S = 3600


def build(log):
    """Builds the local system and returns the program."""
    run(["cargo", "build", "--locked", "--package", "cairn-local"], log, BUILDING_S, cwd=ROOT)
    return ROOT / "target" / "debug" / "cairn-local"


@contextlib.contextmanager
def system(program, log, *options, end=stop):
    """Runs the local system on free ports, and yields its HTTP API and AWS endpoint."""
    command = [program, "--port", "0", "--aws-port", "0", "--quiet", *options]
    with running(command, log, end, cwd=ROOT) as process:

        def addresses():
            found = dict(re.findall(r"^(HTTP API|AWS endpoint) +(\S+)$", log.read_text(), re.MULTILINE))
            return len(found) == 2 and found

        found = there(process, "the local system", addresses, log)
        yield found["HTTP API"], found["AWS endpoint"]
