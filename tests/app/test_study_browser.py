"""A whole survey clicked and typed through in a real browser, served and hosted as a folder."""

import json
import shutil

import pytest
from served import Server
from survey import PEOPLE, SYSTEMS, make_study

from likeness.app.study.answers import AnswerStore, merge
from likeness.app.study.manifest import SITE, Study
from likeness.app.study.report import make_report

pytestmark = pytest.mark.slow
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
]
FLAGS += ["--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="no browser driver: pip install playwright")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no browser: install chromium")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=path, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(params=["magic_mirror", "fantasy_id"])
def folder(request, material, tmp_path):
    make_study(material, tmp_path / "study", questions=request.param)
    return tmp_path / "study"


@pytest.fixture
def server(folder):
    running = Server(folder)
    yield running
    running.kill()


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 1100, "height": 800})
    page = context.new_page()
    page.faults, page.asked = [], []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("console", lambda line: page.faults.append(line.text) if line.type == "error" else None)
    page.on("request", lambda request: page.asked.append(request.url))
    yield page
    context.close()


def wait_for_video(page):
    for _ in range(100):  # The page's own policy forbids the driver's waiting for an expression.
        if page.evaluate("document.querySelector('video').videoWidth > 0"):
            return
        page.wait_for_timeout(100)
    raise AssertionError("the video does not play")


def choose(page, study, number):
    """Answer as asked at a check, else with a number of one's own."""
    check = page.locator(".check")
    value = int("".join(c for c in check.inner_text() if c.isdigit())) if check.count() else number
    for name in study.questionnaire.names:
        page.check(f"input[name={name}][value='{value}']")


def test_a_served_survey_from_start_to_thanks(folder, server, page):
    study = Study.load(folder)
    page.goto(f"http://127.0.0.1:{server.port}/")
    page.click("#start")
    # Nothing is chosen: the page says what is missing and stays.
    page.click("#next")
    assert "Please answer" in page.inner_text("#notice")
    for number in range(len(study.plans[0])):
        page.wait_for_selector(f"#count:has-text('{number + 1} of {len(study.plans[0])}')")
        wait_for_video(page)
        choose(page, study, 7)
        if number == 2:  # Second thoughts, a reload, and a server that dies and comes back.
            page.click("#back")
            page.reload()
            choose(page, study, 9)
            server.kill()
            page.click("#next")
            page.wait_for_selector("#notice:has-text('No connection')")
            server.start()
            choose(page, study, 7)
        page.click("#next")
    page.wait_for_selector("#done")
    store = AnswerStore(folder, study)
    raters, rows = store.count()
    answers = store.newest()
    store.close()
    assert (raters, len(answers)) == (1, len(study.plans[0]))
    assert rows >= len(answers)
    assert sorted(a.position for a in answers) == list(range(len(answers)))
    assert make_report(study, answers).raters.used == (answers[0].rater,)
    leaks = [url for url in page.asked for word in (*SYSTEMS, *PEOPLE) if word in url.rpartition(str(server.port))[2]]
    assert not leaks
    assert all(url.startswith(f"http://127.0.0.1:{server.port}/") for url in page.asked)
    assert not [fault for fault in page.faults if "ERR_CONNECTION" not in fault]


def test_a_survey_by_keyboard_alone_from_a_folder(folder, page, tmp_path):
    study = Study.load(folder)
    page.goto((folder / SITE / "index.html").as_uri())
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    for number in range(len(study.plans[0])):
        page.wait_for_selector(f"#count:has-text('{number + 1} of ')")
        check = page.locator(".check")
        value = "".join(c for c in check.inner_text() if c.isdigit()) if check.count() else "10"
        page.focus(f"#q-{study.questionnaire.names[0]} input")
        for position in range(len(study.questionnaire.names)):
            for digit in value:
                page.keyboard.press(digit)
            if position < len(study.questionnaire.names) - 1:
                page.keyboard.press("Tab")
        page.keyboard.press("Enter")
    with page.expect_download() as saved:
        page.click("#download")
    path = tmp_path / "answers.json"
    saved.value.save_as(path)
    store = AnswerStore(folder, study)
    assert merge(store, [path]) == (len(study.plans[0]), 0)
    answers = store.newest()
    store.close()
    rated = [set(a.ratings.values()) for a in answers if a.trial in study.item_by_id]
    assert rated == [{10}] * len(study.items)
    assert make_report(study, answers).raters.failed_checks == ()
    assert json.loads(path.read_text())["study"] == study.key
    assert not page.faults


def test_every_control_has_a_name_and_fits_a_phone(folder, browser):
    context = browser.new_context(viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True)
    page = context.new_page()
    page.goto((folder / SITE / "index.html").as_uri())
    page.click("#start")
    page.wait_for_selector("video")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    boxes = [box.bounding_box() for box in page.locator(".scale label").all()]
    assert all(box["width"] >= 24 and box["height"] >= 40 for box in boxes)
    unnamed = page.evaluate(
        "Array.from(document.querySelectorAll('input, button, img, video, progress')).filter("
        "e => !(e.getAttribute('aria-label') || e.alt || e.textContent.trim())).length"
    )
    assert unnamed == 0
    assert all(page.locator("fieldset legend").all_inner_texts())
    context.close()
