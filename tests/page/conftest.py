"""One browser for all tests; a page that misbehaves fails the test that opened it."""

import shutil

import pytest
from page.opening import FLAGS, LAYOUTS, Opener
from playwright.sync_api import sync_playwright


@pytest.fixture(params=LAYOUTS)
def layout(request):
    return request.param


@pytest.fixture(scope="session")
def browser():
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.exit("these tests need chromium: sudo apt install chromium", returncode=1)
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=chromium, args=FLAGS) as browser:
        yield browser


@pytest.fixture
def open_page(browser):
    opener = Opener(browser)
    yield opener
    opener.check()
    for page in opener.pages:
        page.context.close()
