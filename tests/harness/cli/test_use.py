"""How the program meets people: a quick start, mistakes in one line, completion, a terminal's width, silence."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pytest
import typer

from harness import __version__
from harness.cells.workers import EXECUTORS
from harness.cli import options
from harness.cli.program import app
from harness.datasets import names
from harness.methods import ARCHITECTURES, DTYPES
from harness.methods.registry import registry
from harness.paper.experiments import EXPERIMENTS
from harness.paper.recipes import PROFILES, RECIPES
from harness.results import Row, Store
from harness.training.configuration import OPTIMIZERS

Run = Callable[..., Any]

SLOW = {"torch", "scipy.stats", "matplotlib", "sklearn", "nflows", "normflows", "zuko", "requests"}


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["train", "--help"], ["list"], ["list", "--json"], ["tables"], ["tables", "--json"]],
    ids=" ".join,
)
def test_what_only_tells_imports_nothing_slow(
    arguments: list[str], make_row: Callable[..., Row], tmp_path: Path
) -> None:
    for size in (64, 256, 784):  # three sizes, whose slope has an interval
        Store(tmp_path / "results" / "local").write([make_row(cell=f"{size:016x}", D=size, value=size / 1e3)])
    script = f"""
import sys
sys.argv = {["harness", *arguments]}
from harness.cli.program import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print("imported", *sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    imported = set(done.stdout.splitlines()[-1].split())
    assert "harness.cli.program" in imported
    assert imported & SLOW == set()


@pytest.mark.parametrize("line", ["harness train --method ", "harness train --dataset ", "harness reproduce "])
def test_completion_imports_nothing_slow(line: str, tmp_path: Path) -> None:
    script = """
import sys
from harness.cli.program import main
try:
    main()
finally:
    print("imported", *sys.modules)
"""
    asked = {"_HARNESS_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, **asked},
    )
    *completed, imported = done.stdout.splitlines()
    assert len(completed) > 1
    assert set(imported.split()) & (SLOW | {"polars"}) == set()


MISUSE = {
    ("trian",): "no such command 'trian'. Did you mean 'train'? (try: harness --help)",
    ("--verison",): "no such option: --verison. Did you mean --version? (try: harness --help)",
    ("train", "--epoch", "3"): "no such option: --epoch. Did you mean --epochs? (try: harness train --help)",
    ("train", "--epochs", "many"): "invalid value for '--epochs': ",
    ("train", "--epochs"): "option '--epochs' requires an argument. (try: harness --help)",
    ("reproduce", "--seeds", "0"): "invalid value for '--seeds': ",
    ("tables", "everything"): "got unexpected extra argument(s) (everything) (try: harness tables --help)",
    ("check",): "missing argument 'NAME|FILE.py'. (try: harness check --help)",
}


@pytest.mark.parametrize("arguments", list(MISUSE), ids=" ".join)
def test_a_mistake_in_the_options_is_one_line_with_a_hint(arguments: tuple[str, ...], run: Run) -> None:
    ended = run(*arguments)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith(f"harness: {MISUSE[arguments]}")
    assert ended.err.count("\n") == 1
    assert ended.err.endswith("--help)\n")


@pytest.mark.parametrize("command", [("runtime", "--dims", "4"), ("reproduce",)], ids=" ".join)
@pytest.mark.parametrize("names", ["", " , "])
def test_an_empty_list_of_methods_is_not_all_of_them(command: tuple[str, ...], names: str, run: Run) -> None:
    ended = run(*command, "--methods", names)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err == "harness: no method named; `harness list` shows them\n"


def test_version(run: Run) -> None:
    assert run("--version") == (0, f"harness {__version__}\n", "")


def test_nothing_asked_is_help(run: Run) -> None:
    ended = run()
    assert ended.status == 2
    assert "Usage: harness" in ended.out
    assert ended.err == ""


def test_help_has_examples_that_fit_and_options_in_panels(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for command in ("list", "runtime", "train", "reproduce", "tables", "check", "new-adapter"):
        shown = run(command, "--help").out
        after = shown.split("Examples:")[1].splitlines()[1:]
        assert after[0].strip().startswith(f"harness {command}")
        assert after[1].strip() == "" or after[1].strip().startswith(f"harness {command}")  # no line was broken
    for panel in ("Model and data", "Training", "Machine", "Results"):
        assert f"─ {panel} ─" in run("train", "--help").out


def every_parameter(group: Any) -> list[Any]:
    found = []
    for command in group.commands.values():
        found += every_parameter(command) if hasattr(command, "commands") else command.params
    return found


@pytest.mark.parametrize("parameter", every_parameter(typer.main.get_command(app)), ids=lambda one: one.name)
def test_the_help_of_every_option_stands_alone(parameter: Any) -> None:
    """It begins with the noun or verb that it is about: "Seed of the weights.", not "Of the weights."."""
    first = parameter.help.split()[0]
    assert first[0].isupper()
    assert first not in ("Of", "For", "Where", "Whether", "How", "The", "Has", "As", "Who")
    assert parameter.help.endswith(".")


@pytest.fixture
def complete(run: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """Complete the last word of a command line, as bash asks for it."""

    def complete(line: str) -> list[str]:
        monkeypatch.setenv("_HARNESS_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
        ended = run()
        assert (ended.status, ended.err) == (0, "")
        return ended.out.split()

    return complete


def test_names_are_completed(complete: Callable[[str], list[str]]) -> None:
    assert complete("harness repr") == ["reproduce"]
    assert complete("harness train --method ") == list(registry().methods)
    assert complete("harness train --method gauss") == ["gaussian"]
    assert complete("harness train --dataset ") == list(names())
    assert complete("harness train --recipe ") == list(RECIPES)
    assert complete("harness reproduce ") == [experiment.name for experiment in EXPERIMENTS]
    assert complete("harness reproduce log-z figure-a") == ["figure-a4-matrices"]
    assert complete("harness runtime --methods ebflow-ml,gauss") == ["ebflow-ml,gaussian"]
    assert "gaussian,gaussian" not in complete("harness runtime --methods gaussian,")


def test_fixed_names_are_those_that_the_rooms_know(complete: Callable[[str], list[str]]) -> None:
    assert get_args(options.ExecutorName) == EXECUTORS
    assert complete("harness runtime --architecture ") == list(ARCHITECTURES)
    assert complete("harness reproduce --profile ") == list(PROFILES)
    assert complete("harness train --optimizer ") == list(OPTIMIZERS)
    assert complete("harness train --dtype ") == list(DTYPES)
    assert complete("harness runtime --dtype ") == ["float32", "float64", "tf32", "bf16"]
    assert complete("harness train --optimizer a") == ["adam"]
    assert complete("harness reproduce --executor p") == ["processes"]


def test_completion_never_fails(complete: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.methods.registry.registry", lambda: 1 / 0)
    assert complete("harness train --method e") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_script(shell: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shellingham.detect_shell", lambda: (shell, f"/bin/{shell}"))
    ended = run("--show-completion")
    assert ended.status == 0
    assert "_HARNESS_COMPLETE" in ended.out


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, run: Run) -> Callable[[int], None]:
    """Have standard output be a terminal of some width."""

    def terminal(width: int) -> None:
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)

    return terminal


def plain(text: str) -> str:
    """Take bold and colours out."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


@pytest.mark.parametrize("width", [60, 80, 140])
def test_a_table_fits_the_terminal_and_loses_nothing(
    width: int, run: Run, terminal: Callable[[int], None], make_row: Callable[..., Row]
) -> None:
    sizes = (64, 128, 256, 512, 784, 1024, 1600, 3072)
    methods = ("ebflow-dsm", "normflows-residual-ml")
    reason = "no_such_library is not installed: pip install no_such_library"
    gone = {"value": None, "ci_low": None, "ci_high": None, "status": "unavailable", "reason": reason}
    for size in sizes:
        of_size = partial(make_row, cell=f"{size:016x}", D=size)
        timings = [of_size(method=method, value=size / 1e3) for method in methods]
        Store(Path("results/local")).write([*timings, of_size(method="gone-ml", **gone)])
    terminal(width)
    shown = plain(run("tables").out)
    assert max(map(len, shown.splitlines())) <= width
    for size in sizes:
        assert f" D = {size} " in shown
    assert "|" not in shown.replace("| less", "")
    assert "unavailable: no_such_library" in " ".join(shown.split())
    assert shown.count("runtime (custom):") == 1  # the main table alone
    assert "harness tables | less" in " ".join(shown.split())


def test_a_hint_reads_the_folder_and_settings_that_were_asked_for(
    run: Run, terminal: Callable[[int], None], make_row: Callable[..., Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path("my results")
    Store(folder).write([make_row(cell=f"{1:016x}", D=64)])
    terminal(300)
    asked = ("--results-dir", str(folder), "--across", "threads", "--asv-dir", "asv dir")
    shown = " ".join(plain(run("tables", *asked).out).split())
    hint = re.search(r"by: (harness .*) \| less", shown)
    assert hint is not None
    program, *words = shlex.split(hint[1])
    assert program == "harness"
    assert words == ["tables", "--asv-dir", "asv dir", "--across", "threads", "--results-dir", str(folder)]
    assert run(*words).status == 0
    assert run("tables", "--results-dir", "empty").err.endswith(
        "run `harness reproduce --results-dir empty` or `asv run` first\n"
    )
    hints: list[str] = []
    monkeypatch.setattr("harness.cli.screen.show_pages", lambda pages, more: hints.append(more))
    run("train", "--method", "gaussian", "--draws", "1", "--results-dir", str(folder), "-q")
    assert hints == ["in my results/tables, or by: harness tables --results-dir 'my results' | less"]
    monkeypatch.setenv("HARNESS_RESULTS_DIR", "another")
    assert options.command(["tables"], options.RESULTS) == f"harness tables --results-dir {options.RESULTS}"


def test_a_folder_to_merge_into_is_named_by_its_own_option(run: Run, make_row: Callable[..., Row]) -> None:
    Store(Path("some")).write([make_row(cell=f"{1:016x}")])
    Path("occupied").write_text("no folder")
    ended = run("results", "merge", "some", "--into", "occupied/below")
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.endswith("choose another --into\n")


def test_every_command_in_a_message_has_its_options() -> None:
    group = typer.main.get_command(app)
    context = typer.Context(group)
    said = re.compile(r"harness ((?:results )?[a-z-]+)((?: (?:--[a-z-]+|[^\s`\"')|;]+))*)")
    checked = 0
    for path in sorted(Path(options.__file__).parents[1].rglob("*.py")):
        for command, rest in said.findall(path.read_text()):
            *groups, name = command.split()
            inner: Any = group
            for word in groups:
                inner = inner.get_command(context, word)
            if (command_of := inner.get_command(context, name)) is None:
                continue  # prose
            known = {
                option for parameter in command_of.params for option in (*parameter.opts, *parameter.secondary_opts)
            }
            used = set(re.findall(r" (--[a-z-]+)", rest))
            assert used <= known | {"--help"}, (path, command, used - known)
            checked += len(used)
    assert checked > 50


def test_the_list_fits_the_terminal(
    run: Run, terminal: Callable[[int], None], fake_method: Run, with_methods: Run
) -> None:
    with_methods(fake_method("gone-ml", requires=("no_such_library",), summary="what it would be"))
    terminal(80)
    shown = plain(run("list").out)
    assert max(map(len, shown.splitlines())) <= 80
    for name in (*registry().methods, *names(), *RECIPES, *(experiment.name for experiment in EXPERIMENTS)):
        assert f" {name} " in shown
    assert "no_such_library is not" in shown
    assert "what it would be" not in shown


def test_libraries_are_imported_where_that_is_asked_for(
    run: Run, with_methods: Run, fake_method: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shaky_library.py").write_text("print('hello')\nraise RuntimeError('no licence')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with_methods(fake_method("shaky-ml", requires=("shaky_library",)))
    found = next(line for line in run("list").out.splitlines() if "shaky-ml" in line)
    assert "| available " in found
    assert "shaky_library" not in sys.modules
    imported = run("list", "--imports").out
    assert "shaky_library is broken: RuntimeError: no licence" in imported
    assert "importing shaky_library printed 'hello'" in imported
    rows = {row["method"]: row for row in run("list", "--imports", "--json").rows}
    assert rows["shaky-ml"]["reason"] == "shaky_library is broken: RuntimeError: no licence"


QUICK_TIMING = ("runtime", "--dims", "4", "--repeats", "1", "--methods", "ebflow-dsm")


def test_quiet_is_results_alone(run: Run) -> None:
    ended = run(*QUICK_TIMING, "--quiet")
    assert ended.status == 0
    assert ended.err == ""
    assert "| ebflow-dsm " in ended.out
    assert run("tables", "--write", "-q").err == ""


def test_quiet_tells_mistakes_and_failures(run: Run, with_methods: Run, fake_method: Run) -> None:
    assert run(*QUICK_TIMING[:-1], "ebflow-dms", "--quiet").err.startswith("harness: unknown method 'ebflow-dms'")
    with_methods(fake_method("gone-ml", requires=("no_such_library",)))
    ended = run("runtime", "--dims", "4", "--methods", "gone-ml", "--quiet")
    assert ended.status == 1
    assert "no_such_library is not installed" in ended.out
