"""The page in a real browser: what it does when a reader clicks, and that nothing in it runs but its own script."""

from __future__ import annotations

import shutil

import pytest

from harness.reporting.page import render_page

pytestmark = pytest.mark.browser
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="20"><rect width="40" height="20"/></svg>'


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")
    program = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if program is None:
        pytest.skip("no chromium and no google-chrome on the path")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def address(run, samples, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render_page(run, samples, {"forest-method": SVG, "layers": SVG}), encoding="utf-8")
    return path.as_uri()


@pytest.fixture(params=["light"])
def page(request, browser, address):
    """The page opened; whatever it asks for, logs or fails at in the test is an error."""
    opened = browser.new_page(color_scheme=request.param, viewport={"width": 1200, "height": 900})
    opened.set_default_timeout(60_000)  # ends a test that hangs: on a busy machine a page can take half a minute
    trouble: list[str] = []
    opened.on("console", lambda message: trouble.append(message.text))
    opened.on("pageerror", lambda error: trouble.append(str(error)))
    opened.on("request", lambda asked: None if asked.url.startswith((address, "data:")) else trouble.append(asked.url))
    opened.add_init_script("addEventListener('securitypolicyviolation', (e) => console.error(e.violatedDirective))")
    opened.goto(address)
    yield opened
    assert "hacked" not in opened.title()
    opened.close()
    assert trouble == []


def column_of(page, table: str, at: int) -> list[str]:
    return [
        text.strip() for text in page.locator(f"{table} .scores tbody tr td:nth-child({at}) .value").all_inner_texts()
    ]


def shown_cases(page, table: str) -> list[str]:
    return page.locator(f"{table} .scores tbody tr:visible th .name").all_inner_texts()


def test_a_click_on_a_header_sorts_most_first_then_least_first_then_as_before(page):
    table = "#family-method"
    header = page.locator(f"{table} .scores thead th").nth(1)
    before = column_of(page, table, 2)
    values = [float(text.split()[0]) for text in before]
    for state, expected in (("descending", sorted(values)[::-1]), ("ascending", sorted(values)), (None, values)):
        header.locator("button").click()
        assert [float(text.split()[0]) for text in column_of(page, table, 2)] == expected
        assert header.get_attribute("aria-sort") == state


def test_the_keyboard_sorts_names_and_numbers_of_any_table(page):
    headers = page.locator("#does-swapping-pay thead button")
    headers.nth(1).focus()
    page.keyboard.press("Enter")
    names = page.locator("#does-swapping-pay tbody td:nth-child(2)").all_inner_texts()
    assert names == sorted(names)
    headers.nth(5).focus()
    page.keyboard.press("Space")
    found = [float(t.split()[0]) for t in page.locator("#does-swapping-pay tbody td:nth-child(6)").all_inner_texts()]
    assert found == sorted(found, reverse=True)
    assert page.locator("#does-swapping-pay th[aria-sort]").count() == 1


def test_the_filter_keeps_the_cases_with_every_word_and_their_reference(page):
    page.get_by_label("Show cases with").fill("math instead")
    assert [text.split()[0] for text in shown_cases(page, "#family-transition")] == ["layer-swap", "math-instead"]
    assert page.locator("#family-method").is_hidden()
    assert page.locator("#filtered").inner_text() == "1 of 6 cases"
    page.get_by_label("Show cases with").fill("")
    assert page.locator("#family-method").is_visible()
    assert len(shown_cases(page, "#family-method")) == 4


