"""The adapter that `harness new-adapter` writes works as it is, and nothing of the user's is overwritten."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import harness.conformance.template
from harness import datasets
from harness.cells.likelihood import fit_and_score
from harness.conformance.checks import CHECKS, Check, run_check
from harness.methods import Model, Problem
from harness.methods.density import build, sample
from harness.methods.registry import load_file
from harness.timing.interleaved import measure
from harness.training.configuration import TrainingConfig

TEMPLATE = Path(harness.conformance.template.__file__).parent / "new_adapter.py"
CONFIG = TrainingConfig(epochs=1, evaluate_every=1, learning_rate=0.01)


def test_what_is_written_is_found_timed_and_trained(run: Callable[..., Any]) -> None:
    ended = run("new-adapter", "my_flow")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.splitlines() == [
        "written: my_flow.py",
        "harness check my_flow.py",
        "and once it lies in baselines/, or your package names it under an entry point:",
        "harness list",
        "harness runtime --dims 16,64 --methods my-flow-ml,ebflow-dsm",
        "harness train --method my-flow-ml --dataset digits --epochs 5",
    ]
    text = Path("my_flow.py").read_text()
    assert "class MyFlow(Model):" in text
    assert "dapter" not in text.replace("harness", "")

    found = load_file(Path("my_flow.py"))
    assert found.notes == []
    method = found.find("my-flow-ml")
    (timing,) = measure([method], Problem(shape=(6,)), repeats=2, config=CONFIG).timings
    assert timing.failure is None
    assert timing.parameters == 12

    digits = datasets.load("digits")
    problem = Problem(shape=digits.shape)
    outcome = fit_and_score(method, problem, digits, digits, CONFIG, draws=1)
    frozen = replace(CONFIG, learning_rate=1e-12)
    start = fit_and_score(method, problem, digits, digits, frozen, draws=1)
    assert outcome.test_nll[0] < start.test_nll[0] - 0.1


@pytest.mark.parametrize("check", CHECKS.values(), ids=list(CHECKS))
def test_the_template_keeps_the_contract(check: Check) -> None:
    (method,) = load_file(TEMPLATE).methods.values()
    finding = run_check(method, check)
    left_out = check.name in ("equal-weights", "declared-start", "declared-cost", "declared-fit")
    assert finding.status == ("inapplicable" if left_out else "passed"), finding.text


def test_the_template_has_every_member_and_its_start_standardises() -> None:
    (method,) = load_file(TEMPLATE).methods.values()
    model = build(method, Problem(shape=(3,), dtype="float64"))
    own = vars(type(model))
    assert {name for name in vars(Model) if not name.startswith("_")} <= set(own)
    generator = torch.Generator().manual_seed(0)
    x = 3 + 2 * torch.randn(50, 3, generator=generator, dtype=torch.float64)
    model.init_batch(x)
    z, log_det = model.to_latent(x)
    assert log_det.shape == (50,)
    assert torch.allclose(z.mean(0), torch.zeros(3, dtype=z.dtype))
    assert torch.allclose(z.std(0, correction=0), torch.ones(3, dtype=z.dtype))
    assert torch.allclose(model.to_data(z), x)
    assert sample(model, (3,), 4, generator).shape == (4, 3)
    # A batch of one has no scale, and gives none that is not finite.
    model.init_batch(x[:1])
    assert bool(model.to_latent(x)[0].isfinite().all())


def test_a_folder_can_be_named_and_nothing_is_overwritten(run: Callable[..., Any]) -> None:
    Path("there").mkdir()
    assert run("new-adapter", "MyFlow2", "--folder", "there").status == 0
    path = Path("there/MyFlow2.py")
    assert list(load_file(path).methods) == ["myflow2-ml"]
    path.write_text("mine")
    ended = run("new-adapter", "MyFlow2", "--folder", "there")
    assert (ended.status, ended.out) == (2, "")
    assert ended.err == "harness: there/MyFlow2.py is there already; choose another name, or remove it first\n"
    assert path.read_text() == "mine"


@pytest.mark.parametrize("name", ["my-flow", "2flows", "a b", "class", "_mine", "flöw", "a/b", "x.py", ""])
def test_names_that_cannot_be_are_refused(name: str, run: Callable[..., Any]) -> None:
    ended = run("new-adapter", name)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err == (
        f"harness: '{name}' cannot name a module of methods: use letters, digits and _, such as my_flow\n"
    )
    assert list(Path().iterdir()) == []


def test_a_folder_that_is_not_there_is_refused(run: Callable[..., Any]) -> None:
    ended = run("new-adapter", "mine", "--folder", "absent")
    assert ended.status == 2
    assert ended.err == (
        "harness: absent/mine.py cannot be written (No such file or directory); choose another --folder\n"
    )
