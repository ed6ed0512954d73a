"""Follows the tutorials of a new project in an empty folder, and deploys the project to MiniStack.

The tutorials are docs/tutorial/new-project.md and docs/tutorial/first-aggregate.md. The project is
target/new/shop. infra/guide/pages.py describes how a page is followed. At the end `cairn add` adds
the kinds of parts that the tutorials do not add.

The project builds into target/. It gets this tree's Cargo.lock, profiles and features of libraries,
so the libraries are not compiled again, and nothing of the project needs the network. `cargo run`
of a program starts the one that was built with the whole workspace, for the same reason.

Exit status: 0 every step passed; 1 a step failed; 2 invalid arguments.
"""

import argparse
import os
import re
import shutil
import sys
from pathlib import Path

import parts

# For pages.py, which makes processes.py and progress.py available.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "guide"))

from pages import BLOCK_S, Page  # noqa: E402
from processes import run, to_the_end  # noqa: E402
from progress import Progress  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
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
}
# The libraries with more features here than in a new project.
FEATURES = ["getrandom", "idna", "tempfile", "tokio-rustls"]
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


def share_libraries():
    """Gives the project the versions, profiles and features of this tree's libraries."""
    shutil.copy(ROOT / "Cargo.lock", PROJECT)
    here, manifest, local = ROOT / "Cargo.toml", PROJECT / "Cargo.toml", PROJECT / "infra" / "local" / "Cargo.toml"
    profiles = re.search(r"^\[profile\.dev\]$.*", here.read_text(), re.MULTILINE | re.DOTALL)[0]
    manifest.write_text(manifest.read_text().partition("[profile.dev]")[0] + profiles)
    libraries = (re.search(rf"^{name} = .*\n", here.read_text(), re.MULTILINE)[0] for name in FEATURES)
    local.write_text(local.read_text().replace("[dependencies]\n", "[dependencies]\n" + "".join(libraries), 1))


def build_system(folder):
    """Builds the programs of the project, and returns the local system."""
    cargo("build", "--quiet", "--workspace", "--bins", cwd=folder)
    return PROGRAMS / "shop-local"


def follow(page, heading):
    page.follow(heading)
    if heading == "Create the project":
        share_libraries()


def deploy():
    command = [ROOT / "infra" / "localstack" / "run", "--project", PROJECT, "--binaries", PROGRAMS]
    run(command, LOG, BLOCK_S)


def all_steps():
    """Runs all steps, and returns a summary."""
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    cargo("build", "--quiet", "--workspace", "--bin", "cairn", cwd=ROOT)
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
    progress = Progress(sum(len(page.sections) for page in pages) + len(last))
    for page in pages:
        with page:
            for heading in page.sections:
                with progress.step(heading):
                    follow(page, heading)
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
