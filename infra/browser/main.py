"""Tests the page of the local system in a headless Chromium, and takes its screenshots.

Playwright controls Chromium, and axe-core checks accessibility. The script installs Debian's
package of Chromium if it is missing. It compares the page with the HTTP API and the tables. The
screenshots are in target/browser/pictures.

Exit status: 0 all tests passed; 1 one failed; 2 invalid arguments.
"""

import argparse
import os
import shutil
import sys
from pathlib import Path

# For the modules of infra/localstack.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "localstack"))

import tools  # noqa: E402
from processes import Failure, run, to_the_end  # noqa: E402
from progress import Progress  # noqa: E402
from system import build, system  # noqa: E402

WORK = tools.ROOT / "target" / "browser"
# The package contains axe-core, and other versions have other rules.
PLAYWRIGHT = WORK / "tools", ["playwright==1.65.2", "axe-playwright-python==0.1.8", "cryptography"]
LOG = WORK / "cairn-local.log"
PICTURES = WORK / "pictures"
INSTALLING_S = 600


def arguments():
    parser = argparse.ArgumentParser(
        prog="infra/browser/run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--binary", type=Path, metavar="FILE", help="run this program instead of building it, for example target/debug/cairn-local")
    parser.add_argument("--load-seconds", type=int, default=25, metavar="N", help="seconds of load on the page, of which at most 20 have new orders; default: %(default)s")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--screenshots", type=Path, metavar="DIR", help="only take the README's screenshots, and copy them to DIR")
    instead.add_argument("--audit", action="store_true", help="only audit the page with axe-core and Lighthouse, which needs Node.js and npm")
    instead.add_argument("--only", choices=["load", "visits"], help="only the visit under load, which measures response times, or all others")
    found = parser.parse_args()
    if found.binary and not os.access(found.binary, os.X_OK):
        parser.error(f"{found.binary} is not an executable file")
    return found


def chromium():
    """Returns Chromium's program, installed if necessary."""

    def there():
        return next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)

    if found := there():
        return found
    if not shutil.which("apt-get") or os.geteuid() != 0:
        raise Failure("Chromium is not installed; install it, for example with apt-get install chromium")
    print("installing chromium", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-q"], WORK / "apt.log", INSTALLING_S, env=environment)
    packages = ["chromium", "fonts-dejavu-core", "fonts-liberation"]
    run(["apt-get", "install", "-q", "-y", "--no-install-recommends", *packages], WORK / "apt.log", INSTALLING_S, env=environment)
    return there()


def enter():
    """Restarts this program in the Python environment that has Playwright."""
    folder, _ = PLAYWRIGHT
    programs = tools.install(PLAYWRIGHT)
    if Path(sys.prefix) != folder:
        os.execv(programs / "python", [programs / "python", "-B", *sys.argv])


def all_steps(given):
    """Runs all steps and returns a summary."""
    from audit import audit
    from browser import Browser
    from demo import demo
    from pictures import pictures
    from visits import ALONE, LOAD, VISITS

    visits, alone, demos = [*VISITS, pictures], ALONE, [demo]
    if not given.only:
        visits.append(LOAD)
    if given.only == "load":
        visits, alone, demos = [LOAD], [], []
    if given.screenshots:
        visits, alone = [pictures], []
    if given.audit:
        visits, alone = [], []
    progress = Progress(2 + len(visits) + len(demos) + len(alone))
    with progress.step("find or install Chromium"):
        program = chromium()
    with progress.step("find or build the local system"):
        binary = given.binary.resolve() if given.binary else build(WORK / "cargo-build.log")
    with Browser(program, PICTURES) as browser:
        if given.audit:
            with progress.step("the audit"), system(binary, LOG) as (api, endpoint):
                audit(browser, program, WORK / "audit", api, endpoint)
            return progress.summary()
        # Each visit has its own system, so that it sees no data of another.
        for visit in visits:
            with progress.step(sentence(visit)), system(binary, LOG) as (api, endpoint):
                browser.visits(visit, api, endpoint, given)
        for visit in demos:
            with progress.step(f"the {visit.__name__}"):
                visit(browser, binary)
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
