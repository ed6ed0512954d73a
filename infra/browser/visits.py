"""The tests of the page.

Each test has its own system: with a live feed for `VISITS`, or with its own setup for `ALONE`.
"""

import contextlib
import json
import statistics
import time
import urllib.request

from browser import PHONE
from issuer import AUDIENCE, issuer
from processes import until
from system import system

DONE = ["completed"] * 6


def every_kind_of_order_ends_as_it_must(page, *_):
    """Checks the displayed status, and the outcome of each step."""
    ends = {
        "good": ("confirmed", "completed", DONE),
        "flaky": ("confirmed", "completed", DONE),
        "declined": ("cancelled", "aborted", ["compensated", "compensated", "failed", "", "", ""]),
        "none": ("cancelled", "aborted", ["compensated", "failed", "", "", "", ""]),
        "fraud": ("cancelled", "aborted", ["failed", "", "", "", "", ""]),
        "carrier": ("cancelled", "aborted", ["compensated", "compensated", "compensated", "failed", "", ""]),
    }
    for scenario, (status, fulfilment, steps) in ends.items():
        order = page.place(scenario)
        page.order_is(status, fulfilment)
        assert page.steps() == steps, f"{scenario}: {page.steps()}"
        the_time_line_is_whole(page, order)
    # The last order's compensations are named.
    assert "payment voided" in page.text("#saga"), page.text("#saga")
    page.place("stuck")
    page.order_is("placed", "stuck")
    assert page.steps()[2:4] == ["compensation-failed", "failed"], page.steps()
    page.until("() => document.getElementById('n-stuck').textContent === '1'")
    order = page.place("cancelled")
    page.order_is("cancelled", "aborted")
    assert "completed" not in page.steps(), page.steps()
    # The payment step is abandoned after minutes, but its wait is visible at once.
    page.place("down")
    page.until("() => document.querySelector('#saga .due b')?.textContent === 'authorize-payment'")
    page.until("() => document.getElementById('n-running').textContent === '1'")
    assert page.text("#n-stuck") == "1", page.text("#n-stuck")
    page.until("() => document.querySelectorAll('#timeline tbody tr').length > 2")
    page.until("() => document.querySelectorAll('#orders li').length === 9")


def the_time_line_is_whole(page, order):
    """Checks that the timeline has every event of the order, and its consumers."""
    events = page.get(f"/orders/{order}/events")["events"]
    page.until("(many) => document.querySelectorAll('#timeline tbody tr').length === many", argument=len(events))
    shown = [(row[1], row[2]) for row in page.cells("#timeline")]
    assert shown == [(event["type"], f"{event['subject'].split('-')[0]}@{event['streamversion']}") for event in events], shown
    # The read model of orders consumes every event of the order and its shipment.
    page.until(
        "() => [...document.querySelectorAll('#timeline tbody tr')].filter((row) => /shipment@|order@/.test(row.textContent))"
        ".every((row) => row.textContent.includes('project-orders'))"
    )


def the_slider_shows_the_order_as_it_was(page, *_):
    order = page.place("declined")
    page.order_is("cancelled", "aborted")
    events = page.get(f"/orders/{order}/events")["events"]
    moments = sorted({event["time"] for event in events})
    page.until("(many) => Number(document.getElementById('moment').max) === many", argument=len(moments))
    for place, moment in enumerate(moments[:-1], 1):
        page.page.evaluate(
            "(place) => { const slider = document.getElementById('moment'); slider.value = place; slider.dispatchEvent(new Event('input')); }",
            place,
        )
        then = page.get(f"/orders/{order}?at={moment}")
        page.order_is(then["status"], then["fulfilment"]["status"])
        outcomes = {step["step"]: step["outcome"] for step in then["fulfilment"]["steps"]}
        later = sum(event["time"] > moment for event in events)

        def is_shown():
            shown = {name: outcome for name, outcome in zip(names(page), page.steps()) if outcome not in ("", "due")}
            return shown == outcomes and page.page.locator("#timeline tr.later").count() == later

        until(is_shown, f"{outcomes} at {moment}, and {later} later events", 10)
    page.page.click("#now")
    page.order_is("cancelled", "aborted")
    assert page.page.locator("#timeline tr.later").count() == 0


def names(page):
    return page.page.eval_on_selector_all("#saga b", "(all) => all.map((one) => one.textContent)")


