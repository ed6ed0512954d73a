"""Sends the HTTP API of the local system valid and invalid requests, and checks every answer.

Schemathesis, from PyPI, generates the requests from docs/openapi.yaml: its examples, values at and
beyond the limit of every constraint, random values, and sequences that follow the links. Each
answer must match the document in status, media type, headers and body. A valid request must be
accepted, an invalid one must be refused, and no request may cause a server error.

Exit status 0: all checks passed. 1: a check failed; the output shows the requests. 2: invalid
command line.
"""

import argparse
import os
import re
import sys
from pathlib import Path

# The modules for tools, processes and the system are in infra/localstack.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "localstack"))

import tools  # noqa: E402
from processes import Failure, run, to_the_end  # noqa: E402
from progress import Progress  # noqa: E402
from system import build, system  # noqa: E402

HERE = Path(__file__).resolve().parent
DOCUMENT = tools.ROOT / "docs" / "openapi.yaml"
WORK = tools.ROOT / "target" / "schemathesis"
# The requests depend on these versions as well as on the seed.
SCHEMATHESIS = WORK / "tools", ["schemathesis==4.32.5", "hypothesis==6.170.17"]
LOG = WORK / "schemathesis.log"
SEED = 1
EXAMPLES = 200
RUNNING_S = 600


def arguments():
    parser = argparse.ArgumentParser(
        prog="infra/schemathesis/run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--binary", type=Path, metavar="FILE", help="program to run instead of a new build")
    parser.add_argument("--seed", type=int, default=SEED, metavar="N", help="seed of the requests; default %(default)s")
    parser.add_argument(
        "--examples", type=int, default=EXAMPLES, metavar="N", help="random requests for each route; default %(default)s"
    )
    found = parser.parse_args()
    if found.binary and not os.access(found.binary, os.X_OK):
        parser.error(f"{found.binary} is not a program")
    return found


def schemathesis(programs, api, given):
    """Runs Schemathesis, and returns its summary."""
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
        raise Failure(f"the API does not match docs/openapi.yaml: the requests are above and in {LOG}") from failure
    return re.search(r"^=+ SUMMARY =+$.*", LOG.read_text(), re.MULTILINE | re.DOTALL)[0].strip()


def all_steps(given):
    """Runs all steps, and returns a summary."""
    progress = Progress(3)
    log = WORK / "cairn-local.log"
    with progress.step("Schemathesis is installed"):
        programs = tools.install(SCHEMATHESIS)
    with progress.step("the local system is built"):
        program = given.binary.resolve() if given.binary else build(WORK / "cargo-build.log")
    with system(program, log, "--parameter", "Authorization=none") as (api, _):
        with progress.step(f"the API matches docs/openapi.yaml, with seed {given.seed}"):
            found = schemathesis(programs, api, given)
            # Accepted requests have passed through the whole system, so check its functions too.
            if "ERROR" in log.read_text():
                raise Failure("every answer is correct, but a function failed", log)
    return f"{found}\n{progress.summary()}"


def main():
    given = arguments()
    to_the_end(lambda: all_steps(given))


if __name__ == "__main__":
    main()
