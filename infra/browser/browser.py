"""A headless browser, and a page in it, whose console must stay empty."""

import contextlib
import json
import os
import urllib.request

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Error, sync_playwright
from processes import Failure

DESKTOP = {"viewport": {"width": 1400, "height": 900}}
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}
TIMEOUT_MS = 20_000
# Records the layout shifts: https://web.dev/articles/cls
SHIFTS = """
window.shifts = [];
new PerformanceObserver((list) => window.shifts.push(...list.getEntries())).observe({ type: "layout-shift", buffered: true });
"""


class Browser:
    def __init__(self, program, folder):
        self.program = program
        self.folder = folder
        self.open_things = contextlib.ExitStack()

    def __enter__(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        playwright = self.open_things.enter_context(sync_playwright())
        # Chromium has no sandbox for root. The browser opens only our page.
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        self.chromium = playwright.chromium.launch(executable_path=self.program, args=options)
        self.open_things.callback(self.chromium.close)
        return self

    def __exit__(self, *raised):
        return self.open_things.__exit__(*raised)

    @contextlib.contextmanager
    def page(self, api, endpoint=None, expected=None, **options):
        """Opens the page. At the end of the block, its console may have only expected lines."""
        context = self.chromium.new_context(**{**DESKTOP, **options})
        context.add_init_script(SHIFTS)
        page = context.new_page()
        page.set_default_timeout(TIMEOUT_MS)
        said = []
        page.on("console", lambda message: said.append(f"{message.type}: {message.text} {message.location.get('url', '')}"))
        page.on("pageerror", lambda error: said.append(f"error: {error}"))
        page.goto(f"{api}/")
        try:
            yield Page(page, api, endpoint, self.folder)
        except (Error, AssertionError) as failure:
            page.screenshot(path=self.folder / "failure.png", full_page=True)
            raise Failure(f"{failure}\nscreenshot: {self.folder / 'failure.png'}; console: {said}") from failure
        finally:
            context.close()
        unexpected = [line for line in said if not expected or expected not in line]
        if unexpected:
            raise Failure(f"the console is not empty: {unexpected}")

    def picture_of(self, document, name):
        """Takes a screenshot of a document."""
        page = self.chromium.new_page(viewport={"width": 1800, "height": 200})
        page.set_content(document)
        page.screenshot(path=self.folder / f"{name}.png", full_page=True)
        page.close()

    def visits(self, visit, api, endpoint, given):
        with self.page(api, endpoint) as page:
            page.connected("live")
            visit(page, self, given)


class Page:
    """The page, and the API for comparisons."""

    def __init__(self, page, api, endpoint, folder):
        self.page = page
        self.api = api
        self.endpoint = endpoint
        self.folder = folder

    def connected(self, how):
        self.wait(f"#connection:has-text('{how}')")

    def wait(self, selector, within_ms=TIMEOUT_MS):
        self.page.wait_for_selector(selector, timeout=within_ms)

    def until(self, script, within_ms=TIMEOUT_MS, argument=None):
        """Waits until a script in the page returns true."""
        self.page.wait_for_function(script, arg=argument, timeout=within_ms)

    def text(self, selector):
        return self.page.inner_text(selector).strip()

    def order_is(self, status, fulfilment, within_ms=TIMEOUT_MS):
        self.until(
            "([status, fulfilment]) => JSON.stringify([...document.querySelectorAll('#order-head .pill')].map((pill) => pill.textContent))"
            " === JSON.stringify([status, fulfilment])",
            within_ms,
            [status, fulfilment],
        )

    def place(self, scenario, sku="TEA-01"):
        """Places an order with the form, and returns its id."""
        self.page.check(f"#scenarios input[value={scenario}]")
        self.page.select_option("#sku", sku)
        before = self.text("#placed")
        self.page.click("#place-order")
        self.until("(before) => document.getElementById('placed').textContent.trim() !== before", argument=before)
        said = self.text("#placed")
        assert "Placed " in said, said
        order = said.split("Placed ")[1].split(",")[0]
        # Until then the page shows the order before.
        self.until("(order) => document.getElementById('order-id')?.textContent === order", argument=order)
        return order

    def steps(self):
        """Returns the displayed outcome of each step."""
        return self.page.eval_on_selector_all("#saga li", "(all) => all.map((one) => one.className)")

    def cells(self, table):
        """Returns the rows of a table of the page."""
        script = "(rows) => rows.map((row) => [...row.children].map((cell) => cell.innerText.trim()))"
        return self.page.eval_on_selector_all(f"{table} tbody tr", script)

    def picture(self, name, **options):
        self.page.screenshot(path=self.folder / f"{name}.png", **{"full_page": True, **options})

    def has_no_barriers(self):
        """Asserts that axe-core finds no accessibility violation."""
        found = Axe().run(self.page).response["violations"]
        told = [f"{one['id']}: {one['help']}: {[node['html'][:120] for node in one['nodes']][:4]}" for one in found]
        assert not told, "\n".join(told)

    def stands_still(self, until, all_of_them=False):
        """Asserts that layout shifts are small. Shifts after input need `all_of_them`."""
        script = """(all) => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() =>
            done(window.shifts.filter((one) => all || !one.hadRecentInput).map((one) =>
                [one.value, one.sources.map(({ node }) => node?.id || node?.className || node?.nodeName).join(" ")])))))"""
        shifts = self.page.evaluate(script, all_of_them)
        moved = sum(value for value, _ in shifts)
        assert moved < 0.1, f"the page moved by {moved:.2f} until {until}: {shifts}"

    def sees(self, selector):
        """Waits until an element is completely in view."""
        self.until(
            "(selector) => { const box = document.querySelector(selector)?.getBoundingClientRect();"
            " return box && box.height > 0 && box.top >= 0 && box.bottom <= innerHeight; }",
            argument=selector,
        )

    def is_not_cut(self, selector):
        """Asserts that a box shows its content without horizontal scrolling."""
        boxes = self.page.eval_on_selector_all(selector, "(all) => all.map((box) => [box.scrollWidth, box.clientWidth])")
        assert boxes and all(content <= box for content, box in boxes), f"{selector}: {boxes}"

    def get(self, path):
        with urllib.request.urlopen(self.api + path, timeout=30) as answer:
            return json.load(answer)

    def items(self, table):
        """Returns the items of a DynamoDB table."""
        found, start = [], {}
        while True:
            body = json.dumps({"TableName": table, **start}).encode()
            headers = {"X-Amz-Target": "DynamoDB_20120810.Scan", "Content-Type": "application/x-amz-json-1.0"}
            with urllib.request.urlopen(urllib.request.Request(self.endpoint, body, headers), timeout=60) as answer:
                page = json.load(answer)
            found += page["Items"]
            if "LastEvaluatedKey" not in page:
                return found
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}
