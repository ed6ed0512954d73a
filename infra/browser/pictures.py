"""Takes the README's screenshots, with some orders, active faults and travelling events."""

from browser import PHONE

# From the top of the page to the steps of the order.
VIEW = {"x": 0, "y": 0, "width": 1400, "height": 1500}


def pictures(page, browser, _):
    """Takes the screenshots, and checks the accessibility of each."""

    def travelling(name):
        """Takes a picture while events travel on the map."""
        page.place("good", "CUP-03")
        page.order_is("confirmed", "completed")
        page.page.wait_for_selector("#map-dots .dot.applied", state="attached")
        page.page.evaluate("() => scrollTo(0, 0)")
        page.until("() => [...document.querySelectorAll('#map-dots .dot.applied')].some((dot) => getComputedStyle(dot).opacity === '1')")
        page.picture(name, clip=VIEW)

    for scenario in ("good", "carrier", "none", "flaky", "fraud"):
        page.place(scenario)
    page.order_is("cancelled", "aborted")
    page.place("declined", "POT-07")
    page.order_is("cancelled", "aborted")
    page.page.check("#troubles input[name=duplicates]")
    page.page.check("#troubles input[name=disorder]")
    page.place("good", "CUP-03")
    page.order_is("confirmed", "completed")
    page.page.check("#troubles input[name=broken-reader]")
    page.place("cancelled")
    page.order_is("cancelled", "aborted")
    page.wait("#letters li")
    page.until("() => document.querySelectorAll('#orders li .pill').length >= 8")
    page.page.locator("#orders li").nth(1).locator("button").click()
    page.order_is("confirmed", "completed")
    page.until("() => document.querySelectorAll('#timeline .did.duplicate').length > 10")
    page.has_no_barriers()
    page.picture("page-light-whole", full_page=True)
    travelling("page-light")
    page.page.emulate_media(color_scheme="dark")
    page.has_no_barriers()
    page.picture("page-dark-whole", full_page=True)
    travelling("page-dark")
    page.page.press("#moment", "Home")
    page.page.press("#moment", "ArrowRight")
    page.until("() => document.getElementById('moment-says').textContent.startsWith('As of')")
    page.has_no_barriers()
    page.page.locator("#order").screenshot(path=page.folder / "order-past-dark.png")
    page.page.emulate_media(color_scheme="light")
    page.has_no_barriers()
    page.page.locator("#order").screenshot(path=page.folder / "order-past-light.png")
    with browser.page(page.api, **PHONE) as phone:
        phone.connected("live")
        phone.page.locator("#orders button").nth(1).click()
        phone.order_is("confirmed", "completed")
        phone.has_no_barriers()
        too_wide = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert phone.page.evaluate(too_wide) == 0, "the page scrolls horizontally"
        phone.page.evaluate("() => document.getElementById('map').scrollIntoView()")
        phone.picture("page-phone", full_page=False)
        phone.picture("page-phone-whole", full_page=True)
        phone.page.emulate_media(color_scheme="dark")
        phone.has_no_barriers()
