"""The page of the reference results in a real Chromium, without a window: `tox -e browser`."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from harness.report.page import write
from harness.results import Store

REFERENCE = Path(__file__).parents[2] / "results" / "reference"
FLAGS = [
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run", "--window-size=1280,1000"),
]


@pytest.fixture(scope="session")
def quick_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of two experiments of the reference results, as few as one command of the quick profile makes."""
    folder = tmp_path_factory.mktemp("quick")
    everything = Store(REFERENCE)
    rows, _ = everything.frame()
    few = rows.filter(pl.col("experiment").is_in(["tuned-digits-fc", "log-z"]))
    for experiment, cell in few.select("experiment", "cell").unique().rows():
        Store(folder).write(everything.read(experiment, cell))
    assert write(Store(folder), folder / "asv", folder / "report.html") == []
    return folder / "report.html"


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of all reference results."""
    path = tmp_path_factory.mktemp("all") / "report.html"
    started = time.process_time()
    assert write(Store(REFERENCE), REFERENCE / "asv", path) == []
    assert time.process_time() - started < 20
    return path


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in [*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
    browser.command_executor.client_config.timeout = 600  # axe looks at every element
    browser.set_script_timeout(500)
    yield browser
    browser.quit()


@pytest.fixture
def opened(driver: webdriver.Chrome) -> Callable[..., webdriver.Chrome]:
    """Open a page, as a desktop or a phone, in light or dark."""

    def opened(
        path: Path, width: int = 1280, scheme: str = "light", fragment: str = "", height: int = 1000
    ) -> webdriver.Chrome:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        driver.get("about:blank")
        for kind in ("browser", "performance"):
            driver.get_log(kind)  # forget what another page said
        driver.get(path.as_uri() + fragment)
        return driver

    return opened
