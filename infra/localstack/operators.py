"""The operator's tool, as operators use it: a program that prints JSON and ends with a status."""

import json
import subprocess

from processes import Failure, run
from tools import ROOT, WORK, settings

BUILDING_S = 3600
ANSWERING_S = 120


def tool(binaries):
    """The program: from a folder of binaries, or built."""
    if binaries:
        program = binaries.resolve() / "cairn"
        if not program.exists():
            raise Failure(f"there is no {program}")
        return program
    # Of the whole workspace, so that it shares the libraries that `cargo build` has made.
    run(["cargo", "build", "--locked", "--workspace", "--bin", "cairn"], WORK / "cargo-build.log", BUILDING_S, cwd=ROOT)
    return ROOT / "target" / "debug" / "cairn"


class Tool:
    """The tool against a stack at an endpoint."""

    def __init__(self, program, endpoint, stack):
        self.program = program
        self.environment = settings(AWS_ENDPOINT_URL=endpoint, CAIRN_STACK=stack)

    def __call__(self, *arguments, status=0):
        """What a command says when it ends with a status."""
        return json.loads(self.said(arguments, status).stdout)

    def lines(self, *arguments):
        """What a command says line by line."""
        return [json.loads(line) for line in self.said(arguments, 0).stdout.splitlines()]

    def refusal(self, *arguments):
        """Why a command could not be done."""
        return self.said(arguments, 2).stderr

    def said(self, arguments, status):
        command = [self.program, "--json", *arguments]
        said = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=ANSWERING_S, env=self.environment
        )
        words = f"cairn {' '.join(arguments)}"
        assert said.returncode == status, f"{words} ended with status {said.returncode}, not {status}: {said.stderr or said.stdout}"
        return said
