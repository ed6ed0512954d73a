"""Deploys what `sam build` has built with `sam deploy`, so that every changed parameter takes effect.

It passes all parameters of template.yaml: the values of samconfig.toml, those of --parameter, and the defaults of the
template. It sets the parameter Revision to a digest of them and of the build. SAM publishes a version of each function
when the revision changes, and only then.

It refuses an unknown parameter, a wrong value, a build that is old or of another architecture, and an identity provider
that cannot be read. CloudFormation checks the section Rules of the template.

Exit status 0: the stack is deployed. 1: sam deploy failed. 2: refused, with the reason.
"""

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

import build
import issuer
import parameters
from parameters import Refused

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / ".aws-sam" / "build"


def arguments():
    parser = argparse.ArgumentParser(
        prog="infra/deploy/run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-env", default="default", metavar="NAME", help="Read this environment of samconfig.toml")
    parser.add_argument(
        "--parameter", action="append", default=[], metavar="NAME=VALUE", help="Set a parameter for this deployment"
    )
    parser.add_argument("--offline", action="store_true", help="Do not read the identity provider")
    parser.add_argument("--dry-run", action="store_true", help="Print the command and run nothing")
    parser.add_argument("sam", nargs="*", metavar="-- OPTION", help="Options for sam deploy")
    return parser.parse_args()


def command(given):
    declared = parameters.declared((ROOT / "template.yaml").read_text())
    configured = parameters.configured((ROOT / "samconfig.toml").read_text(), given.config_env)
    values = parameters.values(declared, {**configured, **parameters.pairs(given.parameter)})
    build.check(ROOT, BUILD, values["Architecture"])
    if values["Authorization"] == "jwt" and values["JwtIssuer"] and not given.offline:
        issuer.check(values["JwtIssuer"])
    values["Revision"] = parameters.revision(values, BUILD)
    # A parameter that is left out keeps the value of the last deployment, not the default.
    overrides = [f'{name}="{value}"' for name, value in values.items()]
    return ["sam", "deploy", "--config-env", given.config_env, *given.sam, "--parameter-overrides", *overrides]


def main():
    given = arguments()
    try:
        words = command(given)
    except Refused as refused:
        print(refused, file=sys.stderr)
        sys.exit(2)
    print(shlex.join(words), flush=True)
    if not given.dry_run:
        os.environ["SAM_CLI_TELEMETRY"] = os.environ.get("SAM_CLI_TELEMETRY", "0")
        sys.exit(1 if subprocess.run(words, cwd=ROOT).returncode else 0)


if __name__ == "__main__":
    main()