def an_order_is_shipped_and_another_cancelled(page, *_):
    page.place("good")
    page.order_is("confirmed", "completed")
    page.page.click("#ship")
    page.order_is("shipped", "completed")
    assert page.page.is_disabled("#ship") and page.page.is_disabled("#cancel")
    page.place("good")
    page.order_is("confirmed", "completed")
    page.page.click("#cancel")
    page.order_is("cancelled", "aborted")
    page.wait("#timeline >> text=changed my mind")


def an_order_is_placed_and_looked_at_by_keyboard_alone(page, *_):
    keys = page.page.keyboard
    focused = "() => { const at = document.activeElement; return at.id || (at.type === 'radio' ? at.value : at.name) || at.outerHTML.slice(0, 80); }"

    def tab_to(wanted):
        for _ in range(40):
            keys.press("Tab")
            ring = "() => getComputedStyle(document.activeElement.closest('label.choice') ?? document.activeElement).outlineStyle"
            assert page.page.evaluate(ring) != "none", f"the focus is not visible at {page.page.evaluate(focused)}"
            if page.page.evaluate(focused) == wanted:
                return
        raise AssertionError(f"Tab does not reach {wanted}")

    tab_to("good")
    keys.press("ArrowDown")
    keys.press("ArrowDown")
    assert page.page.evaluate(focused) == "declined"
    tab_to("quantity")
    keys.press("ArrowUp")
    tab_to("place-order")
    keys.press("Enter")
    page.order_is("cancelled", "aborted")
    assert "3 × TEA-01" in page.text("#order-head"), page.text("#order-head")
    tab_to("duplicates")
    keys.press("Space")
    page.until("() => document.querySelector('#troubles input[name=duplicates]').checked")
    until(lambda: page.get("/console/troubles") == {"troubles": ["duplicates"]}, "the trouble is on")
    tab_to("moment")
    keys.press("Home")
    page.order_is("placed", "running")
    keys.press("End")
    page.order_is("cancelled", "aborted")


def stock_is_taken_in_and_sales_are_counted(page, *_):
    page.place("good", "POT-07")
    page.order_is("confirmed", "completed")
    page.page.click("#levels tr:has-text('POT-07') button")
    page.until("() => [...document.querySelectorAll('#levels tr')].some((row) => row.innerText.includes('POT-07') && row.innerText.includes('1,098'))")
    page.until("() => document.getElementById('n-confirmed').textContent === '1'")
    assert page.text("#n-revenue") == "€25.00", page.text("#n-revenue")
    page.page.click("#sales summary")
    for window in ("minute", "hour", "day"):
        page.page.select_option("#window", window)
        sold = page.get(f"/sales?window={window}")["windows"][-1]
        start = sold["start"][:16].replace("T", " ")
        page.until("(start) => [...document.querySelectorAll('#windows tbody th')].some((cell) => cell.textContent === start)", argument=start)
        # The order may be placed in one window and confirmed in the next.
        row = [start, str(sold["ordersPlaced"]), "1", "0", "€25.00"]
        until(lambda: page.cells("#windows")[:1] == [row], lambda: f"{row}: {page.cells('#windows')}", 20)
    assert page.page.locator("#chart canvas").count() == 1
    assert "1 placed, 1 confirmed" in page.page.get_attribute("#chart", "aria-label")


def what_comes_twice_and_in_no_order_changes_nothing(page, *_):
    for name in ("duplicates", "disorder", "delays"):
        page.page.check(f"#troubles input[name={name}]")
    until(lambda: len(page.get("/console/troubles")["troubles"]) == 3, "the troubles are on")
    page.place("good")
    page.order_is("confirmed", "completed", 60_000)
    page.wait("#timeline .did.duplicate")
    page.until("() => [...document.querySelectorAll('#tallies td:nth-child(3)')].some((cell) => Number(cell.textContent) > 1)")
    page.page.uncheck("#troubles input[name=delays]")

    def sold():
        return sum(window["ordersConfirmed"] for window in page.get("/sales?window=day")["windows"])

    until(lambda: sold() == 1, lambda: f"one sale: {sold()}")


