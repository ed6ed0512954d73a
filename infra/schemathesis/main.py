"""Sends the HTTP API of the one-machine system what docs/openapi.yaml allows, and what it does not, and checks every answer.

Schemathesis, from PyPI, makes the requests out of the document: its examples, the edges of every constraint and what lies
beyond, random ones, and sequences that follow the links. Each answer has to have a status, a media type, headers and a body of
the document; what is allowed has to be taken, what is not has to be refused, and nothing may be a mistake of the server's.

Status 0: all went as it must. 1: it did not, with the requests. 2: it was called wrongly.
"""

import argparse
import os
import re
import sys
from pathlib import Path

# The tools, the processes and the system are those of infra/localstack.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "localstack"))

import tools  # noqa: E402
from processes import Failure, run, to_the_end  # noqa: E402
from progress import Progress  # noqa: E402
from system import build, system  # noqa: E402

HERE = Path(__file__).resolve().parent
DOCUMENT = tools.ROOT / "docs" / "openapi.yaml"
WORK = tools.ROOT / "target" / "schemathesis"
# The versions make the requests as much as the seed does: others send others.
SCHEMATHESIS = WORK / "tools", ["schemathesis==4.32.5", "hypothesis==6.170.17"]
LOG = WORK / "schemathesis.log"
SEED = 1
EXAMPLES = 200
RUNNING_S = 600


def arguments():
    parser = argparse.ArgumentParser(
        prog="infra/schemathesis/run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--binary", type=Path, metavar="FILE", help="build nothing, run this, say target/debug/cairn-local")
    parser.add_argument("--seed", type=int, default=SEED, metavar="N", help="other requests; by default %(default)s")
    parser.add_argument(
        "--examples", type=int, default=EXAMPLES, metavar="N", help="how many random requests each route gets; by default %(default)s"
    )
    found = parser.parse_args()
    if found.binary and not os.access(found.binary, os.X_OK):
        parser.error(f"{found.binary} is not a program")
    return found


def schemathesis(programs, api, given):
    """Runs it, and returns its summary."""
    command = [
        programs / "schemathesis", "--no-color", "--config-file", HERE / "schemathesis.toml", "run", DOCUMENT,
        "--url", api, "--seed", str(given.seed), "--max-examples", str(given.examples),
    ]
    environment = {
        **os.environ,
        "SCHEMATHESIS_HOOKS": str(HERE / "exceptions.py"),
        "NO_PROXY": "127.0.0.1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    try:
        run(command, LOG, RUNNING_S, cwd=WORK, env=environment)
    except Failure as failure:
        found = re.search(r"^=+ (ERRORS|FAILURES) =+$.*", LOG.read_text(), re.MULTILINE | re.DOTALL)
        if not found:
            raise
        print(found[0], flush=True)
        raise Failure(f"the API is not as docs/openapi.yaml says: the requests stand above, and in {LOG}") from failure
    return re.search(r"^=+ SUMMARY =+$.*", LOG.read_text(), re.MULTILINE | re.DOTALL)[0].strip()


def all_steps(given):
    """Goes through all steps, and returns a summary."""
    progress = Progress(3)
    log = WORK / "cairn-local.log"
    with progress.step("Schemathesis is there"):
        programs = tools.install(SCHEMATHESIS)
    with progress.step("the one-machine system is there"):
        program = given.binary.resolve() if given.binary else build(WORK / "cargo-build.log")
    with system(program, log, "--parameter", "Authorization=none") as (api, _):
        with progress.step(f"the API is as docs/openapi.yaml says, by seed {given.seed}"):
            found = schemathesis(programs, api, given)
            # What was taken went through the whole system: nothing there has failed at it.
            if "ERROR" in log.read_text():
                raise Failure("every answer is as it must be, but a function has failed", log)
    return f"{found}\n{progress.summary()}"


def main():
    given = arguments()
    to_the_end(lambda: all_steps(given))


if __name__ == "__main__":
    main()
