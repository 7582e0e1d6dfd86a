"""What a reader meets: no errors or requests, sorting, filtering, figures, keyboard, phone, dark, paper."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

Opened = Callable[..., Chrome]

CONTRAST = """
const light = (text) => {
  const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
  const [x, y, z] = [r, g, b].map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return { a, l: 0.2126 * x + 0.7152 * y + 0.0722 * z };
};
const behind = (element) => {
  for (let one = element; one; one = one.parentElement) {
    const found = light(getComputedStyle(one).backgroundColor);
    if (found.a > 0) return found.l;
  }
  return 1;
};
const poor = [];
for (const element of document.querySelectorAll("body *")) {
  if (element.closest("svg, .skip") || !element.getClientRects().length) continue;
  if (![...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim())) continue;
  const [a, b] = [light(getComputedStyle(element).color).l, behind(element)].sort();
  const ratio = (b + 0.05) / (a + 0.05);
  if (ratio < 4.5) poor.push([element.tagName, element.className, element.textContent.slice(0, 30), ratio]);
}
return poor;
"""


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


def test_every_figure_shows_and_says_its_values(opened: Opened, page: Path) -> None:
    driver = opened(page)
    figures = driver.find_elements(By.CSS_SELECTOR, "figure")
    assert figures
    for figure in figures:
        driver.execute_script("arguments[0].scrollIntoView()", figure)
        box = figure.find_element(By.CSS_SELECTOR, ".sheet svg").rect
        assert box["width"] > 200
        assert box["height"] > 100
    mark = driver.find_element(By.CSS_SELECTOR, "figure [data-tip]")
    ActionChains(driver).move_to_element(mark).perform()
    tip = driver.find_element(By.CSS_SELECTOR, ".tip")
    WebDriverWait(driver, 10).until(lambda _: tip.is_displayed())
    assert tip.text in {
        found.get_attribute("data-tip") for found in driver.find_elements(By.CSS_SELECTOR, "figure [data-tip]")
    }


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_page(width: int, opened: Opened, page: Path) -> None:
    driver = opened(page, width=width)
    driver.execute_script("for (const part of document.querySelectorAll('details')) part.open = true;")
    wide, visible = driver.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert visible == width
    assert wide <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(scheme: str, opened: Opened, quick_page: Path) -> None:
    driver = opened(quick_page, scheme=scheme)
    background = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (int(background[4:].split(",")[0]) < 100) == (scheme == "dark")
    assert driver.execute_script(CONTRAST) == []
    sheet = driver.execute_script("return getComputedStyle(document.querySelector('.sheet')).backgroundColor")
    assert sheet == "rgb(255, 255, 255)"  # what figures are drawn for


def test_prints(opened: Opened, quick_page: Path) -> None:
    driver = opened(quick_page)
    pdf = base64.b64decode(driver.print_page())
    assert pdf.startswith(b"%PDF")
    assert len(pdf) > 50_000
    # What printing opened is closed again.
    assert driver.execute_script("return document.querySelectorAll('#tables details.group[open]').length") == 1


def test_it_reads_without_scripts(opened: Opened, quick_page: Path) -> None:
    try:
        opened(quick_page).execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
        driver = opened(quick_page)
        assert "The paper's claims" in driver.find_element(By.TAG_NAME, "main").text
        assert driver.find_elements(By.CSS_SELECTOR, "th button, .filter") == []
    finally:
        driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