def a_reader_breaks_and_its_dead_letters_are_redriven(page, *_):
    page.place("good")
    page.order_is("confirmed", "completed")
    page.until("() => document.getElementById('n-confirmed').textContent === '1'")
    page.page.check("#troubles input[name=broken-reader]")
    until(lambda: page.get("/console/troubles")["troubles"] == ["broken-reader"], "the trouble is on")
    page.place("good")
    page.order_is("confirmed", "completed")
    page.until("() => document.getElementById('dead-count').textContent === '2'")
    page.wait("#letters li:has-text('project-sales')")
    page.wait("#timeline .did.failed:has-text('project-sales ×4')")
    page.wait("#timeline .did.dead-letter:has-text('project-sales, dead letter')")
    assert "received too often" in page.text("#letters"), page.text("#letters")
    assert page.text("#n-confirmed") == "1", "a sale is missing as long as it is broken"
    page.page.uncheck("#troubles input[name=broken-reader]")
    until(lambda: page.get("/console/troubles")["troubles"] == [], "the trouble is off")
    page.page.locator("#letters li button").first.click()
    page.until("() => document.getElementById('dead-count').textContent === '1'")
    page.page.click("#redrive-all")
    page.until("() => document.getElementById('dead-count').textContent === '0'")
    page.wait("#no-letters")
    page.until("() => document.getElementById('n-confirmed').textContent === '2'")


def an_order_waits_for_an_unavailable_provider(page, *_):
    page.page.check("#troubles input[name=provider-away]")
    until(lambda: page.get("/console/troubles")["troubles"] == ["provider-away"], "the trouble is on")
    page.place("good")
    page.until("() => document.querySelector('#saga .due b')?.textContent === 'authorize-payment'")
    page.wait("#letters li:has-text('authorize-payment')")
    page.page.uncheck("#troubles input[name=provider-away]")
    # Without a redrive: the watchdog retries the step.
    page.order_is("confirmed", "completed", 60_000)
    page.wait("#timeline >> text=StepRetried")


def number(page, part):
    """The number of a part of the map."""
    return int(page.page.inner_text(f"#part-{part} b").replace(",", ""))


STEPS = ("ScreenOrder", "ReserveStock", "AuthorizePayment", "ArrangeShipment", "CapturePayment", "ConfirmOrder")


def an_event_travels_on_the_map(page, *_):
    """The numbers of the parts are those of the events, and a dot stands for each event until it arrives."""
    names = page.page.eval_on_selector_all("#parts .group button .title", "(all) => all.map((one) => one.textContent)")
    assert len(names) == 12 and names[0] == "screen-order" and "project-sales" in names, names
    assert page.text("#part-ProjectSalesFunction b") == "0"
    page.place("good")
    page.page.wait_for_selector("#map-dots .dot.event", state="attached")
    page.page.wait_for_selector("#map-dots .dot.applied", state="attached")
    page.order_is("confirmed", "completed")
    for step in STEPS:
        page.until(f"() => document.querySelector('#part-{step}Function b').textContent === '1'")
    # A delivery that fills a gap applies several events and is counted once.
    page.until("() => Number(document.querySelector('#part-ProjectOrdersFunction b').textContent) > 0")
    page.until("() => document.querySelectorAll('#map-dots .dot').length === 0")
    assert number(page, "store") == int(page.text("#n-events")) > 14, page.text("#part-store")
    assert page.page.locator(".part.faulty").count() == 0


def a_fault_shows_on_the_map_where_it_is(page, *_):
    page.page.check("#troubles input[name=broken-reader]")
    page.wait("#part-ProjectSalesFunction.faulty")
    assert page.page.locator(".part.faulty").count() == 1
    page.place("good")
    page.page.wait_for_selector("#map-dots .dot.failed", state="attached")
    page.wait("#part-dead.faulty")
    page.until("() => document.querySelector('#part-dead b').textContent === '2'")
    page.page.click("#part-ProjectSalesFunction")
    page.wait("#part-about:has-text('fault: Failing projection')")

    def metrics():
        return dict(page.page.eval_on_selector_all("#part-metrics div", "(all) => all.map((one) => [one.children[0].textContent, one.children[1].textContent])"))

    until(lambda: metrics().get("dead letters") == "2", lambda: f"two dead letters: {metrics()}", 20)
    assert metrics()["applied"] == "0", metrics()
    # The queue of a slow bus fills.
    page.page.uncheck("#troubles input[name=broken-reader]")
    page.page.check("#troubles input[name=delays]")
    page.wait("#part-bus.faulty")
    page.place("good")
    page.until("() => [...document.querySelectorAll('.part .bar')].some((bar) => bar.offsetWidth > 0)")
    page.page.uncheck("#troubles input[name=delays]")
    page.wait("#part-bus:not(.faulty)")
    page.page.click("#redrive-all")
    page.wait("#part-dead:not(.faulty)")
    page.page.check("#troubles input[name=provider-away]")
    page.wait("#part-AuthorizePaymentFunction.faulty")
    page.wait("#part-CapturePaymentFunction.faulty")
    page.page.uncheck("#troubles input[name=provider-away]")


