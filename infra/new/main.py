"""Follows the tutorials of a new project in an empty folder, and deploys the project to MiniStack.

The tutorials are docs/tutorial/new-project.md and docs/tutorial/first-aggregate.md. The project is
target/new/shop. infra/guide/pages.py describes how a page is followed. At the end `cairn add` adds
the kinds of parts that the tutorials do not add.

The project builds into target/, with the libraries of this tree, as .ci/libraries.py describes. So
nothing of the project needs the network, and a step fails if Cargo compiles a library again. `cargo
run` of a program starts the one that was built with the whole workspace, for the same reason.

Exit status: 0 every step passed; 1 a step failed; 2 invalid arguments.
"""

import argparse
import os
import shutil
import sys
from pathlib import Path

import parts

ROOT = Path(__file__).resolve().parents[2]
# For pages.py, which makes processes.py and progress.py available, and for libraries.py.
sys.path[:0] = [str(ROOT / "infra" / "guide"), str(ROOT / ".ci")]

import libraries  # noqa: E402
from pages import BLOCK_S, Page  # noqa: E402
from processes import run, to_the_end  # noqa: E402
from progress import Progress  # noqa: E402

TUTORIALS = ROOT / "docs" / "tutorial"
WORK = ROOT / "target" / "new"
PROJECT = WORK / "shop"
LOG = WORK / "new.log"
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
PROGRAMS = TARGET / "debug"
ENVIRONMENT = {
    **os.environ,
    "CARGO_TARGET_DIR": str(TARGET),
    "CARGO_NET_OFFLINE": "true",
    "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}",
    "RUSTC_WRAPPER": libraries.GUARD,
}
# The commands of the project's tool that the tutorials do not run, and their exit statuses.
TOOL = [
    ("diff card-4711 1 2", 0),
    ("tail --from start --limit 1", 0),
    ("lag", 0),
    ("sagas", 0),
    ("dead-letters list", 0),
    ("cost", 0),
    ("republish card-4711", 0),
    ("history card-none", 1),
    ("saga resume a-1", 1),
    ("rebuild cards", 2),
    *((f"{command} --help", 0) for command in ("history", "audit", "rebuild")),
]
# Uses programs that are built already.
PRELUDE = """
cargo() {
  case "$1 ${2-}" in
    "install --path") test -x "$CARGO_TARGET_DIR/debug/cairn" ;;
    "run -p") "$CARGO_TARGET_DIR/debug/$3" "${@:5}" ;;
    *) command cargo "$@" ;;
  esac
}
"""


def cargo(*arguments, cwd=PROJECT):
    run(["cargo", *arguments], LOG, BLOCK_S, cwd=cwd, env=ENVIRONMENT)


def cairn(*arguments):
    run([PROGRAMS / "cairn", *arguments], LOG, BLOCK_S, cwd=PROJECT)


def build_system(folder):
    """Builds the programs of the project, and returns the local system."""
    cargo("build", "--quiet", "--workspace", "--bins", cwd=folder)
    return PROGRAMS / "shop-local"


def follow(page, heading):
    page.follow(heading)
    if heading == "Create the project":
        libraries.share(PROJECT, PROJECT / "infra" / "local", ENVIRONMENT)


def use_tool(page):
    """Runs the other commands of the tool on the running system."""
    for command, status in TOOL:
        page.run_script(f"status=0\nshop-cli {command} || status=$?\necho exit status $status\ntest $status = {status}")


def deploy():
    command = [ROOT / "infra" / "localstack" / "run", "--project", PROJECT, "--binaries", PROGRAMS]
    run(command, LOG, BLOCK_S)


def all_steps():
    """Runs all steps, and returns a summary."""
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    libraries.compile_tree()
    pages = [
        Page(TUTORIALS / name, folder, WORK, ENVIRONMENT, build_system, PRELUDE)
        for name, folder in [("new-project.md", WORK), ("first-aggregate.md", PROJECT)]
    ]
    last = [
        ("the project on MiniStack", deploy),
        ("cairn add: hyphenated names, a reaction, a step", lambda: parts.add(cairn, PROJECT)),
        ("cargo test", lambda: cargo("test", "--quiet", "--workspace")),
        ("it is formatted", lambda: cargo("fmt", "--check")),
        ("Clippy", lambda: cargo("clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings")),
    ]
    progress = Progress(sum(len(page.sections) for page in pages) + 1 + len(last))
    for page in pages:
        with page:
            for heading in page.sections:
                with progress.step(heading):
                    follow(page, heading)
            if page is pages[-1]:
                with progress.step("the other commands of the tool"):
                    use_tool(page)
    for name, step in last:
        with progress.step(name):
            step()
    return progress.summary()


def main():
    parser = argparse.ArgumentParser(
        prog="infra/new/run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    to_the_end(all_steps)


if __name__ == "__main__":
    main()
