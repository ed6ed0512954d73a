"""Tests functions that run as processes over the Lambda Runtime API.

The order system runs twice, with its functions in the program and as processes. The same acceptance
scenarios, with the operator's tool, pass both ways, and the output has the time and the memory of each. One process of every
function is then killed while orders are in progress, and no order is lost.

`cairn local` runs infra/examples/python, whose functions use AWS's Runtime Interface Client and
boto3. They are invoked by a table stream, a rule and a queue, succeed, fail, are retried, and end as
dead letters.

Exit status 0: all steps passed. 1: one failed; the output names the reason. 2: invalid command line.
"""

import argparse
import os
import sys
from pathlib import Path

# The modules for processes and for the system are in infra/localstack.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "localstack"))

import tools  # noqa: E402
from processes import run, to_the_end  # noqa: E402

WORK = tools.ROOT / "target" / "process"
# The versions are pinned, because another one can need other answers from the local system.
PYTHON = WORK / "python", ["awslambdaric==4.2.2", "boto3==1.44.8", "cryptography"]
BUILDING_S = 3600


def arguments():
    parser = argparse.ArgumentParser(
        prog="infra/process/run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--built", action="store_true", help="use the programs of the last `cargo build --workspace --bins`"
    )
    parser.add_argument("--only", choices=["orders", "python"], help="run one part")
    return parser.parse_args()


def programs():
    """Returns the folder of the last build."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", tools.ROOT / "target"))
    return target / "debug"


def main():
    given = arguments()

    def work():
        folder = tools.install(PYTHON)
        if Path(sys.prefix) != PYTHON[0]:
            os.execv(folder / "python", [folder / "python", "-B", *sys.argv])
        if not given.built:
            build = ["cargo", "build", "--locked", "--workspace", "--bins"]
            run(build, WORK / "cargo-build.log", BUILDING_S, cwd=tools.ROOT)
        # Imported here because they need the packages.
        import orders
        import python_example

        parts = {"orders": orders.run, "python": python_example.run}
        for name, part in parts.items():
            if given.only in (None, name):
                print(part(programs(), WORK, folder))
        return "all parts passed"

    to_the_end(work)


if __name__ == "__main__":
    main()