def the_map_is_used_by_keyboard(page, *_):
    """It is one stop of the Tab key, and the arrow keys move inside it."""
    focused = "() => document.activeElement.id"
    keys = page.page.keyboard
    for _ in range(3):
        keys.press("Tab")
        if page.page.evaluate(focused) == "part-api":
            break
    way = ["part-api"]
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp", "ArrowRight", "ArrowRight", "ArrowRight"):
        keys.press(key)
        way.append(page.page.evaluate(focused))
        assert page.page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle") != "none", way
    assert way == [f"part-{name}" for name in ("api", "store", "stream", "deadlines", "watchdog", "store", "stream", "relay", "bus")], way
    keys.press("ArrowRight")
    chosen = page.page.evaluate(focused)
    assert chosen.endswith("Function"), chosen
    keys.press("Enter")
    assert page.page.get_attribute(f"#{chosen}", "aria-pressed") == "true"
    assert page.text("#part-title") == page.text(f"#{chosen} .title")
    page.until("() => document.getElementById('part-said').textContent.includes('applied')")
    page.has_no_barriers()
    keys.press("Escape")
    assert page.page.get_attribute(f"#{chosen}", "aria-pressed") == "false"
    assert page.page.evaluate(focused) == chosen
    # The next stop is the button of the panel where there is one, then the form.
    keys.press("Tab")
    assert page.page.evaluate("() => document.activeElement.name") == "scenario"
    keys.press("Shift+Tab")
    assert page.page.evaluate(focused) == chosen


def nothing_moves_where_a_visitor_wants_less_motion(page, browser, _):
    """The numbers change, and each line shows its events per second."""
    with browser.page(page.api, page.endpoint, reduced_motion="reduce") as other:
        other.connected("live")
        other.page.evaluate(
            """() => {
                window.dots = 0;
                new MutationObserver((all) => { for (const one of all) window.dots += one.addedNodes.length; }).observe(document.getElementById('map-dots'), { childList: true });
            }"""
        )
        other.place("good")
        other.order_is("confirmed", "completed")
        other.until("() => [...document.querySelectorAll('.rate')].some((rate) => rate.textContent.endsWith('/s'))")
        other.until("() => document.querySelector('#part-ConfirmOrderFunction b').textContent === '1'")
        assert other.page.evaluate("() => window.dots") == 0
        assert other.page.evaluate("() => document.getAnimations().length") == 0


def a_part_is_seen_beside_its_metrics_on_a_phone(page, browser, _):
    with browser.page(page.api, page.endpoint, **wide(360)) as phone:
        phone.connected("live")
        for part in ("store", "bus", "ConfirmOrderFunction", "ProjectSalesFunction", "dead"):
            phone.page.click(f"#part-{part}")
            boxes = "(part) => ['part-' + part, 'part'].map((id) => document.getElementById(id).getBoundingClientRect()).flatMap(({ top, bottom }) => [top, bottom])"
            top, bottom, above, below = phone.page.evaluate(boxes, part)
            assert 0 <= top and bottom <= above and below <= 844, (part, top, bottom, above, below)
            phone.has_no_barriers()
            phone.page.click("#part-close")
        phone.stands_still("parts were selected")


