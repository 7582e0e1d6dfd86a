"""What a reader meets: no errors or requests, sorting, filtering, figures, keyboard, phone, dark, paper."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

Opened = Callable[..., Chrome]

AXE = (files("axe_core_python") / "axe.min.js").read_text()
# Rows of a table, and cells of the appendix, are alike: three of each stand for all.
UNFOLD = """
for (const many of document.querySelectorAll("tbody, .appendix"))
  many.replaceChildren(...[...many.children].slice(0, 3));
for (const part of document.querySelectorAll(".fold figure, .appendix > *")) part.style.contentVisibility = "visible";
for (const part of document.querySelectorAll("details")) part.open = true;
"""
CHART = "#claim-scaling .chart"


def column(driver: Chrome, table: str, index: int) -> list[str]:
    """Texts of one column of the rows that are shown."""
    script = """
      return [...document.querySelectorAll(arguments[0] + " tbody tr")].filter((row) => !row.hidden)
        .map((row) => row.cells[arguments[1]].textContent);
    """
    return driver.execute_script(script, table, index)


def headings(driver: Chrome, table: str) -> list[str]:
    return driver.execute_script(f"return [...document.querySelectorAll('{table} th')].map((th) => th.textContent)")


@pytest.fixture
def likelihoods(opened: Opened, page: Path) -> tuple[Chrome, str]:
    """The page at a table with numbers and gaps, whose group is opened by the link to it."""
    table = "table-table2-mnist-fc-paper-likelihood"
    return opened(page, fragment=f"#{table}"), f"#{table}"


@pytest.mark.parametrize("which", ["quick_page", "page"])
def test_loads_alone_and_without_errors(which: str, opened: Opened, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(which)
    driver = opened(path)
    assert driver.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert {url for url in asked if not url.startswith("data:")} == {path.as_uri()}
    loaded = driver.execute_script("return performance.getEntriesByType('navigation')[0].loadEventEnd")
    print(f"{which}: {path.stat().st_size / 1e6:.2f} MB, loaded in {loaded:.0f} ms")


def test_the_quick_profile_s_report_is_small(quick_page: Path) -> None:
    assert quick_page.stat().st_size < 3_000_000


def test_sorts_by_numbers_and_by_text(likelihoods: tuple[Chrome, str]) -> None:
    driver, table = likelihoods
    index = headings(driver, table).index("NLL nats")
    heading = driver.find_elements(By.CSS_SELECTOR, f"{table} th")[index]
    shown = column(driver, table, index)
    numbers = sorted(float(text.replace(",", "")) for text in shown if text)
    for state, expected in (("ascending", numbers), ("descending", numbers[::-1])):
        heading.find_element(By.TAG_NAME, "button").click()
        assert heading.get_attribute("aria-sort") == state
        texts = column(driver, table, index)
        assert [float(text.replace(",", "")) for text in texts if text] == expected
        assert texts[len(expected) :] == [""] * (len(texts) - len(expected))  # gaps stay at the end
    first = driver.find_element(By.CSS_SELECTOR, f"{table} th")
    first.find_element(By.TAG_NAME, "button").click()
    names = column(driver, table, 0)
    assert names == sorted(names, key=str.casefold)
    assert heading.get_attribute("aria-sort") is None


def test_filters(likelihoods: tuple[Chrome, str]) -> None:
    driver, table = likelihoods
    everything = column(driver, table, 0)
    box = driver.find_element(By.CSS_SELECTOR, f"{table} input")
    assert box.get_attribute("aria-label").startswith("Filter rows of: table2-mnist-fc (paper): ")
    box.send_keys("EBFLOW ssm")
    kept = column(driver, table, 0)
    assert kept == [name for name in everything if "ebflow" in name and "ssm" in name]
    assert 0 < len(kept) < len(everything)
    output = driver.find_element(By.CSS_SELECTOR, f"{table} output")
    assert output.text == f"{len(kept)} of {len(everything)}"
    box.send_keys(Keys.CONTROL, "a")
    box.send_keys(Keys.DELETE)
    assert column(driver, table, 0) == everything


def test_the_keyboard_reaches_and_sorts(likelihoods: tuple[Chrome, str]) -> None:
    driver, table = likelihoods
    driver.find_element(By.CSS_SELECTOR, f"{table} input").click()
    reached = []
    for _ in range(4):
        ActionChains(driver).send_keys(Keys.TAB).perform()
        reached.append(driver.switch_to.active_element)
    region, *buttons = reached
    assert region.get_attribute("role") == "region"
    assert [button.tag_name for button in buttons] == ["button"] * 3
    ActionChains(driver).send_keys(Keys.ENTER).perform()
    assert driver.switch_to.active_element == buttons[-1]
    outline = driver.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"
    heading = buttons[-1].find_element(By.XPATH, "./ancestor::th")
    assert heading.get_attribute("aria-sort") == "ascending"


def test_a_number_leads_to_its_rows(likelihoods: tuple[Chrome, str]) -> None:
    driver, table = likelihoods
    link = driver.find_element(By.CSS_SELECTOR, f"{table} td a")
    key = link.get_attribute("hash")
    driver.execute_script("arguments[0].click()", link)
    cell = driver.find_element(By.ID, key[1:])
    assert cell.get_attribute("open") is not None
    assert cell.find_element(By.TAG_NAME, "pre").is_displayed()
    assert "harness reproduce table2-mnist-fc --profile paper" in cell.text


def test_the_page_is_short_before_it_is_unfolded(opened: Opened, page: Path) -> None:
    assert page.stat().st_size < 6_000_000
    for width, height, screens in ((1400, 1000, 12), (390, 844, 25)):
        driver = opened(page, width=width, height=height)
        WebDriverWait(driver, 10).until(lambda driver: driver.find_elements(By.CSS_SELECTOR, f"{CHART} svg"))
        whole = driver.execute_script("return document.documentElement.scrollHeight")
        print(f"{width} x {height}: {whole / height:.1f} screens")
        assert whole <= screens * height
    assert (
        driver.execute_script("scrollTo(0, 5000); return document.querySelector('nav').getBoundingClientRect().top")
        == 0
    )


@pytest.fixture
def chart(opened: Opened, page: Path) -> tuple[Chrome, WebElement]:
    """The page at a chart with more curves than are shown at first, its methods unfolded."""
    driver = opened(page)
    WebDriverWait(driver, 10).until(lambda driver: driver.find_elements(By.CSS_SELECTOR, f"{CHART} svg"))
    found = driver.find_element(By.CSS_SELECTOR, CHART)
    driver.execute_script("arguments[0].scrollIntoView({ block: 'center' })", found)
    driver.execute_script("arguments[0].querySelector('details').open = true", found)
    WebDriverWait(driver, 10).until(lambda _: found.find_elements(By.TAG_NAME, "fieldset"))
    return driver, found


def named(chart: WebElement) -> set[str]:
    """What the legend of a chart names."""
    texts = [line.text for line in chart.find_elements(By.CSS_SELECTOR, ".key li")]
    return {text.partition(",")[0] for text in texts if not text.endswith("more below")}


def press(driver: Chrome, chart: WebElement, text: str) -> None:
    """Press the box or button of a chart with this text."""
    path = f".//label[normalize-space(.)='{text}']/input | .//button[.='{text}']"
    driver.execute_script("arguments[0].click()", chart.find_element(By.XPATH, path))


def numbers(chart: WebElement) -> list[float]:
    """The numbers on the vertical axis of a chart."""
    texts = chart.find_elements(By.CSS_SELECTOR, "svg text[text-anchor=end]")
    return [float(text.get_attribute("textContent")) for text in texts]


def test_methods_are_hidden_and_shown_by_family_and_by_name(chart: tuple[Chrome, WebElement]) -> None:
    driver, shown = chart
    at_first = named(shown)
    assert {"ebflow-dsm", "ebflow-ml", "ebflow-aml"} <= at_first
    assert "nflows-lu-ml" not in at_first
    families = [legend.text for legend in shown.find_elements(By.TAG_NAME, "legend")]
    assert {"score matching", "maximum likelihood, restricted matrices"} <= set(families)
    assert len(families) == len(set(families)) > 4
    name = next(
        label.text for label in shown.find_elements(By.TAG_NAME, "label") if label.text.startswith("nflows-lu-ml")
    )
    press(driver, shown, name)
    assert named(shown) == at_first | {"nflows-lu-ml"}
    press(driver, shown, name)
    family = shown.find_element(By.XPATH, ".//fieldset[legend='score matching']//label[starts-with(., 'all')]/input")
    driver.execute_script("arguments[0].click(); arguments[0].click()", family)  # all, and then none
    assert "ebflow-dsm" not in named(shown)
    assert "ebflow-ml" in named(shown)


def test_axes_and_zoom(chart: tuple[Chrome, WebElement]) -> None:
    driver, shown = chart
    logarithmic = numbers(shown)
    assert logarithmic == [1, 10, 100]
    press(driver, shown, "logarithmic upwards")
    linear = numbers(shown)
    assert len({b - a for a, b in itertools.pairwise(linear)}) == 1
    press(driver, shown, "Zoom in")
    assert max(numbers(shown)) < max(linear)
    press(driver, shown, "Show everything")
    assert numbers(shown) == linear
    press(driver, shown, "logarithmic upwards")
    plot = shown.find_element(By.CSS_SELECTOR, ".plot")
    ActionChains(driver).move_to_element(plot).click_and_hold().move_by_offset(120, 60).release().perform()
    assert numbers(shown) != logarithmic
    ActionChains(driver).send_keys("0").perform()


def test_the_keyboard_reads_values(chart: tuple[Chrome, WebElement]) -> None:
    driver, shown = chart
    driver.execute_script("arguments[0].focus()", shown.find_element(By.CSS_SELECTOR, ".plot"))
    said = []
    for key in (Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.ARROW_LEFT):
        ActionChains(driver).send_keys(key).perform()
        said.append(shown.find_element(By.TAG_NAME, "output").text)
    assert all(text.endswith(" ms") for text in said), said
    sizes = [text.partition("D = ")[2].partition(",")[0] for text in said]
    assert sizes == ["64", "256", "256", "64"]
    methods = [text.partition(",")[0] for text in said]
    assert methods[0] == methods[1] != methods[2] == methods[3]
    before = numbers(shown)
    ActionChains(driver).send_keys("+").perform()
    assert numbers(shown) != before


def test_a_pointer_reads_values(chart: tuple[Chrome, WebElement]) -> None:
    driver, shown = chart
    mark = shown.find_elements(By.CSS_SELECTOR, ".plot .mark-at")[-1]
    ActionChains(driver).move_to_element(mark).perform()
    tip = driver.find_element(By.CSS_SELECTOR, ".tip")
    WebDriverWait(driver, 10).until(lambda _: tip.is_displayed())
    assert tip.text == shown.find_element(By.TAG_NAME, "output").text
    assert tip.text.endswith(" ms")


def test_every_figure_shows(opened: Opened, page: Path) -> None:
    driver = opened(page)
    driver.execute_script(UNFOLD)
    charts = "return document.querySelectorAll('.chart').length - document.querySelectorAll('.plot svg').length"
    WebDriverWait(driver, 60).until(lambda driver: driver.execute_script(charts) == 0)
    small = """
      return [...document.querySelectorAll(".plot svg, .panel img, .panel svg")].filter((drawing) => {
        const { width, height } = drawing.getBoundingClientRect();
        return width < 80 || height < 8 || drawing.naturalWidth === 0;
      }).length;
    """
    assert driver.execute_script(small) == 0
    assert driver.get_log("browser") == []


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_page(width: int, opened: Opened, page: Path) -> None:
    driver = opened(page, width=width)
    driver.execute_script("for (const part of document.querySelectorAll('details')) part.open = true;")
    wide, visible = driver.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert visible == width
    assert wide <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_with_everything_unfolded(scheme: str, opened: Opened, page: Path) -> None:
    driver = opened(page, scheme=scheme, width=1400)
    driver.execute_script(UNFOLD)
    WebDriverWait(driver, 60).until(lambda driver: len(driver.find_elements(By.CSS_SELECTOR, ".plot svg")) > 50)
    driver.execute_script("for (const part of document.querySelectorAll('details')) part.open = true;")
    driver.execute_script(AXE)
    found = driver.execute_async_script("""
      const done = arguments[0];
      axe.run().then(({ passes, violations }) => done([passes.map((rule) => rule.id), violations.map((rule) =>
        [rule.id, rule.help, ...rule.nodes.slice(0, 3).map((node) => node.html.slice(0, 200))])]));
    """)
    assert {"color-contrast", "heading-order", "image-alt", "label", "region"} <= set(found[0])
    assert found[1] == []


def test_figures_follow_dark_mode(opened: Opened, page: Path) -> None:
    colours = []
    for scheme in ("light", "dark"):
        driver = opened(page, scheme=scheme)
        WebDriverWait(driver, 10).until(lambda driver: driver.find_elements(By.CSS_SELECTOR, f"{CHART} svg"))
        style = "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]"
        wanted = ((f"{CHART} .line", "stroke"), (f"{CHART} svg text", "fill"), ("body", "backgroundColor"))
        colours.append([driver.execute_script(style, *one) for one in wanted])
    light, dark = colours
    assert all(a != b for a, b in zip(light, dark, strict=True))
    assert sum(map(int, dark[2][4:-1].split(","))) < 150 < sum(map(int, light[2][4:-1].split(",")))


def test_prints(opened: Opened, quick_page: Path) -> None:
    driver = opened(quick_page)
    pdf = base64.b64decode(driver.print_page())
    assert pdf.startswith(b"%PDF")
    assert len(pdf) > 50_000
    # What printing opened is closed again.
    assert driver.execute_script("return document.querySelectorAll('#tables details.group[open]').length") == 0


def test_it_reads_without_scripts(opened: Opened, quick_page: Path) -> None:
    try:
        opened(quick_page).execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
        driver = opened(quick_page)
        assert "The verdicts" in driver.find_element(By.TAG_NAME, "main").text
        assert "harness figures" in driver.find_element(By.TAG_NAME, "header").text
        assert driver.find_elements(By.CSS_SELECTOR, "th button, .filter") == []
    finally:
        driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_the_leaderboard_is_filtered_by_family(opened: Opened, page: Path) -> None:
    driver = opened(page, fragment="#leaderboard")
    shown = """
      return [...document.querySelectorAll("#leaderboard tbody tr")]
        .filter((row) => getComputedStyle(row).display !== "none").map((row) => row.textContent);
    """
    before = driver.execute_script(shown)
    select = driver.find_element(By.CSS_SELECTOR, "#leaderboard label select")
    assert select.accessible_name.startswith("Family")
    Select(select).select_by_visible_text("score matching")
    after = driver.execute_script(shown)
    assert 0 < len(after) < len(before)
    assert all("score matching" in text for text in after)
    Select(select).select_by_visible_text("every family")
    assert driver.execute_script(shown) == before
