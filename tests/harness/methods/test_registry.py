"""Finding methods: what is missing, broken or foreign takes down nothing but itself, and says why."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.cli import listing
from harness.errors import InputError, unknown
from harness.methods import Method
from harness.methods import registry as module
from harness.methods.registry import Registry, load_file, read_modules, registry, why_unavailable

MODULE_OF_METHODS = """
from harness.methods import Method

METHODS = [Method(name={name!r}, objective="ml", linear="dense", build=lambda problem: None, requires={requires!r})]
"""


NO_METHODS = "it has no list METHODS of harness.methods.Method; declare METHODS = [Method(...)]"
NO_NAME = "a method's name has lower-case letters, digits and, inside, . _ -, like mine-ml, unlike 'Mine, too'"


@pytest.fixture
def write_module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fresh_registry: None) -> Callable[[str, str], str]:
    """Write an importable module, and forget it afterwards."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(name: str, source: str) -> str:
        (tmp_path / f"{name}.py").write_text(source)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return name

    return write


def requiring(*libraries: str) -> Method:
    return Method(name="m", objective="ml", linear="dense", build=lambda problem: None, requires=libraries)


def test_missing_library_says_how_to_get_it(fresh_registry: None) -> None:
    expected = "no_such_library is not installed: pip install no_such_library"
    assert why_unavailable(requiring("no_such_library")) == expected
    assert why_unavailable(requiring("json", "no_such_library")) == expected
    assert why_unavailable(requiring("json")) is None
    assert why_unavailable(requiring("no_such_library.part")) == expected
    assert why_unavailable(requiring("json.no_such_part")) == (
        "json.no_such_part is broken: ModuleNotFoundError: No module named 'json.no_such_part'"
    )


@pytest.mark.parametrize("library", ["nflows", "normflows", "zuko"])
def test_peers_are_asked_for_what_they_use(library: str, monkeypatch: pytest.MonkeyPatch, fresh_registry: None) -> None:
    # Both break where their flows do; the package nflows itself imports nothing at all.
    for name in [name for name in sys.modules if name.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, f"{library}.flows", None)
    unavailable = {name for name, method in registry().methods.items() if why_unavailable(method)}
    assert unavailable == {name for name in registry().methods if name.startswith(f"{library}-")}


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise RuntimeError('two\\nlines')", "shaky is broken: RuntimeError: two lines"),
        ("import missing_dependency", "shaky is broken: ModuleNotFoundError: No module named 'missing_dependency'"),
        ("def f(:", "shaky is broken: SyntaxError: invalid syntax (shaky.py, line 1)"),
        ("from json import nothing_of_this_name", "shaky is broken: ImportError: cannot import name"),
        (
            "import sys\nsys.exit('no licence')",
            "shaky is broken: RuntimeError: importing shaky called sys.exit('no licence')",
        ),
    ],
)
def test_library_broken_at_import_is_one_line(write_module: Callable[..., str], source: str, reason: str) -> None:
    found = why_unavailable(requiring(write_module("shaky", source)))
    assert found is not None
    assert found.startswith(reason)
    assert "\n" not in found


def test_broken_library_disables_its_own_methods_alone(write_module: Callable[..., str]) -> None:
    write_module("shaky", "raise OSError('libfoo.so: cannot open')")
    found = read_modules(
        [
            write_module("bad", MODULE_OF_METHODS.format(name="bad", requires=("shaky",))),
            write_module("good", MODULE_OF_METHODS.format(name="good", requires=())),
        ]
    )
    assert found.broken_modules == {}
    assert [method.name for method in found.available("fc")] == ["good"]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("", NO_METHODS),
        ("METHODS = 3", NO_METHODS),
        ("METHODS = [3]", NO_METHODS),
        ("x = 1\ndef f(:", "SyntaxError: invalid syntax (broken_methods.py, line 2)"),
        ("import sys\nsys.exit(3)", "RuntimeError: importing broken_methods called sys.exit(3)"),
        (MODULE_OF_METHODS.format(name="Mine, too", requires=()), NO_NAME),
    ],
)
def test_broken_module_of_methods_is_noted_and_left_out(
    write_module: Callable[..., str], source: str, reason: str
) -> None:
    broken = write_module("broken_methods", source)
    good = write_module("good", MODULE_OF_METHODS.format(name="good", requires=()))
    found = read_modules([broken, good, "no_such_module"])
    assert list(found.methods) == ["good"]
    assert found.broken_modules == {
        "broken_methods": reason,
        "no_such_module": "ModuleNotFoundError: No module named 'no_such_module'",
    }


