"""The audit of the page: axe-core and Lighthouse, as npm has them, find nothing."""

import json
import os
import shutil

from browser import PHONE
from processes import Failure, run

# Lighthouse 13 requires Node.js 22.
PACKAGES = ["axe-core@4.14.1", "lighthouse@12.8.2"]
INSTALLING_S = 600
LIGHTHOUSE_S = 180
FORMS = {"desktop": ["--preset=desktop"], "mobile": []}
# The page has no build step, so the advice to minify its files does not count. Speed depends on the computer.
CATEGORIES = ("accessibility", "best-practices", "seo")
MOST_SHIFT = 0.1


def install(folder, log):
    """Installs the packages unless they are there."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        raise Failure("the audit needs Node.js and npm: install them, for example Debian's packages nodejs and npm")
    done = folder / "installed"
    wanted = "\n".join(PACKAGES)
    if not done.exists() or done.read_text() != wanted:
        print(f"installing {', '.join(PACKAGES)}", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        options = ["--prefix", folder, "--ignore-scripts", "--no-audit", "--no-fund"]
        run([npm, "install", *options, *PACKAGES], log, INSTALLING_S)
        done.write_text(wanted)
    return node


def lighthouse(node, folder, chromium, api):
    """Asserts that each category has its full score, for each form of screen."""
    flags = "--headless=new --no-sandbox" if os.geteuid() == 0 else "--headless=new"
    for form, preset in FORMS.items():
        report = folder / f"lighthouse-{form}.json"
        program = [node, folder / "node_modules" / "lighthouse" / "cli" / "index.js", f"{api}/", "--quiet", "--no-enable-error-reporting"]
        options = [*preset, "--output=json", f"--output-path={report}", f"--chrome-flags={flags}"]
        run([*program, *options], folder / f"lighthouse-{form}.log", LIGHTHOUSE_S, env={**os.environ, "CHROME_PATH": chromium})
        found = json.loads(report.read_text())
        scores = {name: category["score"] for name, category in found["categories"].items()}
        print(f"Lighthouse, {form}: " + ", ".join(f"{name} {score:.2f}" for name, score in scores.items()), flush=True)
        findings = [
            f"{audit['id']}: {audit['title']}"
            for name in CATEGORIES
            for audit in (found["audits"][one["id"]] for one in found["categories"][name]["auditRefs"])
            if audit["score"] is not None and audit["score"] < 1
        ]
        assert not findings and all(scores[name] == 1 for name in CATEGORIES), (form, scores, findings)
        shift = found["audits"]["cumulative-layout-shift"]["numericValue"]
        assert shift < MOST_SHIFT, f"{form}: the layout shifts by {shift:.2f}"


def axe(browser, folder, api, endpoint):
    """Asserts that no rule of axe-core is violated: on both screens, in both colour schemes, with all that opens open."""
    source = (folder / "node_modules" / "axe-core" / "axe.min.js").read_text()
    for options in ({}, PHONE, {**PHONE, "viewport": {"width": 360, "height": 800}}):
        with browser.page(api, endpoint, **options) as page:
            page.connected("live")
            page.place("stuck")
            page.order_is("placed", "stuck")
            page.page.check("#troubles input[name=duplicates]")
            page.wait("#part-bus.faulty")
            page.page.click("#part-ProjectOrdersFunction")
            page.page.click("#sales summary")
            page.page.evaluate(source)
            for scheme in ("light", "dark"):
                page.page.emulate_media(color_scheme=scheme)
                found = page.page.evaluate("() => axe.run()")["violations"]
                page.page.click("#order-head button")
                found += page.page.evaluate("() => axe.run('#order-help')")["violations"]
                page.page.keyboard.press("Escape")
                named = [f"{one['id']}: {one['help']}: {[node['html'][:120] for node in one['nodes']][:4]}" for one in found]
                assert not named, f"{options} {scheme}\n" + "\n".join(named)
            page.page.uncheck("#troubles input[name=duplicates]")
            page.wait("#part-bus:not(.faulty)")


def audit(browser, chromium, folder, api, endpoint):
    """Audits the page of a running system."""
    node = install(folder, folder / "npm.log")
    lighthouse(node, folder, chromium, api)
    axe(browser, folder, api, endpoint)