def it_stays_live_and_right_with_fifty_orders_a_second_and_faults(page, _, given):
    """The final numbers on the page equal those of the API and of the tables."""
    every = ("duplicates", "disorder", "delays", "provider-away", "broken-reader")
    for name in every:
        page.page.check(f"#troubles input[name={name}]")
    until(lambda: len(page.get("/console/troubles")["troubles"]) == len(every), "every trouble is on")
    page.page.evaluate(
        """() => {
            window.gaps = [];
            let last = performance.now();
            const beat = (now) => { window.gaps.push(now - last); last = now; requestAnimationFrame(beat); };
            requestAnimationFrame(beat);
        }"""
    )
    page.page.click("#load")
    page.wait("#placed:has-text('a second')")
    page.wait("#orders button")
    begun = time.monotonic()
    answers, dots, is_counted = [], 0, False
    while time.monotonic() - begun < given.load_seconds:
        # The page still responds: it shows the selected order.
        asked = time.monotonic()
        # In one script, because new orders move the list.
        wanted = page.page.evaluate("() => { const button = document.querySelector('#orders button'); button.click(); return button.querySelector('code').textContent; }")
        page.until("(id) => document.getElementById('order-id')?.textContent.startsWith(id)", argument=wanted)
        answers.append(time.monotonic() - asked)
        dots = max(dots, page.page.locator("#map-dots .dot").count())
        is_counted = is_counted or page.page.locator("#map-rates .rate:not(:empty)").count() > 0
        # Two of the faults are switched off early, because their effects take longest.
        if time.monotonic() - begun > given.load_seconds / 2:
            for name in ("provider-away", "broken-reader"):
                page.page.uncheck(f"#troubles input[name={name}]")
        time.sleep(0.5)
    page.picture("load")
    # On a line with many events there is their number instead of dots.
    assert is_counted and dots <= 120, (is_counted, dots)
    # A slow machine places fewer orders, so the actual number counts.
    if page.text("#load") == "Stop":
        page.page.click("#load")
    page.until("() => document.getElementById('load').textContent !== 'Stop'", 60_000)
    said = page.text("#placed")
    placed = int(said.split(" of ")[0].replace(",", ""))
    gaps = page.page.evaluate("() => window.gaps")
    longest, usual = max(gaps), statistics.median(gaps)
    for name in ("duplicates", "disorder", "delays"):
        page.page.uncheck(f"#troubles input[name={name}]")
    until(lambda: page.get("/console/troubles")["troubles"] == [], "every trouble is off")

    def at_rest():
        if page.text("#dead-count") != "0" and page.page.is_enabled("#redrive-all"):
            page.page.click("#redrive-all")
        return not page.items("DeadlinesTable") and page.text("#n-waiting") in ("0", "1") and page.text("#dead-count") == "0"

    until(at_rest, lambda: f"at rest: {page.text('#n-waiting')} waiting, {page.text('#dead-count')} dead letters", 420, pause_s=2)
    numbers_agree(page, placed)
    page.until("() => document.getElementById('n-running').textContent === '0'")
    a_reload_shows_what_the_orders_contain(page)
    rate = f"{said} Frames: {usual:.0f} ms at the median, {longest:.0f} ms at most; a choice was shown after {max(answers):.1f} s at most."
    print(rate, flush=True)
    assert longest < 2_000 and max(answers) < 5, rate


def a_reload_shows_what_the_orders_contain(page):
    """A page that opens later gets only the latest events, not every order's first."""
    page.page.reload()
    page.connected("live")
    page.until("() => document.querySelectorAll('#orders li').length === 25")
    page.until("() => [...document.querySelectorAll('#orders .what-of')].every((one) => one.textContent.includes(' × '))")
    for key in page.page.eval_on_selector_all("#orders li", "(all) => all.map((one) => one.dataset.key)"):
        order = page.get(f"/orders/{key}")
        fulfilment = order["fulfilment"]["status"]
        wanted = order["status"] if fulfilment in ("completed", "aborted") else fulfilment
        pill = "([key, text]) => document.querySelector(`#orders li[data-key=\"${key}\"] .pill`).textContent === text"
        page.until(pill, argument=[key, wanted])


def numbers_agree(page, placed):
    """Asserts that the page's numbers equal those of the API, and these the events."""
    today = page.get("/sales?window=day")["windows"]
    sums = {key: sum(window[key] for window in today) for key in ("ordersPlaced", "ordersConfirmed", "ordersCancelled")}
    assert sums["ordersPlaced"] == placed, (sums, placed)
    shown = dict(zip(sums, ("#n-placed", "#n-confirmed", "#n-cancelled")))
    for key, selector in shown.items():
        page.until("([selector, text]) => document.querySelector(selector).textContent === text", argument=[selector, f"{sums[key]:,}"])
    events = {}
    for item in page.items("EventsTable"):
        for event in item["events"]["L"]:
            kind = event["M"]["type"]["S"]
            events[kind] = events.get(kind, 0) + 1
    assert sums["ordersConfirmed"] == events["OrderConfirmed"], (sums, events)
    assert sums["ordersCancelled"] == events["OrderCancelled"], (sums, events)
    for row in page.cells("#levels"):
        sku, *shown = row[:4]
        if shown[0] == "–":
            continue
        level = page.get(f"/stock/{sku}")
        assert level["reserved"] == 0, level
        wanted = [f"{level[key]:,}" for key in ("onHand", "reserved", "available")]
        page.until(
            "([sku, wanted]) => [...document.querySelectorAll('#levels tbody tr')].some((row) => row.children[0].textContent === sku"
            " && wanted.every((text, index) => row.children[index + 1].textContent === text))",
            argument=[sku, wanted],
        )


