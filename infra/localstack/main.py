"""Deploys template.yaml to a stand-in for AWS on this machine, and passes the acceptance scenarios there.

It takes MiniStack from PyPI, or the server that AWS_ENDPOINT_URL names; builds the functions with cargo-lambda and
`sam build`, deploys with `sam deploy`, and then uses the system from outside: over HTTP with tokens of an issuer of
its own, with each function confined to its role.

Status 0: all went as it must. 1: it did not, with the reason. 2: it was called wrongly.
"""

import argparse
import os
import urllib.parse

import binaries
import tools
from processes import to_the_end


def arguments():
    parser = argparse.ArgumentParser(
        prog="infra/localstack/run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    binaries.add_arguments(parser)
    found = parser.parse_args()
    found.endpoint = os.environ.get("AWS_ENDPOINT_URL")
    if found.endpoint and not on_this_machine(found.endpoint):
        parser.error(f"AWS_ENDPOINT_URL is {found.endpoint}; this deploys to a server on this machine only")
    return found


def on_this_machine(endpoint):
    name = urllib.parse.urlsplit(endpoint).hostname or ""
    return name in ("127.0.0.1", "::1", "localhost") or name.endswith((".localhost", ".localhost.localstack.cloud"))


def main():
    given = arguments()

    def work():
        tools.enter()
        # It needs boto3, which is there from here on.
        import acceptance

        return acceptance.run(given)

    to_the_end(work)


if __name__ == "__main__":
    main()
