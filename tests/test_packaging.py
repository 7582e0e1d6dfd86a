"""What would be published: metadata, types, and a source distribution that its own tests can run in."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

from harness import __version__

ROOT = Path(__file__).parents[1]
PACKAGES = ("ebflow", "harness", "baselines")


def build(kind: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (found,) = folder.iterdir()
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    return zipfile.ZipFile(build("wheel", tmp_path_factory.mktemp("wheel")))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> set[Path]:
    """Its files, without the folder that holds them."""
    with tarfile.open(build("sdist", tmp_path_factory.mktemp("sdist"))) as archive:
        return {Path(*Path(name).parts[1:]) for name in archive.getnames()}


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return Parser().parsestr(wheel.read(name).decode())


def test_the_wheel_holds_the_three_packages_typed_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    files = [name for name in wheel.namelist() if ".dist-info/" not in name]
    assert {name.split("/")[0] for name in files} == set(PACKAGES)
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(files)
    assert {Path(name).suffix for name in files} == {".py", ".typed", ".toml", ".json", ".j2", ".css", ".js"}


def test_the_metadata_are_whole(metadata: Message) -> None:
    assert metadata["Version"] == __version__
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Author"] == "The ebflow-bench developers"
    assert "score matching" in metadata["Keywords"]
    assert "Typing :: Typed" in metadata.get_all("Classifier")
    assert {"peers", "docs", "test", "dev"} <= set(metadata.get_all("Provides-Extra"))
    assert metadata.get_payload() == (ROOT / "README.md").read_text()


def test_the_sdist_holds_what_its_tests_read(sdist: set[Path]) -> None:
    folders = (*PACKAGES, "tests", "docs", "examples", "results/reference")
    files = [path.relative_to(ROOT) for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    files += map(Path, ("README.md", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "results/README.md"))
    files += map(Path, ("pyproject.toml", "tox.ini", "asv.conf.json", "constraints.txt", ".ci/run"))
    assert [path for path in files if path not in sdist and "__pycache__" not in path.parts] == []


def test_the_sdist_holds_no_results_of_this_machine(sdist: set[Path]) -> None:
    assert [path for path in sdist if path.is_relative_to("results/local")] == []


def test_the_citation_is_of_this_version_and_of_the_paper() -> None:
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^cff-version: 1\.2\.0$", citation, re.MULTILINE)
    assert re.search(rf"^version: {re.escape(__version__)}$", citation, re.MULTILINE)
    assert "https://arxiv.org/abs/2305.15267" in citation


def test_the_changelog_has_this_version_and_an_unreleased_part() -> None:
    headings = re.findall(r"^## \[(.*?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert __version__ in headings
