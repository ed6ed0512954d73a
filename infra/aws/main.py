"""Deploys Cairn to an AWS account for the first time, and tries what no emulator shows.

The steps deploy a stack of its own, use it, break it, and delete it. The result of each goes into a
report in Markdown, target/first-deployment/report.md. The script uses the credentials that the AWS SDK finds: set
AWS_PROFILE and AWS_REGION (or AWS_DEFAULT_REGION). It serves the public key of its test tokens from an S3 bucket, which the step delete removes.

With --endpoint or --ministack it runs against MiniStack, as far as MiniStack can.

Exit status: 0 every step that was possible succeeded; 1 a step failed; 2 invalid arguments, or the user declined.
"""

import argparse
import contextlib
import os
import sys
import time
from pathlib import Path

# For the modules of infra/localstack.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "localstack"))

import binaries  # noqa: E402
import tools  # noqa: E402
from processes import Failure, to_the_end  # noqa: E402
from report import NotHere, Report, Result  # noqa: E402
from server import ministack  # noqa: E402
from steps import CHANGING, ORDER, Steps  # noqa: E402


# The maximum length of a reason in the report.
LENGTH = 2000


class Declined(Failure):
    status = 2


def arguments():
    names = [name.replace("_", "-") for name in ORDER]
    parser = argparse.ArgumentParser(
        prog="infra/aws/first-deployment", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plan", action="store_true", help="print the steps and do nothing")
    parser.add_argument("--yes", action="store_true", help="do not ask before resources are created")
    parser.add_argument("--stack", default="cairn-first", metavar="NAME", help="name of the stack; default: %(default)s")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--only", nargs="+", choices=names, metavar="STEP", help="run only these steps")
    which.add_argument("--skip", nargs="+", choices=names, default=[], metavar="STEP", help="leave out these steps")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--endpoint", metavar="URL", help="run against MiniStack at this URL")
    where.add_argument("--ministack", action="store_true", help="start MiniStack, and run against it")
    parser.add_argument("--rates", nargs="+", type=int, default=[1, 10, 30], metavar="N", help="orders per second of the load")
    parser.add_argument("--load-seconds", type=int, default=60, metavar="S", help="duration of each rate")
    parser.add_argument("--skus", type=int, default=50, metavar="N", help="number of SKUs of the load")
    binaries.add_arguments(parser)
    given = parser.parse_args()
    chosen = [name for name in given.only or names if name not in given.skip]
    given.steps = [name for name in ORDER if name.replace("_", "-") in chosen]
    return given


def agree(given, target, changing):
    """Asks before the account is changed."""
    if given.yes or not changing or not target.is_aws:
        return
    print(f"These steps change {target.where}: {', '.join(changing)}.")
    print("They create some 250 resources, a public S3 bucket with two public documents, and orders.")
    if not sys.stdin.isatty() or input("Continue? [y/N] ").strip().lower() not in ("y", "yes"):
        raise Declined("nothing was created; --yes answers in advance")


def carry_out(step, name, number, count):
    """Runs one step, prints its progress, and returns its result."""
    shown = name.replace("_", "-")
    print(f"[{number:>2}/{count}] {shown}: {step.__doc__}", flush=True)
    began = time.monotonic()
    try:
        outcome, notes = "ok", step() or []
    except NotHere as reason:
        outcome, notes = "not on this emulator" if "MiniStack" in str(reason) else "not possible", [str(reason)]
    # One step that fails does not end the list.
    except Exception as failure:
        outcome, notes = "failed", [*getattr(failure, "notes", []), str(failure)[:LENGTH]]
    result = Result(shown, outcome, time.monotonic() - began, notes)
    print(f"[{number:>2}/{count}] {shown}: {outcome}  {result.seconds:.1f} s", flush=True)
    return result


def run(given):
    tools.enter()
    # Imported here because they need boto3, which `enter` installs.
    import target as targets

    with contextlib.ExitStack() as open_things:
        endpoint = given.endpoint or (given.ministack and open_things.enter_context(ministack()))
        if endpoint:
            target = targets.Emulator(endpoint, given, open_things)
        else:
            target = targets.Account(given, open_things)
        agree(given, target, [name for name in given.steps if name in CHANGING])
        target.refuse_foreign()
        targets.WORK.mkdir(parents=True, exist_ok=True)
        steps, report = Steps(target, given), Report(target.where)
        for number, name in enumerate(given.steps, 1):
            # Without a deployment, only what it left can be deleted and listed.
            if report.failed() and not target.stack.resources and name not in ("delete", "leftovers"):
                continue
            report.add(carry_out(getattr(steps, name), name, number, len(given.steps)))
            (targets.WORK / "report.md").write_text(report.markdown())
    if report.failed():
        raise Failure(report.markdown())
    return report.markdown()


def main():
    given = arguments()
    if given.plan:
        for number, name in enumerate(given.steps, 1):
            print(f"{number:>2}. {name.replace('_', '-'):<15} {getattr(Steps, name).__doc__}")
        return
    # boto3 and SAM read only the second variable, the AWS CLI and `cairn` the first.
    if region := os.environ.get("AWS_REGION"):
        os.environ["AWS_DEFAULT_REGION"] = region
    if given.endpoint:
        # The tool and the functions of an emulator must not reach an account.
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            del os.environ[name]
    to_the_end(lambda: run(given))


if __name__ == "__main__":
    main()
