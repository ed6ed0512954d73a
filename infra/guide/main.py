"""Follows docs/how-to/add-an-aggregate.md in a clone of the last commit, and counts its edits.

pages.py describes the comments in the page. A block with such a comment is an edit. The program
counts the edits and their lines, and fails above MOST_EDITS or MOST_LINES. What `cairn add` writes
is not counted.

The clone is target/guide/tree. Its own target/ starts with a copy of the libraries of this tree, so
Cargo builds only the crates of the workspace again. The commands select packages with --workspace,
because another selection enables other features and builds the libraries again. The system is built
as the tests are, for the same reason.

Exit status: 0 every step passed; 1 a step failed or the page has too many edits; 2 invalid arguments.
"""

import argparse
import os
import re
import shutil
from pathlib import Path

# pages.py makes processes.py and progress.py available.
from pages import BLOCK_S, Page
from processes import Failure, run, to_the_end
from progress import Progress

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "how-to" / "add-an-aggregate.md"
WORK = ROOT / "target" / "guide"
TREE = WORK / "tree"
LOG = WORK / "guide.log"
TARGET = TREE / "target"
# Compiling optimized crates takes longer than the commands of the guide.
ENVIRONMENT = {**os.environ, "CARGO_TARGET_DIR": str(TARGET), "CARGO_PROFILE_DEV_OPT_LEVEL": "0",
               "CARGO_INCREMENTAL": "1"}
MOST_LINES = 200
MOST_EDITS = 10

# The kinds of written lines, by file. The first match counts.
KINDS = [
    ("tests", r"/tests/|^\.ci/"),
    ("rules and rows", r"^shared/orders/"),
    ("functions", r"^functions/"),
    ("test events", r"^events/"),
    ("template and API document", r"\.yaml$"),
    ("lists of functions", ""),
]


def build_system(tree):
    """Builds the clone's system, and returns its program."""
    build = ["cargo", "test", "--no-run", "--quiet", "--workspace", "--test", "system"]
    run(build, LOG, BLOCK_S, cwd=tree, env=ENVIRONMENT)
    return TARGET / "debug" / "cairn-local"


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


def count_edits(page):
    """Returns the number of edits and of their lines, which must be within the limits."""
    edits = [block for blocks in page.sections.values() for block in blocks if block.is_edit()]
    lines = sum(len(block.text.splitlines()) for block in edits)
    if len(edits) > MOST_EDITS or lines > MOST_LINES:
        limits = f"at most {MOST_EDITS} edits and {MOST_LINES} lines"
        raise Failure(f"{GUIDE.name} has {len(edits)} edits with {lines} lines: {limits}")
    return len(edits), lines


def all_steps():
    """Runs all sections and returns a summary."""
    counts = {}

    def written(name, block):
        kind = next(kind for kind, files in KINDS if re.search(files, name))
        counts[kind] = counts.get(kind, 0) + len(block.text.splitlines())

    with Page(GUIDE, TREE, WORK, ENVIRONMENT, build_system) as page:
        edits, lines = count_edits(page)
        progress = Progress(len(page.sections) + 1)
        with progress.step("clone the repository"):
            fresh_clone()
        for heading in page.sections:
            with progress.step(heading):
                page.follow(heading, written)
    counted = [f"  {kind:<28}{counts[kind]:>4}" for kind, _ in KINDS if kind in counts]
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