def where_the_api_takes_tokens_it_is_asked_again_and_again(browser, binary, log):
    """Tests the page as on AWS: without a live feed and local features, with the user's token."""
    with issuer() as tokens:
        options = {"Authorization": "jwt", "JwtIssuer": tokens.url, "JwtAudience": AUDIENCE}
        parameters = [word for name, value in options.items() for word in ("--parameter", f"{name}={value}")]
        with system(binary, log, *parameters) as (api, endpoint), browser.page(api, endpoint) as page:
            page.connected("polling")
            for hidden in ("#break", "#consumers", "#dead", "#load"):
                assert not page.page.is_visible(hidden), hidden
            page.has_no_barriers()
            # A common subject of identity providers, which must be escaped in a path.
            page.page.fill("#token", tokens.token("auth0|65f0c2", "cairn/operator"))
            # A SKU without stock is a 404, which the browser logs as an error of the page.
            headers = {"Authorization": f"Bearer {tokens.token('o-1', 'cairn/operator')}"}
            for sku in ("TEA-01", "POT-07", "CUP-03"):
                receive(api, sku, headers)
            page.page.press("#token", "Enter")
            page.until("() => document.querySelector('#levels tbody').innerText.includes('100')")
            page.place("good")
            page.order_is("confirmed", "completed")
            assert page.steps() == DONE
            page.wait("#orders li:has-text('confirmed')")
            assert page.page.input_value("#customer") == "auth0|65f0c2"
            page.picture("page-tokens", full_page=True)


def a_server_that_is_down_is_reported_with_what_to_do(browser, binary, log):
    with contextlib.ExitStack() as running:
        api, endpoint = running.enter_context(system(binary, log))
        with browser.page(api, endpoint, expected="ERR_CONNECTION_REFUSED") as page:
            page.connected("live")
            page.place("good")
            page.order_is("confirmed", "completed")
            # The server stops.
            running.close()
            page.connected("reconnecting")
            # A read in progress may report its own failure first.
            page.wait(f"#problem:has-text('The server at {api} does not answer. Start it again with cargo run')")
            page.has_no_barriers()
            page.page.click("#place-order")
            page.wait("#placed:has-text('failed')")
            said = page.text("#placed")
            assert f"failed: the server at {api} does not answer. Start it again with cargo run, then try again." in said, said
            page.page.click("#cancel")
            page.wait("#order-said:has-text('/cancel failed: the server at')")
            page.page.click("#load")
            page.wait("#placed:has-text('/receipts failed: the server at')")
            assert page.text("#load") != "Stop"
            for words in ("Failed to fetch", "undefined"):
                assert words not in page.text("body"), page.text("body")


def receive(api, sku, headers):
    body = json.dumps({"quantity": 100}).encode()
    request = urllib.request.Request(f"{api}/stock/{sku}/receipts", body, {"Content-Type": "application/json", **headers})
    urllib.request.urlopen(request, timeout=30).close()


WIDTHS = (360, 390, 412, 768, 1000, 1100, 1210, 1400)


def wide(width):
    """Returns the options of a page of this width; narrow pages are phones."""
    size = {"viewport": {"width": width, "height": 844}}
    return {**PHONE, **size} if width < 500 else size


