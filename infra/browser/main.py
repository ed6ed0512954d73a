"""Tests the page of the local system in headless Chromium, as a visitor uses it, and takes its pictures.

Chromium is Debian's package, which is installed where it is missing. Playwright drives it, and axe-core looks for barriers.
The tests compare what the page shows with the HTTP API and the tables. The pictures are in target/browser/pictures.

Exit status 0: every test passed. 1: a test failed. 2: a wrong argument.
"""

import argparse
import os
import shutil
import sys
from pathlib import Path

# The tools, the processes, the system and the issuer are those of infra/localstack.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "localstack"))

import tools  # noqa: E402
from processes import Failure, run, to_the_end  # noqa: E402
from progress import Progress  # noqa: E402
from system import build, system  # noqa: E402

WORK = tools.ROOT / "target" / "browser"
# The version of axe-core comes with its package: other versions find other things.
PLAYWRIGHT = WORK / "tools", ["playwright==1.65.2", "axe-playwright-python==0.1.8", "cryptography"]
LOG = WORK / "cairn-local.log"
PICTURES = WORK / "pictures"
INSTALLING_S = 600


def arguments():
    parser = argparse.ArgumentParser(
        prog="infra/browser/run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--binary", type=Path, metavar="FILE", help="run this program instead of building it, for example target/debug/cairn-local")
    parser.add_argument("--load-seconds", type=int, default=25, metavar="N", help="duration of the load test, of which the page places orders for 20 s at most (default: %(default)s)")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--screenshots", type=Path, metavar="DIR", help="write the pictures of the documents there, and run no test")
    instead.add_argument("--audit", action="store_true", help="audit the page with axe-core and Lighthouse of npm, and run no test; needs Node.js")
    found = parser.parse_args()
    if found.binary and not os.access(found.binary, os.X_OK):
        parser.error(f"{found.binary} is not a program")
    return found


def chromium():
    """The browser's program."""

    def there():
        return next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)

    if found := there():
        return found
    if not shutil.which("apt-get") or os.geteuid() != 0:
        raise Failure("there is no Chromium: install Debian's package chromium, or the like")
    print("installing chromium", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-q"], WORK / "apt.log", INSTALLING_S, env=environment)
    packages = ["chromium", "fonts-dejavu-core", "fonts-liberation"]
    run(["apt-get", "install", "-q", "-y", "--no-install-recommends", *packages], WORK / "apt.log", INSTALLING_S, env=environment)
    return there()


def enter():
    """Continues this program in the Python that has Playwright."""
    folder, _ = PLAYWRIGHT
    programs = tools.install(PLAYWRIGHT)
    if Path(sys.prefix) != folder:
        os.execv(programs / "python", [programs / "python", "-B", *sys.argv])


def all_steps(given):
    """Runs all steps, and returns a summary."""
    from audit import audit
    from browser import Browser
    from demo import demo
    from pictures import pictures
    from visits import ALONE, VISITS

    visits, alone = [*VISITS, pictures], ALONE
    if given.screenshots:
        visits, alone = [pictures], []
    if given.audit:
        visits, alone = [], []
    progress = Progress(3 + len(visits) + len(alone))
    with progress.step("Chromium is there"):
        program = chromium()
    with progress.step("the local system is there"):
        binary = given.binary.resolve() if given.binary else build(WORK / "cargo-build.log")
    with Browser(program, PICTURES) as browser:
        if given.audit:
            with progress.step("the audit"), system(binary, LOG) as (api, endpoint):
                audit(browser, program, WORK / "audit", api, endpoint)
            return progress.summary()
        # Each has a system of its own, without the faults of another.
        for visit in visits:
            with progress.step(sentence(visit)), system(binary, LOG) as (api, endpoint):
                browser.visits(visit, api, endpoint, given)
        with progress.step("the demo"):
            demo(browser, binary)
        for visit in alone:
            with progress.step(sentence(visit)):
                visit(browser, binary, LOG)
    if given.screenshots:
        given.screenshots.mkdir(parents=True, exist_ok=True)
        for name in ("demo.png", "page-light.png", "page-dark.png", "page-phone.png"):
            shutil.copy(PICTURES / name, given.screenshots / name)
    return progress.summary()


def sentence(visit):
    return visit.__name__.replace("_", " ")


def main():
    given = arguments()
    enter()
    to_the_end(lambda: all_steps(given))


if __name__ == "__main__":
    main()
