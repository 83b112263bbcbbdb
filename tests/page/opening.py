"""The built page in a browser, in four layouts, watched for what it must never do."""

from pathlib import Path

from playwright.sync_api import Browser, Page

from crossentropy import explore

BUILT = Path(explore.__file__).with_name("page.html")
FLAGS = [
    "--no-sandbox",  # root has none
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDE = {"viewport": {"width": 1280, "height": 800}}
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
LAYOUTS = {
    "wide-light": {**WIDE, "color_scheme": "light"},
    "wide-dark": {**WIDE, "color_scheme": "dark"},
    "phone-light": {**PHONE, "color_scheme": "light"},
    "phone-dark": {**PHONE, "color_scheme": "dark", "reduced_motion": "reduce"},
}


class Opener:
    """Opens pages, and keeps what they must not do: say something on the console, ask for a file, scroll sideways."""

    def __init__(self, browser: Browser):
        self.browser, self.pages, self.complaints = browser, [], []

    def __call__(self, fragment="", *, layout="wide-light", file=BUILT, address="", clock=True, **options) -> Page:
        """`clock`: timers and animation frames wait until `settle` lets a second pass."""
        context = self.browser.new_context(**LAYOUTS[layout], **options)
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        page = context.new_page()
        self.pages.append(page)
        page.set_default_timeout(5000)

        def watch_request(request):
            if not request.is_navigation_request() and not request.url.startswith("data:"):
                self.complaints.append(f"request: {request.url[:200]}")

        page.on("console", lambda message: self.complaints.append(f"console: {message.text[:300]}"))
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("request", watch_request)
        if clock:
            page.clock.install()
        page.goto((address or file.as_uri()) + fragment)
        if options.get("java_script_enabled", True):
            page.wait_for_selector("[data-ready='1']", state="attached")
            if clock:
                settle(page)
        return page

    def check(self) -> None:
        for page in self.pages:
            width, room = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
            if width > room:
                self.complaints.append(f"scrolls sideways: {width} px on {room}")
        assert not self.complaints, "\n".join(self.complaints)


def settle(page: Page) -> None:
    """Let the page do what it has put off."""
    page.clock.run_for(1000)
