"""What the README and the documents show is run as it stands there."""

from __future__ import annotations

import doctest
import re
import shlex
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.main
from typer.testing import CliRunner

from harness import datasets
from harness.cells.likelihood import fit_and_score
from harness.cli import demo
from harness.cli.program import app
from harness.conformance.checks import CHECKS, run_check
from harness.methods import Problem
from harness.methods.registry import Registry, read_modules, registry
from harness.paper.configurations import RECIPES
from harness.paper.experiments import EXPERIMENTS
from harness.timing.interleaved import measure
from harness.training.configuration import TrainingConfig

ROOT = Path(__file__).parents[1]
README, GUIDE, QUICKSTART = ROOT / "README.md", ROOT / "docs/adding-a-baseline.md", ROOT / "docs/quickstart.md"
PAGES = [README, *(ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "results/README.md"))]
PAGES += [ROOT / "results/reference/README.md", *sorted((ROOT / "docs").rglob("*.md"))]
OWN_DATA = ROOT / "docs/own-data.md"
ARCHITECTURE = ROOT / "docs/architecture.md"
GUIDES_METHOD = "plain-dense-ml"


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def commands(page: Path, in_text: bool = True) -> list[list[str]]:
    """The arguments of every `harness ...` that a page shows in the blocks of a shell, and in a line of text."""
    shown = [line for block in blocks(page, "sh") for line in block.splitlines()]
    if in_text:
        shown += re.findall(r"`(harness [a-z][^`]*)`", page.read_text())
    words = [shlex.split(line, comments=True) for line in shown]
    return [line[1:] for line in words if line[:1] == ["harness"]]


def shown_commands() -> list[Any]:
    return [
        pytest.param(arguments, id=f"{page.stem}: {' '.join(arguments)}")
        for page in PAGES
        for arguments in commands(page)
    ]


@pytest.fixture
def adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """The guide's competitor, found in a module of its own."""
    (code,) = blocks(GUIDE, "python")
    (tmp_path / "guide_adapter.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    return read_modules(["guide_adapter"])


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python") and page != OWN_DATA], ids=lambda page: page.stem
)
def test_snippets_run(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of a page's snippets, one after another as a reader would type them; what is shown must come out."""
    monkeypatch.chdir(ROOT)
    names: dict[str, Any] = {"__name__": page.stem}
    runner = doctest.DocTestRunner()
    for code in blocks(page, "python"):
        if ">>>" in code:
            snippet = doctest.DocTestParser().get_doctest(code, names, page.name, str(page), 0)
            runner.run(snippet, clear_globs=False)
            names = snippet.globs
        else:
            exec(compile(code, str(page), "exec"), names)
    assert runner.summarize(verbose=False).failed == 0


def test_the_page_on_own_data_works_as_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its snippets and commands in one empty folder, from top to bottom: they share the files that they write."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HARNESS_RESULTS_DIR", raising=False)
    names: dict[str, Any] = {}
    runner = doctest.DocTestRunner()
    shown = re.findall(r"^```(python|sh)\n(.*?)^```", OWN_DATA.read_text(), re.DOTALL | re.MULTILINE)
    assert [language for language, _ in shown] == ["python", "sh", "python", "python", "python"]
    for language, code in shown:
        if language == "python":
            snippet = doctest.DocTestParser().get_doctest(code, names, OWN_DATA.name, str(OWN_DATA), 0)
            runner.run(snippet, clear_globs=False)
            names = snippet.globs
            continue
        for line in code.splitlines():
            done = CliRunner().invoke(app, shlex.split(line)[1:])
            assert done.exit_code == 0, done.output
            assert "warning" not in done.output
    assert runner.summarize(verbose=False).failed == 0
    samples = (tmp_path / "samples.csv").read_text().splitlines()
    assert samples[0] == "income,height"
    assert len(samples) == 101


def test_the_readme_and_the_quickstart_have_snippets() -> None:
    assert all(blocks(page, "python") for page in (README, QUICKSTART))


@pytest.mark.parametrize("arguments", shown_commands())
def test_a_shown_command_is_one_that_the_program_takes(arguments: list[str]) -> None:
    """Options, methods, experiments and recipes exist; nothing is run."""
    name, *rest = arguments
    command = typer.main.get_command(app).commands[name]
    named_alone = len(rest) == (1 if name == "results" else 0)  # a sentence says what it does
    if name == "results":
        command, rest = command.commands[rest[0]], rest[1:]
    parsed = {} if named_alone else command.make_context(name, rest, resilient_parsing=False).params
    methods = [*(parsed.get("methods") or "").split(","), parsed.get("method"), *(rest if name == "check" else [])]
    known = {*registry().methods, GUIDES_METHOD, "my-flow-ml", "M", "", None}
    assert [method for method in methods if method not in known and not method.endswith(".py")] == []
    experiments = {experiment.name for experiment in EXPERIMENTS} | {"EXPERIMENT", "..."}
    assert set(parsed.get("experiments") or []) <= experiments
    assert parsed.get("recipe", "paper") in RECIPES


