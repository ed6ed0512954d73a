"""Follows docs/how-to/add-an-aggregate.md in a clone of the last commit, and counts its edits.

The line before a block is an HTML comment that places the block:

    <!-- new FILE -->                                the block is the new file
    <!-- replace FILE -->                            the block replaces the file
    <!-- in FILE, after "TEXT" -->                   the block goes after the only line with TEXT
    <!-- in FILE, before "TEXT" -->                  the block goes before it
    <!-- in FILE, replace "TEXT" -->                 the block replaces it
    <!-- in FILE, at "PLACE", after "TEXT" -->       the first line with TEXT after the only line with PLACE

bash runs a block of `sh`, which must succeed. A block of `cargo run` alone starts the system on
free ports until the end of its section, and its address replaces that of the guide. After a block
of `sh`, a block of `json` is the end of its output, and a block of `text` has the beginnings of
some of its lines, in their order. Any other block without a comment is an error. What precedes the
first section is not followed. A block with a comment is an edit. The program counts the edits and
their lines, and fails above MOST_EDITS or MOST_LINES. What `cairn add` writes is not counted.

The clone is target/guide/tree. Its own target/ starts with a copy of the libraries of this tree, so
Cargo builds only the crates of the workspace again. The commands select packages with --workspace,
because another selection enables other features and builds the libraries again. The system is built
as the tests are, for the same reason.

Exit status: 0 every step passed; 1 a step failed or the page has too many edits; 2 invalid arguments.
"""

import argparse
import contextlib
import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

# For processes.py and progress.py.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "localstack"))

from processes import Failure, run, running, there, to_the_end  # noqa: E402
from progress import Progress  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "how-to" / "add-an-aggregate.md"
WORK = ROOT / "target" / "guide"
TREE = WORK / "tree"
LOG = WORK / "guide.log"
TARGET = TREE / "target"
# Compiling optimized crates takes longer than the commands of the guide.
ENVIRONMENT = {**os.environ, "CARGO_TARGET_DIR": str(TARGET), "CARGO_PROFILE_DEV_OPT_LEVEL": "0"}
# The time limit of a block, which may have to build everything.
BLOCK_S = 3600
ADDRESS = "http://127.0.0.1:3000"
SYSTEM = "cargo run"
MOST_LINES = 200
MOST_EDITS = 10

PLACE = re.compile(
    r"<!-- (?:new (?P<new>\S+)|replace (?P<whole>\S+)"
    r'|in (?P<file>[^\s,]+)(?:, at "(?P<at>[^"]+)")?, (?P<where>after|before|replace) "(?P<text>.+)") -->'
)
# The kinds of written lines, by file. The first match counts.
KINDS = [
    ("tests", r"/tests/|^\.ci/"),
    ("rules and rows", r"^shared/orders/"),
    ("functions", r"^functions/"),
    ("test events", r"^events/"),
    ("template and API document", r"\.yaml$"),
    ("lists of functions", ""),
]


@dataclass
class Block:
    """A fenced block, and the line before it."""

    language: str
    text: str
    before: str
    line: int


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


def place(block, place):
    """Writes a block to its place, and returns the file."""
    new = place["new"] or place["whole"]
    name = new or place["file"]
    file = TREE / name
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


def start_system(stack):
    """Runs the clone's system until the section ends, and returns its address."""
    build = ["cargo", "test", "--no-run", "--quiet", "--workspace", "--test", "system"]
    run(build, LOG, BLOCK_S, cwd=TREE, env=ENVIRONMENT)
    log = WORK / "system.log"
    command = [TARGET / "debug" / "cairn-local", "--quiet", "--port", "0", "--aws-port", "0"]
    process = stack.enter_context(running(command, log, cwd=TREE, env=ENVIRONMENT))

    def address():
        return re.search(r"^HTTP API +(\S+)$", log.read_text(), re.MULTILINE)

    return there(process, "the system", address, log)[1]


def expect_lines(answer, expected):
    """Checks that lines of the output begin with the expected ones, in their order."""
    lines = iter(answer.read_text(errors="replace").splitlines())
    for beginning in expected.splitlines():
        if not any(line.startswith(beginning) for line in lines):
            raise Failure(f"the output has no line `{beginning}` here", answer)


def follow(blocks, written):
    """Follows a section, and counts the lines written to each kind of file."""
    address, answer = ADDRESS, WORK / "answer"
    with contextlib.ExitStack() as stack:
        for block in blocks:
            try:
                if where := PLACE.fullmatch(block.before):
                    name = place(block, where)
                    kind = next(kind for kind, files in KINDS if re.search(files, name))
                    written[kind] = written.get(kind, 0) + len(block.text.splitlines())
                elif block.language == "sh" and block.text.strip() == SYSTEM:
                    address = start_system(stack)
                elif block.language == "sh":
                    script = block.text.replace(ADDRESS, address)
                    command = ["bash", "-euo", "pipefail", "-c", script]
                    run(command, LOG, BLOCK_S, answer=answer, cwd=TREE, env=ENVIRONMENT)
                elif block.language == "json":
                    if not answer.read_text().strip().endswith(block.text.strip()):
                        raise Failure("the output does not end with this block", answer)
                elif block.language == "text":
                    expect_lines(answer, block.text)
                else:
                    raise Failure("the line before the block does not place it")
            except Failure as failure:
                failure.args = (f"{GUIDE.name}, line {block.line}: {failure.args[0]}",)
                # Tests print failures to stdout.
                failure.log = answer if failure.log == LOG and "test result" in answer.read_text() else failure.log
                raise


def fresh_clone():
    """Clones the last commit, and copies the built libraries."""
    shutil.rmtree(TREE, ignore_errors=True)
    run(["git", "clone", "--quiet", ROOT, TREE], LOG, BLOCK_S)
    built = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug"
    for part, names in [("deps", r".*\.(rlib|rmeta|so|d)"), ("build", ".*"), (".fingerprint", ".*")]:
        (TARGET / "debug" / part).mkdir(parents=True)
        for found in filter(lambda path: re.fullmatch(names, path.name), (built / part).glob("*")):
            copy = shutil.copytree if found.is_dir() else shutil.copy2
            copy(found, TARGET / "debug" / part / found.name)


def count_edits(parts):
    """Returns the number of edits and of their lines, which must be within the limits."""
    edits = [block for blocks in parts.values() for block in blocks if PLACE.fullmatch(block.before)]
    lines = sum(len(block.text.splitlines()) for block in edits)
    if len(edits) > MOST_EDITS or lines > MOST_LINES:
        limits = f"at most {MOST_EDITS} edits and {MOST_LINES} lines"
        raise Failure(f"{GUIDE.name} has {len(edits)} edits with {lines} lines: {limits}")
    return len(edits), lines


def all_steps():
    """Runs all sections and returns a summary."""
    parts = sections(GUIDE.read_text())
    edits, lines = count_edits(parts)
    progress, written = Progress(len(parts) + 1), {}
    with progress.step("clone the repository"):
        fresh_clone()
    for heading, blocks in parts.items():
        with progress.step(heading):
            follow(blocks, written)
    counted = [f"  {kind:<28}{written[kind]:>4}" for kind, _ in KINDS if kind in written]
    totals = [f"  {'lines written':<28}{lines:>4}", f"  {'edits':<28}{edits:>4}"]
    return "\n".join([*counted, *totals, progress.summary()])


def main():
    parser = argparse.ArgumentParser(
        prog="infra/guide/run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    to_the_end(all_steps)


if __name__ == "__main__":
    main()
