"""The report in a browser: moved, clicked and read by keyboard, on a desk and on a phone, from the disk."""

import json
from urllib.parse import quote

import pytest
from browser import CHROMIUM, opened
from finished_run import LABELS, make_run

from sass.report.build import build_report
from sass.settings import load

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium to open the report with")
HOSTILE = "<script>alert('x')<%2e&\"#?"
AREAS = """
[...document.querySelectorAll("[data-part=areas] tr")].map(
  (row) => [...row.cells].map((cell) => cell.innerText)
)
"""
COLOURS = """(() => {
  const canvas = document.querySelector("canvas");
  const size = [canvas.width, canvas.height];
  const copy = new OffscreenCanvas(...size).getContext("2d", { willReadFrequently: true });
  copy.drawImage(canvas, 0, 0);
  const pixels = copy.getImageData(0, 0, ...size).data;
  const seen = {};
  for (let i = 0; i < pixels.length; i += 4) {
    const key = [...pixels.slice(i, i + 4)].join();
    seen[key] = (seen[key] ?? 0) + 1;
  }
  return seen;
})()"""
READY = "document.querySelector('canvas').width > 8"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A report of scenes and classes with names that would like to be code."""
    run, shards, fit = make_run(
        tmp_path_factory.mktemp("run"),
        {HOSTILE: (120, 150), "plain": (160, 130)},
        failed={"<b>bold</b>": "<img src=x onerror=alert(4)>"},
        class_names=["<script>alert(5)</script>", '"><img src=x onerror=alert(6)>', *LABELS[2:]],
    )
    settings = load({"report": {"chips": 1, "title": "<script>alert(7)</script>"}})
    build_report(run, settings, archive=shards, fit=fit)
    return run.report


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with opened(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def browser(chromium):
    """The browser; whatever a test does in it, its console must not complain."""
    chromium.complaints.clear()
    yield chromium
    assert chromium.complaints == []


def areas(browser) -> dict[str, tuple[float, float]]:
    """Return the shares of each class that the page shows, of all scenes and of the one, in percent."""
    return {name: tuple(float(t.split()[0]) for t in shares) for name, *shares in browser.ask(AREAS)}


def scene_page(report, scene):
    return report / "scenes" / f"{scene}.html"


def test_the_slider_moves_the_map_and_the_areas_by_keyboard(browser, report):
    browser.open(report / "index.html")
    browser.until(READY)
    browser.ask("document.querySelector('[data-part=slider]').focus()")
    before, painted = areas(browser), browser.ask(COLOURS)
    assert len(before) == 7
    for column in (0, 1):
        assert sum(shares[column] for shares in before.values()) == pytest.approx(100, abs=0.5)
    for _ in range(3):
        browser.press("ArrowRight")
    after = areas(browser)
    assert len(after) == 10
    assert browser.ask("document.querySelector('[data-part=number]').textContent") == "10"
    assert any(", part 2" in name for name in after)
    browser.press("Home")
    two = browser.ask(COLOURS)
    assert len(areas(browser)) == 2
    # of the colours of two classes all were there before: a class leaves its colour to the larger part
    assert set(two) <= set(painted) and two != painted
    browser.ask("document.querySelector('[data-part=back]').click()")
    assert browser.ask(COLOURS) == painted and areas(browser) == before


def test_colours_and_areas_are_those_of_the_codes(browser, report):
    browser.open(report / "index.html")
    browser.until(READY)
    seen = browser.ask(COLOURS)
    transparent = sum(n for key, n in seen.items() if key.endswith(",0"))
    shown = sorted((n for key, n in seen.items() if key.endswith(",255")), reverse=True)
    here = sorted((share for _, share in areas(browser).values() if share), reverse=True)
    assert transparent > 0
    assert here == pytest.approx([100 * n / sum(shown) for n in shown], abs=0.051)


def test_another_scene_can_be_chosen_and_a_class_pointed_out(browser, report):
    browser.open(report / "index.html")
    browser.until(READY)
    first, everywhere = browser.ask(COLOURS), {k: v[0] for k, v in areas(browser).items()}
    browser.ask(
        "(() => { const s = document.querySelector('[data-part=scene]'); s.selectedIndex = 1; "
        "s.dispatchEvent(new Event('change')); })()"
    )
    browser.until("document.querySelector('canvas').height === 40")
    assert browser.ask("document.querySelector('[data-part=picture]').src").endswith("plain.scene.png")
    assert browser.ask(COLOURS) != first
    assert {k: v[0] for k, v in areas(browser).items()} == everywhere
    button = "document.querySelector('[data-part=areas] button')"
    browser.ask(f"{button}.click()")
    assert browser.ask(f"{button}.getAttribute('aria-pressed')") == "true"
    strong = [key for key in browser.ask(COLOURS) if key.endswith(",255")]
    assert len(strong) == 1


def test_the_swipe_follows_pointer_and_keyboard_and_shows_confidence(browser, report):
    browser.open(scene_page(report, "plain"))
    split = "document.querySelector('.stage').style.getPropertyValue('--split')"
    assert browser.ask(split) == "50%"
    browser.drag(".stage", 0.5, 0.25)
    assert browser.ask(split) == "25%"
    browser.ask("document.querySelector('.slider input[type=range]').focus()")
    browser.press("ArrowRight")
    assert browser.ask(split) == "26%"
    browser.ask("document.querySelectorAll('input[name=layer]')[1].click()")
    assert "confidence" in browser.ask("document.querySelector('.over').src")
    assert browser.ask("document.querySelector('.over').alt").startswith("Confidence")
    browser.until("document.querySelector('.over').complete")


def test_a_footprint_leads_to_its_scene(browser, report):
    browser.open(report / "index.html")
    links = browser.ask("[...document.querySelectorAll('.ground a')].map((a) => a.getAttribute('href'))")
    assert links == [f"scenes/{quote(scene)}.html" for scene in (HOSTILE, "plain")]
    box = browser.ask(
        "(() => { const p = document.querySelector('.ground polygon').getBoundingClientRect(); "
        "const i = document.querySelector('.ground img').getBoundingClientRect(); "
        "return [p.left - i.left, p.top - i.top, i.right - p.right, i.bottom - p.bottom, p.width - 100]; })()"
    )
    assert min(box) > 0


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", ["index", HOSTILE, "plain"])
def test_nothing_is_wider_than_a_phone(browser, report, name, dark):
    browser.open(report / "index.html" if name == "index" else scene_page(report, name), 390, 844, dark)
    browser.until(READY)
    assert browser.ask("document.documentElement.scrollWidth") == 390
    assert browser.ask("matchMedia('(prefers-color-scheme: dark)').matches") is dark


@pytest.mark.parametrize("name", ["index", HOSTILE])
def test_every_control_has_a_name_and_is_reached_by_tab(browser, report, name):
    browser.open(report / "index.html" if name == "index" else scene_page(report, name))
    browser.until(READY)
    tree = browser.call("Accessibility.getFullAXTree")["nodes"]
    controls = {"button", "slider", "radio", "combobox", "link", "searchbox", "img", "image", "canvas"}
    shown = [node for node in tree if not node["ignored"] and node["role"]["value"] in controls]
    assert {"slider", "button", "link"} <= {node["role"]["value"] for node in shown}
    assert [node for node in shown if not node.get("name", {}).get("value")] == []
    reached = set()
    for _ in range(80):
        browser.press("Tab")
        reached.add(browser.ask("document.activeElement.dataset.part ?? document.activeElement.localName"))
    assert {"slider", "a", "button"} <= reached


def test_names_that_would_be_code_are_shown_as_they_are(browser, report):
    browser.open(scene_page(report, HOSTILE))
    browser.until(READY)
    assert browser.ask("document.querySelector('h1').textContent") == HOSTILE
    browser.open(report / "index.html")
    browser.until(READY)
    assert browser.ask("document.querySelectorAll('script').length") == 5  # four of the page, one map
    text = browser.ask("document.querySelector('[data-part=areas]').textContent")
    assert "<script>alert(5)</script>" in text
    assert browser.ask("document.querySelectorAll('img[src=x]').length") == 0
    assert json.dumps(HOSTILE) in (report / "choice" / f"{HOSTILE}.codes.js").read_text()