def test_the_first_of_two_equal_names_stays(write_module: Callable[..., str]) -> None:
    first = write_module("first", MODULE_OF_METHODS.format(name="twin", requires=("first",)))
    second = write_module("second", MODULE_OF_METHODS.format(name="twin", requires=("second",)))
    found = read_modules([first, second])
    assert found.methods["twin"].requires == ("first",)
    assert found.broken_modules == {"second": "its method twin is already declared in first; rename one of them"}


def test_methods_of_foreign_packages_are_found(
    write_module: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = write_module("foreign", MODULE_OF_METHODS.format(name="foreign-ml", requires=()))
    asked = []

    def entry_points(group: str) -> list[importlib.metadata.EntryPoint]:
        asked.append(group)
        return [importlib.metadata.EntryPoint("anything", place, group) for place in (foreign, "gone_package")]

    monkeypatch.setattr(module, "entry_points", entry_points)
    found = registry()
    assert asked == ["ebflow_bench.methods"]
    assert list(found.methods)[-1] == "foreign-ml"
    assert "ebflow-dsm" in found.methods
    assert found.broken_modules == {"gone_package": "ModuleNotFoundError: No module named 'gone_package'"}
    assert found.find("foreign-ml") in found.available("fc")


def test_everything_unavailable_is_in_the_list(
    write_module: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = write_module("foreign", MODULE_OF_METHODS.format(name="foreign-ml", requires=("no_such_library",)))
    points = [importlib.metadata.EntryPoint("x", place, "g") for place in (foreign, "gone_package")]
    monkeypatch.setattr(module, "entry_points", lambda group: points)
    status = dict(listing.methods_table().select("method", "status").iter_rows())
    assert status["foreign-ml"] == "no_such_library is not installed: pip install no_such_library"
    assert status["(gone_package)"] == "not readable: ModuleNotFoundError: No module named 'gone_package'"
    assert status["gaussian"] == "available"
    row = next(row for row in listing.rows() if row.method == "foreign-ml")
    assert (row.status, row.value, row.reason) == ("unavailable", None, status["foreign-ml"])


def test_what_an_import_did_is_undone_and_in_the_list(
    write_module: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_module("loud_library", "import torch\nprint('hello')\ntorch.set_default_dtype(torch.float64)")
    source = MODULE_OF_METHODS.format(name="loud-ml", requires=("loud_library",))
    foreign = write_module("foreign", f"import random\nrandom.seed(3)\n{source}")
    monkeypatch.setattr(module, "entry_points", lambda group: [importlib.metadata.EntryPoint("x", foreign, "g")])
    assert listing.notes() == ["importing foreign changed Python's random state: undone"]
    status = dict(listing.methods_table(imports=True).select("method", "status").iter_rows())
    assert status["loud-ml"] == "available"
    assert [note for note in listing.notes(imports=True) if "zuko" not in note] == [
        "importing foreign changed Python's random state: undone",
        "importing loud_library printed 'hello'",
        "importing loud_library changed the default dtype: undone",
    ]
    assert torch.get_default_dtype() == torch.float32


def test_zuko_leaves_torch_s_distributions_alone() -> None:
    script = """
from harness.methods import Method
from harness.methods.registry import import_notes, why_unavailable
method = Method(name="m", objective="ml", linear="lu", build=print, requires=("zuko",))
assert why_unavailable(method) is None
print(*import_notes(method), sep="\\n")
from torch.distributions import Distribution, Normal
try:
    Normal(0.0, -1.0)
except ValueError:
    print("refused", type(vars(Distribution)["arg_constraints"]).__name__)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "importing zuko changed the validation of torch's distributions: undone",
        "importing zuko changed the constraints of torch's distributions: undone",
        "refused property",
    ]


def test_a_file_is_read_wherever_it_lies(tmp_path: Path) -> None:
    path = tmp_path / "any name.py"
    # Dataclasses look up their module while it is being imported.
    head = "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\n"
    path.write_text(head + MODULE_OF_METHODS.format(name="mine-ml", requires=()))
    found = load_file(path)
    assert list(found.methods) == ["mine-ml"]
    assert (found.broken_modules, found.notes) == ({}, [])
    assert "mine-ml" not in registry().methods


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("x = 1\ndef f(:", "SyntaxError: invalid syntax (mine.py, line 2)"),
        ("", NO_METHODS),
        (
            MODULE_OF_METHODS.format(name="a", requires=()) + "METHODS *= 2",
            "its method a is already declared in {path}; rename one of them",
        ),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(source: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(source)
    with pytest.raises(InputError) as caught:
        load_file(path)
    assert str(caught.value) == f"{path} is not readable: {reason.format(path=path)}"


@pytest.mark.parametrize("name", ["absent.py", "folder.py", "notes.txt"])
def test_what_is_no_python_file_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "notes.txt").write_text("METHODS = []")
    with pytest.raises(InputError, match=r"is no file of Python code; give the path of a \.py file"):
        load_file(tmp_path / name)


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"name": ""}, r"a method's name has .*, unlike ''"),
        ({"name": "two words"}, "unlike 'two words'"),
        ({"name": "a,b"}, "unlike 'a,b'"),
        ({"name": "Mine-ML"}, "unlike 'Mine-ML'"),
        ({"name": None}, "unlike None"),
        ({"build": "Diagonal"}, "^m: build must be a function of a Problem, not 'Diagonal'$"),
        ({"architectures": "fc"}, r"^m: architectures must be a tuple of strings such as \('fc',\), not 'fc'$"),
        ({"architectures": ("fcc",)}, "^m: unknown architecture 'fcc': did you mean fc?"),
        ({"family": "score-matchin"}, "^m: unknown family 'score-matchin': did you mean score-matching?"),
        ({"family": None}, "^m: family must be a text, not None$"),
        ({"rate": 0.1}, "^m: rate must be a harness.methods.Rate, not 0.1$"),
        ({"own_start": True}, "^m: own_start must be a text, not True$"),
        ({"requires": "nflows"}, "^m: requires must be a tuple of strings .* not 'nflows'$"),
    ],
)
def test_a_declaration_that_cannot_be_meant_is_refused(declared: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Method(**{"name": "m", "objective": "ml", "linear": "dense", "build": lambda problem: None, **declared})
    assert "\n" not in str(caught.value)


def test_unknown_names_bring_the_nearest() -> None:
    with pytest.raises(InputError, match=r"^unknown method 'ebflow-dms': did you mean ebflow-dsm") as caught:
        registry().find("ebflow-dms")
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"^unknown method 'zzz': known: .*ebflow-dsm.*gaussian"):
        registry().find("zzz")
    assert str(unknown("thing", "aple", ["kiwi", "apple"])) == "unknown thing 'aple': did you mean apple?"


def test_selection_keeps_order_and_drops_repeats() -> None:
    chosen = registry().select(" gaussian,ebflow-ml, ,gaussian")
    assert [method.name for method in chosen] == ["gaussian", "ebflow-ml"]
    with pytest.raises(InputError, match="no method named; `harness list` shows them"):
        registry().select(" , ")


def test_available_are_iterative_and_have_the_architecture(fake_method: Callable[..., Method]) -> None:
    methods = [
        fake_method("right"),
        fake_method("direct", iterative=False),
        fake_method("other", architectures=("cnn",)),
        fake_method("missing", requires=("no_such_library",)),
    ]
    known = Registry({method.name: method for method in methods}, {})
    assert [method.name for method in known.available("fc")] == ["right"]
