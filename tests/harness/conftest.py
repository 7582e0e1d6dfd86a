"""What the tests of the harness share: a small method to play with, rows made by hand, and the program itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pooch
import pytest
import torch
from stored import stored_config
from torch import Tensor, nn

from harness.cli import program as cli
from harness.methods import Method, Model, Problem, registry
from harness.results import Row, cell_key
from harness.timing.interleaved import Block
from harness.timing.machine import REFERENCE_METRIC


@pytest.fixture(autouse=True)
def _no_settings_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No folder or limit of the user's, no network, and a terminal that breaks no line."""
    monkeypatch.setenv("HARNESS_OFFLINE", "1")
    monkeypatch.delenv("HARNESS_DATA_DIR", raising=False)
    monkeypatch.delenv("HARNESS_RESULTS_DIR", raising=False)
    monkeypatch.delenv("HARNESS_CALL_LIMIT", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)


class ShiftAndScale(Model):
    """z = (x - shift) exp(-log_scale): the smallest model with all members; its log_prob can be written by hand."""

    def __init__(self, problem: Problem) -> None:
        self.module = nn.Module()
        self.module.shift = nn.Parameter(0.1 * torch.randn(problem.shape))
        self.module.log_scale = nn.Parameter(torch.zeros(problem.shape))
        self.log: list[str] = []

    def init_batch(self, x: Tensor) -> None:
        self.log.append(f"init {len(x)}")

    def training_loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        z, log_det = self.to_latent(x)
        noise = torch.randn(z.shape, generator=generator, dtype=z.dtype)
        return ((z + 0.01 * noise).square().flatten(1).sum(1) / 2 - log_det).mean()

    def after_step(self) -> None:
        self.log.append("after_step")

    def to_latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return (x - self.module.shift) * torch.exp(-self.module.log_scale), -self.module.log_scale.sum().expand(len(x))

    def to_data(self, z: Tensor) -> Tensor:
        return z * torch.exp(self.module.log_scale) + self.module.shift


@pytest.fixture
def fake_model() -> type[ShiftAndScale]:
    return ShiftAndScale


@pytest.fixture
def fake_method() -> Callable[..., Method]:
    """Declare a method of the small model, or of another `build`."""

    def fake(name: str = "fake", build: Callable[[Problem], Any] = ShiftAndScale, **declared: Any) -> Method:
        declared = {"objective": "ml", "linear": "diagonal", "architectures": ("fc",), **declared}
        return Method(name=name, build=build, **declared)

    return fake


@pytest.fixture
def with_methods(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put methods of a test's own into the registry, for the time of the test."""

    def add(*methods: Method) -> None:
        for method in methods:
            monkeypatch.setitem(registry.registry().methods, method.name, method)

    return add


@pytest.fixture
def fresh_registry() -> Iterator[None]:
    """Forget what was found and imported, before and after."""

    def forget() -> None:
        registry.registry.cache_clear()
        registry._import_failure.cache_clear()

    forget()
    yield
    forget()


@pytest.fixture
def make_row() -> Callable[..., Row]:
    """Make a row of a timing, or with some columns otherwise."""

    def make(**changes: Any) -> Row:
        columns: dict[str, Any] = {
            "cell": "0123456789abcdef",
            "experiment": "runtime",
            "profile": "custom",
            "recipe": "none",
            "method": "ebflow-ml",
            "objective": "ml",
            "linear": "dense",
            "dataset": "normal",
            "architecture": "fc",
            "shape": "256",
            "D": 256,
            "L": 2,
            "B": 100,
            "parameters": 1000,
            "seed": 0,
            "dtype": "float32",
            "device": "cpu",
            "threads": 2,
            "metric": "seconds_per_iteration",
            "value": 0.5,
            "unit": "s",
            "ci_low": 0.4,
            "ci_high": 0.6,
            "n": 15,
            "status": "ok",
            "reason": None,
            "config": stored_config("runtime"),
            "versions": "{}",
            "cpu": "a cpu, 2 cores",
            "gpu": None,
            "commit": "c" * 40,
            "started_at": "2025-01-01T00:00:00+00:00",
        }
        return Row(**{**columns, **changes})

    return make


@pytest.fixture
def make_cell_row(make_row: Callable[..., Row]) -> Callable[..., Row]:
    """Make a row of the cell of a number, whose key, configuration and columns agree."""

    def make(number: int, **changes: Any) -> Row:
        row = make_row(**changes)
        identity = {"kind": "runtime", "number": number, "threads": row.threads, "cpu": row.cpu, "gpu": row.gpu}
        problem = {"seed": row.seed, "dtype": row.dtype, "device": row.device, "shape": [row.D]}
        settings = {"experiment": row.experiment, "profile": row.profile, "problem": problem}
        config = json.dumps({"identity": identity, "settings": settings, "origin": {}})
        return replace(row, cell=cell_key(identity), config=config)

    return make


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Callable[[], float]]], dict[str, float]]:
    """Say how many seconds a call takes of a "method", of the "reference" product, of another "rate" of the machine.

    Returns what was spent on each so far.
    """

    def set_clock(seconds: dict[str, Callable[[], float]]) -> dict[str, float]:
        spent = dict.fromkeys(seconds, 0.0)

        def time(block: Block, number: int) -> float:
            if block.name.endswith((" iteration", " gradient")):
                kind = "method"
            else:
                kind = "reference" if block.name == REFERENCE_METRIC else "rate"
            each = seconds[kind]()
            spent[kind] += number * each
            block.call()
            return each

        monkeypatch.setattr(Block, "time", time)
        return spent

    return set_clock


class Ended(NamedTuple):
    """How the program ended."""

    status: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Standard output as the rows that `--json` promises."""
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Ended]:
    """Run `harness ...` in an empty folder, as the installed program does, but in this process."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["harness", *arguments])
        capsys.readouterr()
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
        status = code if isinstance(code, int) else 0 if code is None else 1
        return Ended(status, *capsys.readouterr())

    return run