def it_stands_still_and_nothing_is_cut_at_any_width(page, browser, _):
    """Content after the first paint shifts nothing, and a placed order scrolls into view."""
    for scenario in ("good", "carrier", "stuck"):
        page.place(scenario)
    page.order_is("placed", "stuck")

    def doubled(on):
        page.page.set_checked("#troubles input[name=duplicates]", on)
        until(lambda: page.get("/console/troubles")["troubles"] == ["duplicates"] * on, "the trouble is as it was chosen")

    for width in WIDTHS:
        with browser.page(page.api, page.endpoint, **wide(width)) as other:
            other.wait("body.ready")
            other.wait("#chart canvas")
            other.wait("#tallies td")
            # There was no input, so every shift counts.
            other.stands_still(f"it was open, {width} px wide", all_of_them=True)
            before = other.page.evaluate("() => { document.getElementById('place-order').scrollIntoView({ block: 'nearest' }); return scrollY; }")
            other.place("good")
            if width > 1200:
                # The map is beside the form, and stays in view.
                assert other.page.evaluate("() => scrollY") == before
                other.page.click("#orders button")
            other.sees("#order-head")
            other.sees("#order-actions")
            other.order_is("confirmed", "completed")
            other.stands_still(f"an order was confirmed, {width} px wide")
            # The maximum content of each row.
            doubled(True)
            other.place("good")
            other.order_is("confirmed", "completed")
            other.until("() => document.querySelectorAll('#timeline .did.duplicate').length > 10")
            other.is_not_cut("#order .scroll")
            other.is_not_cut("html")
            for box in ("#map", "#consumers .scroll", "#stock .scroll"):
                other.is_not_cut(box)
            the_cells_of_a_row_are_stacked_where_it_is_narrow(other, width)
            other.has_no_barriers()
        doubled(False)


def the_cells_of_a_row_are_stacked_where_it_is_narrow(page, width):
    """Each under the name of its column. For a screen reader it is still a table."""
    tops = "(cells) => new Set(cells.map((cell) => cell.getBoundingClientRect().top)).size"
    is_stacked = page.page.eval_on_selector_all("#tallies tbody tr:first-child > *", tops) > 1
    assert is_stacked == (width <= 700), (width, is_stacked)
    label = "(cell) => getComputedStyle(cell, '::before').content"
    assert page.page.eval_on_selector("#tallies tbody td", label) == ('"applied"' if is_stacked else "none")
    for role in ("table", "row", "rowheader", "cell"):
        assert page.page.locator("#consumers").get_by_role(role).count() > 0, role


def the_buttons_of_an_order_keep_their_place(page, browser, _):
    """The buttons do not move with the order's state or the length of its messages."""
    for options in (wide(1400), wide(768), wide(360)):
        with browser.page(page.api, page.endpoint, **options) as other:
            other.connected("live")
            places = "() => ['cancel', 'ship'].map((id) => { const [own, all] = [id, 'order'].map((id) => document.getElementById(id).getBoundingClientRect()); return [own.left - all.left, own.top - all.top].map(Math.round).join(); }).join(' ')"
            seen = {other.page.evaluate(places)}
            # Recorded in every frame.
            other.page.evaluate(f"() => {{ window.places = new Set(); const look = () => {{ window.places.add(({places})()); requestAnimationFrame(look); }}; look(); }}")
            for scenario, end in (("good", ("confirmed", "completed")), ("carrier", ("cancelled", "aborted")), ("stuck", ("placed", "stuck"))):
                other.place(scenario)
                other.order_is(*end)
            other.place("good")
            other.order_is("confirmed", "completed")
            other.page.click("#ship")
            other.order_is("shipped", "completed")
            seen |= set(other.page.evaluate("() => [...window.places]"))
            assert len(seen) == 1, seen


def a_stuck_order_names_the_commands_that_settle_it(page, *_):
    order = page.place("stuck")
    page.order_is("placed", "stuck")
    tool = f"cargo run -p cairn-cli -- --endpoint-url {page.endpoint} saga"
    shown = page.page.eval_on_selector_all("#order-help code", "(all) => all.map((one) => one.textContent)")
    assert shown == [f"{tool} resume {order}", f"{tool} abandon {order} --reason 'refunded by hand'"], shown
    assert not page.page.is_visible("#order-help")
    page.stands_still("an order was stuck")
    place = "() => document.getElementById('moment').getBoundingClientRect().top + scrollY"
    before = page.page.evaluate(place)
    page.page.click("#order-head button")
    assert page.page.is_visible("#order-help")
    assert page.page.evaluate(place) == before
    page.has_no_barriers()
    page.page.keyboard.press("Escape")
    assert not page.page.is_visible("#order-help")
    page.place("good")
    page.order_is("confirmed", "completed")
    assert page.page.locator("#order-head button").count() == 0


