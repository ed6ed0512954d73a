"""Installs the Python tools from PyPI, each into its own folder."""

import os
import sys
import venv
from pathlib import Path

from processes import run

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "target" / "localstack"
INSTALLING_S = 900
# Separate folders, because MiniStack and the SAM CLI need different versions of botocore. The
# versions are pinned, because gaps.py and stripe_server.py work around the gaps of these versions.
SAM = WORK / "sam", ["aws-sam-cli==1.170.0", "boto3[crt]==1.43.108", "cargo-lambda==1.9.2", "cryptography", "ziglang==0.17.1"]
MINISTACK = WORK / "ministack", ["ministack[full]==1.5.33"]
LOCALSTRIPE = WORK / "localstripe", ["localstripe==1.15.10"]


def install(tools):
    """Installs missing packages and returns the folder with their programs."""
    folder, packages = tools
    done = folder / "installed"
    wanted = "\n".join(packages)
    if not done.exists() or done.read_text() != wanted:
        print(f"installing {', '.join(packages)}", flush=True)
        venv.create(folder, with_pip=True, clear=True)
        pip = [folder / "bin" / "pip", "install", "--disable-pip-version-check", *packages]
        run(pip, WORK / "pip.log", INSTALLING_S)
        done.write_text(wanted)
    return folder / "bin"


def enter():
    """Restarts this program in the Python environment that has boto3."""
    folder, _ = SAM
    if Path(sys.prefix) != folder:
        python = install(SAM) / "python"
        os.execv(python, [python, "-B", *sys.argv])


def settings(**more):
    """Returns the environment of the tools, in which no configuration leads to an AWS account."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    folder, _ = SAM
    return {
        **mine,
        "PATH": f"{folder / 'bin'}{os.pathsep}{mine['PATH']}",
        "NO_PROXY": "127.0.0.1,localhost",
        "SAM_CLI_TELEMETRY": "0",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        **more,
    }
