"""Deploys template.yaml to an AWS emulator, and runs the acceptance scenarios there.

The emulator is MiniStack from PyPI, or the server at AWS_ENDPOINT_URL. The script builds the
functions with cargo-lambda and `sam build`, and deploys with `sam deploy`. The scenarios use the
system over HTTP with tokens of a local issuer. Each function has only the permissions of its role.

With --project, it deploys a project of `cairn new` instead, sends a command, and waits for the row
and the end of the saga.

Exit status: 0 all scenarios passed; 1 one failed, with the reason; 2 invalid arguments.
"""

import argparse
import os
import urllib.parse
from pathlib import Path

import binaries
import tools
from processes import to_the_end


def arguments():
    parser = argparse.ArgumentParser(
        prog="infra/localstack/run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    binaries.add_arguments(parser)
    parser.add_argument(
        "--project", type=Path, metavar="DIR", help="deploy the project in DIR; requires --binaries"
    )
    found = parser.parse_args()
    if found.project and not found.binaries:
        parser.error("--project requires --binaries")
    found.endpoint = os.environ.get("AWS_ENDPOINT_URL")
    if found.endpoint and not on_this_machine(found.endpoint):
        parser.error(f"AWS_ENDPOINT_URL is {found.endpoint}; only a local server is allowed")
    return found


def on_this_machine(endpoint):
    name = urllib.parse.urlsplit(endpoint).hostname or ""
    return name in ("127.0.0.1", "::1", "localhost") or name.endswith((".localhost", ".localhost.localstack.cloud"))


def main():
    given = arguments()

    def work():
        tools.enter()
        # Imported here because it needs boto3, which `enter` installs.
        import acceptance
        import new_project

        return (new_project if given.project else acceptance).run(given)

    to_the_end(work)


if __name__ == "__main__":
    main()