def every_consumer_keeps_its_latency_after_a_reload(page, *_):
    page.place("good")
    page.order_is("confirmed", "completed")
    page.page.reload()
    page.connected("live")
    page.wait("#tallies td")

    def is_shown():
        rows = page.cells("#tallies")
        return len(rows) > 8 and all(row[-1].endswith((" ms", " s")) for row in rows)

    # The last deliveries of the order may follow its end.
    until(is_shown, lambda: f"every latency: {page.cells('#tallies')}", 20)


def the_axis_of_the_chart_shows_whole_numbers_of_any_size(page, *_):
    """Checks that the chart's left edge is blank, because a cut label is not."""
    page.place("good")
    page.until("() => document.getElementById('n-placed').textContent === '1'")
    for factor in (1_000, 12_345, 9_876_543):

        def larger(route):
            answer = route.fetch()
            found = answer.json()
            for window in found["windows"]:
                for name in ("ordersPlaced", "ordersConfirmed", "ordersCancelled"):
                    window[name] *= factor
            route.fulfill(response=answer, json=found)

        page.page.route("**/sales?*", larger)
        for window in ("hour", "day"):
            page.page.select_option("#window", window)
            page.until("(text) => document.getElementById('sales-says').textContent.startsWith(text)", argument=f"{factor:,} placed")
            # Reads a copy, because Chromium warns about repeated reads of a canvas.
            ink = """() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => {
                const drawn = document.querySelector('#chart canvas');
                const copy = new OffscreenCanvas(drawn.width, drawn.height).getContext('2d', { willReadFrequently: true });
                copy.drawImage(drawn, 0, 0);
                const inked = (left, many) => copy.getImageData(left, 0, many, drawn.height).data.some((part) => part > 0);
                done([inked(0, 2), inked(0, 60)]);
            })))"""
            at_edge, near = page.page.evaluate(ink)
            assert near and not at_edge, (factor, window, near, at_edge)
        page.page.unroute("**/sales?*")


def a_customer_has_the_id_that_an_identity_provider_gave(page, *_):
    """The form accepts the same ids as the API."""
    page.page.fill("#customer", "auth0|65f0c2")
    order = page.place("good")
    page.order_is("confirmed", "completed")
    assert page.get(f"/orders/{order}")["customerId"] == "auth0|65f0c2"
    listed = page.get("/customers/auth0%7C65f0c2/orders")["orders"]
    assert [one["orderId"] for one in listed] == [order], listed
    takes = "(id) => { const field = document.getElementById('customer'); field.value = id; return field.checkValidity(); }"
    for taken in ("samlp|acme|ada@example.com", "ada+shop@example.com", "c3ViamVjdA==", "f:3a9f:ada", "a~b", "...", "s" * 255):
        assert page.page.evaluate(takes, taken), taken
    for refused in (".", "..", "", "a/b", "a b", "a%2eb", "a#b", "a?b", "é", "s" * 256):
        assert not page.page.evaluate(takes, refused), refused


VISITS = [
    every_kind_of_order_ends_as_it_must,
    the_slider_shows_the_order_as_it_was,
    an_order_is_shipped_and_another_cancelled,
    an_order_is_placed_and_looked_at_by_keyboard_alone,
    stock_is_taken_in_and_sales_are_counted,
    what_comes_twice_and_in_no_order_changes_nothing,
    a_reader_breaks_and_its_dead_letters_are_redriven,
    an_order_waits_for_an_unavailable_provider,
    an_event_travels_on_the_map,
    a_fault_shows_on_the_map_where_it_is,
    the_map_is_used_by_keyboard,
    nothing_moves_where_a_visitor_wants_less_motion,
    a_part_is_seen_beside_its_metrics_on_a_phone,
    it_stands_still_and_nothing_is_cut_at_any_width,
    the_buttons_of_an_order_keep_their_place,
    a_stuck_order_names_the_commands_that_settle_it,
    every_consumer_keeps_its_latency_after_a_reload,
    the_axis_of_the_chart_shows_whole_numbers_of_any_size,
    a_customer_has_the_id_that_an_identity_provider_gave,
]
LOAD = it_stays_live_and_right_with_fifty_orders_a_second_and_faults
ALONE = [where_the_api_takes_tokens_it_is_asked_again_and_again, a_server_that_is_down_is_reported_with_what_to_do]
