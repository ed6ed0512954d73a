"""Runs the operator's tool, which prints JSON and has an exit status."""

import json
import os
import subprocess

from processes import Failure, run
from tools import ROOT, WORK, settings

BUILDING_S = 3600
ANSWERING_S = 120


def tool(binaries):
    """Returns the program, from a folder of binaries or built."""
    if binaries:
        program = binaries.resolve() / "cairn"
        if not program.exists():
            raise Failure(f"{program} does not exist")
        return program
    # With --workspace, to share the libraries of `cargo build`.
    run(["cargo", "build", "--locked", "--workspace", "--bin", "cairn"], WORK / "cargo-build.log", BUILDING_S, cwd=ROOT)
    return ROOT / "target" / "debug" / "cairn"


class Tool:
    """The tool, for a stack at an endpoint, or on AWS with the credentials of the environment."""

    def __init__(self, program, endpoint, stack):
        self.program = program
        environment = settings(AWS_ENDPOINT_URL=endpoint) if endpoint else os.environ
        self.environment = {**environment, "CAIRN_STACK": stack}

    def __call__(self, *arguments, status=0):
        """Runs a command, asserts its exit status, and returns its output."""
        return json.loads(self.said(arguments, status).stdout)

    def lines(self, *arguments):
        """Runs a command and returns its output by line."""
        return [json.loads(line) for line in self.said(arguments, 0).stdout.splitlines()]

    def refusal(self, *arguments):
        """Runs a command that must fail, and returns its error."""
        return self.said(arguments, 2).stderr

    def said(self, arguments, status):
        command = [self.program, "--json", *arguments]
        said = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=ANSWERING_S, env=self.environment
        )
        words = f"cairn {' '.join(arguments)}"
        assert said.returncode == status, f"{words}: exit status {said.returncode}, not {status}: {said.stderr or said.stdout}"
        return said