def test_a_value_opens_the_documents_that_its_case_changed(page, run):
    page.locator('#family-transition .scores a[href="#documents?column=mgsm+sw&b=transition%2Fmath-instead"]').click()
    page.locator("#list details").first.wait_for()
    chosen = [page.locator(f"#{name}").input_value() for name in ("column", "variant-a", "variant-b")]
    assert chosen == ["mgsm sw", run.reference, "transition/math-instead"]
    kinds = dict(text.rsplit(" ", 1) for text in page.locator("#kinds label").all_inner_texts())
    counts = {kind: int(count.strip("()")) for kind, count in kinds.items()}
    assert counts["all"] == counts["right to wrong"] + counts["wrong to right"] + counts["wrong in another way"]
    page.get_by_label("wrong in another way").check()
    assert page.locator("#list details").count() == 20
    page.get_by_role("button", name="Next").click()
    assert page.locator("#page").inner_text().startswith("Page 2 of ")
    assert "kind=other" in page.url
    assert page.locator("#sums").inner_text().startswith("500 documents: A has ")


def test_counts_of_flips_are_those_of_the_comparison(page, samples):
    column = samples[0]
    before, after = column.values["method/layer-swap"], column.values["method/base"]
    page.goto(page.url + "#documents?column=mgsm+sw&b=method%2Fbase")
    page.locator("#list details").first.wait_for()
    labels = page.locator("#kinds label").all_inner_texts()
    assert f"right to wrong ({sum(b < a for a, b in zip(before, after, strict=True))})" in labels
    assert f"wrong to right ({sum(b > a for a, b in zip(before, after, strict=True))})" in labels
    page.get_by_role("button", name="Exchange A and B").click()
    assert page.locator("#variant-a").input_value() == "method/base"
    assert (
        f"wrong to right ({sum(b < a for a, b in zip(before, after, strict=True))})"
        in page.locator("#kinds label").all_inner_texts()
    )


def test_hostile_documents_are_shown_as_text(page, hostile):
    page.goto(page.url + "#documents?column=flores+en-sw&a=method%2Fbase&b=method%2Fsoup")
    details = page.locator("#list details")
    details.first.wait_for()  # the address is followed, and answers unpacked, after ``goto`` returns
    assert page.get_by_label("lower").count() == 1
    seen = set()
    while len(seen) < len(hostile):
        for number, digest in enumerate(page.locator("#list .digest").all_inner_texts()):
            if int(digest, 16) < len(hostile):
                details.nth(number).locator("summary").click()
                shown = details.nth(number).locator("pre")
                expected = hostile[int(digest, 16)]
                assert shown.nth(0).text_content() == f"asked {expected}"
                assert shown.nth(1).text_content() == expected
                assert shown.nth(3).text_content().startswith(expected)
                seen.add(digest)
        if len(seen) < len(hostile):
            page.get_by_role("button", name="Next").click()
    assert page.locator("#documents img, #documents script").count() == 0


def test_answers_are_unpacked_when_the_panel_comes_into_view(page, run):
    assert page.locator("#list").inner_text() == ""
    page.locator("#documents").scroll_into_view_if_needed()
    page.locator("#list details").first.wait_for()
    assert page.locator("#variant-a").input_value() == run.reference


@pytest.mark.parametrize("page", ["light", "dark"], indirect=True)
def test_text_contrasts_with_its_paper_in_both_schemes(page, request):
    """At least 4.5 to 1 (WCAG 2.2, 1.4.3) for every text colour of the style sheet on every paper it stands on."""
    ratio = """([ink, paper]) => {
      const style = getComputedStyle(document.documentElement);
      const light = (name) => {
        const hex = style.getPropertyValue(name).trim();
        const [r, g, b] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16) / 255)
          .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const [a, b] = [light(ink), light(paper)];
      return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    }"""
    for ink in ("--ink", "--soft", "--link", "--good", "--bad", "--warn"):
        for paper in ("--paper", "--raised", "--picked"):
            assert page.evaluate(ratio, [ink, paper]) >= 4.5, (ink, paper)
    dark = "dark" in request.node.callspec.id
    assert (page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)") is not dark


@pytest.mark.parametrize("width", [400, 1200])
def test_only_tables_scroll_sideways(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    first = page.locator("#family-method .scores tbody th").first
    left = first.bounding_box()["x"]
    page.locator("#family-method .scroll:has(.scores)").evaluate("element => { element.scrollLeft = 300 }")
    assert first.bounding_box()["x"] == left