def test_the_commands_of_the_quickstart_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the reproduction and its plan, which take minutes; the demo is shortened."""
    monkeypatch.chdir(tmp_path)  # where no results lie, and a reader's own data do
    monkeypatch.delenv("HARNESS_RESULTS_DIR", raising=False)
    monkeypatch.setattr(demo, "_DIMENSIONS", (4, 8))
    monkeypatch.setattr(demo, "_EPOCHS", 1)
    np.savetxt("my.csv", np.random.default_rng(0).normal(size=(200, 3)), delimiter=",", header="a,b,c", comments="")
    shown = commands(QUICKSTART, in_text=False)
    assert shown[:2] == [["demo"], ["reproduce"]]  # in the order of the README
    quick = [arguments for arguments in shown if arguments[0] != "reproduce"]
    assert {arguments[0] for arguments in quick} == {"demo", "list", "runtime", "train", "tables"}
    for arguments in quick:
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
    assert list(tmp_path.glob("results/local/tables/*.md"))


def test_adapter_is_timed_and_trained(adapter: Registry) -> None:
    assert adapter.broken_modules == {}
    method = adapter.find(GUIDES_METHOD)
    config = TrainingConfig(epochs=3, evaluate_every=1, learning_rate=0.003)

    (timing,) = measure([method], Problem(shape=(6,)), repeats=2, config=config).timings
    assert timing.failure is None
    assert len(timing.seconds) == 2

    digits = datasets.load("digits")
    problem = Problem(shape=digits.shape)
    untrained = replace(config, epochs=1, learning_rate=1e-12)
    before = fit_and_score(method, problem, digits, digits, untrained, draws=1).test_nll[0]
    after = fit_and_score(method, problem, digits, digits, config, draws=1).test_nll[0]
    assert after < before - 10


def test_adapter_keeps_the_contract(adapter: Registry) -> None:
    findings = [run_check(adapter.find(GUIDES_METHOD), check) for check in CHECKS.values()]
    assert {finding.check for finding in findings if finding.status != "passed"} == {"declared-cost", "declared-fit"}
    assert not any(finding.status == "broken" for finding in findings)


def test_the_guides_package_is_the_example_package() -> None:
    """What it says of a package of one's own stands in the one that is built and installed in the tests."""
    example = ROOT / "examples/diagonal_flow"
    (settings,) = blocks(GUIDE, "toml")
    (conformance,) = blocks(GUIDE, "py")
    real = (example / "pyproject.toml").read_text() + (example / "tests/test_conformance.py").read_text()
    headings = re.findall(r"^(?:\[.*\]|conformance = )", settings, re.MULTILINE)
    assert len(headings) == 3
    assert [line for line in headings if line not in real] == []
    code = [line.split("  #")[0] for line in conformance.splitlines()]
    assert [line for line in code if line not in real] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pictures_and_links_exist(page: Path) -> None:
    """The files that a page links to are there, and so are the headings in them."""
    targets = re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", page.read_text())
    assert [name for name, _ in targets if not (page.parent / name).exists()] == []
    anchored = [(page.parent / name if name else page, anchor) for name, anchor in targets if anchor]
    assert [(file, anchor) for file, anchor in anchored if anchor not in anchors(file)] == []


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_every_page_of_the_site_links_to_the_glossary() -> None:
    pages = [page for page in PAGES if page.parent == ROOT / "docs" and page.name != "glossary.md"]
    assert [page for page in pages if "glossary.md" not in page.read_text()] == []


def test_the_page_on_architecture_names_the_rooms_that_there_are() -> None:
    rooms = re.findall(r"^\| `(\w+)/` \|", ARCHITECTURE.read_text(), re.MULTILINE)
    assert sorted(rooms) == sorted(path.parent.name for path in (ROOT / "harness").glob("*/__init__.py"))


@pytest.mark.parametrize(
    "heading", ["A batch, from data file to row", "An adapter, from its file to a line of a table"]
)
def test_the_walks_go_down_the_layers_by_at_most_fifteen_main_files(heading: str) -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    floors = {room: floor for floor, rooms in enumerate(layers) for room in re.findall(r"\w+", rooms)}
    _, walk = ARCHITECTURE.read_text().split(f"## {heading}\n")
    files = re.findall(r"^\d+\. `([\w/]+\.py)`", walk.split("\n## ")[0], re.MULTILINE)
    assert 10 < len(files) <= 15
    assert [name for name in files if not (ROOT / "harness" / name).exists()] == []
    passed = [floors[name.split("/")[0]] for name in files]
    assert passed == sorted(passed)


def test_length() -> None:
    """A README is read to its end only while it is short."""
    assert len(README.read_text().splitlines()) <= 110
