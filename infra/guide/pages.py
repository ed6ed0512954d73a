"""Follows a page of the documents, as a reader does in one terminal.

The line before a block is an HTML comment that places the block:

    <!-- new FILE -->                                the block is the new file
    <!-- replace FILE -->                            the block replaces the file
    <!-- in FILE, after "TEXT" -->                   the block goes after the only line with TEXT
    <!-- in FILE, before "TEXT" -->                  the block goes before it
    <!-- in FILE, replace "TEXT" -->                 the block replaces it
    <!-- in FILE, at "PLACE", after "TEXT" -->       the first line with TEXT after the only line with PLACE

bash runs a block of `sh`, which must succeed. Its folder and its variables remain for the next
block. A block of `cargo run` alone starts the system on free ports until the page ends, and its
addresses replace those of the page. After a block of `sh`, a block of `json` is the end of its
output, and a block of `text` has the beginnings of some of its lines, in their order. Any other
block without a comment is an error. What precedes the first section is not followed.
"""

import contextlib
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

# For processes.py.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "localstack"))

from processes import Failure, run, running, there  # noqa: E402

# The time limit of a block, which may have to build everything.
BLOCK_S = 3600
SYSTEM = "cargo run"
# The addresses in a page, by their names in the output of the system.
ADDRESSES = {"HTTP API": "http://127.0.0.1:3000", "AWS endpoint": "http://127.0.0.1:4566"}
PLACE = re.compile(
    r"<!-- (?:new (?P<new>\S+)|replace (?P<whole>\S+)"
    r'|in (?P<file>[^\s,]+)(?:, at "(?P<at>[^"]+)")?, (?P<where>after|before|replace) "(?P<text>.+)") -->'
)


@dataclass
class Block:
    """A fenced block, and the line before it."""

    language: str
    text: str
    before: str
    line: int

    def is_edit(self):
        return bool(PLACE.fullmatch(self.before))


def sections(markdown):
    """Returns the blocks of each section that has some, by heading."""
    found, heading, before, block = {}, "", "", None
    for number, line in enumerate(markdown.splitlines(), 1):
        if block is None and line.startswith("```"):
            block = Block(line[3:], "", before, number)
        elif block is not None and line == "```":
            if heading:
                found.setdefault(heading, []).append(block)
            block, before = None, ""
        elif block is not None:
            block.text += f"{line}\n"
        elif line.startswith("## "):
            heading, before = line[3:], ""
        elif line:
            before = line
    return found


def line_with(lines, text, file, start=0, only=True):
    """Returns the index of the line that contains the text."""
    found = [index for index, line in enumerate(lines) if index >= start and text in line]
    if not found or (only and len(found) > 1):
        raise Failure(f"{file} has {len(found)} lines with `{text}`")
    return found[0]


def place(tree, block, place):
    """Writes a block to its place, and returns the file."""
    new = place["new"] or place["whole"]
    name = new or place["file"]
    file = tree / name
    if file.exists() == bool(place["new"]):
        raise Failure(f"{name} is {'present already' if file.exists() else 'missing'}")
    if new:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block.text)
        return name
    lines = file.read_text().splitlines(keepends=True)
    start = line_with(lines, place["at"], name) if place["at"] else 0
    at = line_with(lines, place["text"], name, start, only=not place["at"])
    end = at if place["where"] == "before" else at + 1
    lines[end if place["where"] == "after" else at : end] = [block.text]
    file.write_text("".join(lines))
    return name


def expect_lines(answer, expected):
    """Checks that lines of the output begin with the expected ones, in their order."""
    lines = iter(answer.read_text(errors="replace").splitlines())
    for beginning in expected.splitlines():
        if not any(line.startswith(beginning) for line in lines):
            raise Failure(f"the output has no line `{beginning}` here", answer)


class Page:
    """A page that is followed in a folder.

    `system` builds the system and returns its program. `prelude` precedes each script. Logs and the
    last output are in `work`.
    """

    def __init__(self, file, folder, work, environment, system, prelude=""):
        self.name, self.folder, self.work, self.environment = file.name, folder, work, environment
        self.system, self.prelude = system, prelude
        self.sections = sections(file.read_text())
        if not self.sections:
            raise Failure(f"{file} has no section with a block")
        self.log, self.answer = work / "page.log", work / "answer"
        self.addresses = {}
        self.stack = contextlib.ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stack.close()

    def follow(self, heading, written=lambda name, block: None):
        """Follows a section, and reports each file with the block that was written to it."""
        for block in self.sections[heading]:
            try:
                if where := PLACE.fullmatch(block.before):
                    written(place(self.folder, block, where), block)
                elif block.language == "sh" and block.text.strip() == SYSTEM:
                    self.start_system()
                elif block.language == "sh":
                    self.run_script(block.text)
                elif block.language == "json":
                    if not self.answer.read_text().strip().endswith(block.text.strip()):
                        raise Failure("the output does not end with this block", self.answer)
                elif block.language == "text":
                    expect_lines(self.answer, block.text)
                else:
                    raise Failure("the line before the block does not place it")
            except Failure as failure:
                failure.args = (f"{self.name}, line {block.line}: {failure.args[0]}",)
                # Tests print failures to stdout.
                is_test = failure.log == self.log and "test result" in self.answer.read_text()
                failure.log = self.answer if is_test else failure.log
                raise

    def run_script(self, script):
        for address, actual in self.addresses.items():
            script = script.replace(address, actual)
        session = self.work / "session"
        command = ["bash", "-euo", "pipefail", "-c", f"{self.prelude}\n{script}\nenv -0 > '{session}'"]
        run(command, self.log, BLOCK_S, answer=self.answer, cwd=self.folder, env=self.environment)
        variables = session.read_text().split("\0")
        self.environment = dict(variable.split("=", 1) for variable in variables if variable)
        self.folder = Path(self.environment["PWD"])

    def start_system(self):
        log = self.work / "system.log"
        command = [self.system(self.folder), "--quiet", "--port", "0", "--aws-port", "0"]
        process = self.stack.enter_context(running(command, log, cwd=self.folder, env=self.environment))

        def addresses():
            found = dict(re.findall(r"^(HTTP API|AWS endpoint) +(\S+)$", log.read_text(), re.MULTILINE))
            return len(found) == len(ADDRESSES) and found

        found = there(process, "the system", addresses, log)
        self.addresses = {ADDRESSES[name]: actual for name, actual in found.items()}
