"""Uses the page of the one-machine system in a headless Chromium, as a visitor does, and takes its pictures.

Chromium is Debian's package, which is installed where it is missing; Playwright drives it, and axe-core looks for barriers. What
the page shows is compared with what the HTTP API and the tables say. The pictures are in target/browser/pictures.

Status 0: all went as it must. 1: it did not. 2: it was called wrongly.
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
    parser.add_argument("--binary", type=Path, metavar="FILE", help="build nothing, run this, say target/debug/cairn-local")
    parser.add_argument("--load-seconds", type=int, default=25, metavar="N", help="how long orders come by the second, which they do for 20 at most; by default %(default)s")
    parser.add_argument(
        "--screenshots", type=Path, metavar="DIR", help="put the pictures of the README there, and leave the tests out"
    )
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
    """Goes on with this program in the Python that has Playwright."""
    folder, _ = PLAYWRIGHT
    programs = tools.install(PLAYWRIGHT)
    if Path(sys.prefix) != folder:
        os.execv(programs / "python", [programs / "python", "-B", *sys.argv])


def all_steps(given):
    """Goes through all steps, and returns a summary."""
    from browser import Browser
    from demo import demo
    from pictures import pictures
    from visits import ALONE, VISITS

    visits = [pictures] if given.screenshots else [*VISITS, pictures]
    progress = Progress(3 + len(visits) + (0 if given.screenshots else len(ALONE)))
    with progress.step("Chromium is there"):
        program = chromium()
    with progress.step("the one-machine system is there"):
        binary = given.binary.resolve() if given.binary else build(WORK / "cargo-build.log")
    with Browser(program, PICTURES) as browser:
        # Each with a system of its own: what one has broken another does not see.
        for visit in visits:
            with progress.step(sentence(visit)), system(binary, LOG) as (api, endpoint):
                browser.visits(visit, api, endpoint, given)
        with progress.step("the demo"):
            demo(browser, binary)
        for visit in [] if given.screenshots else ALONE:
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
