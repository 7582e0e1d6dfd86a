"""One training in two processes: the weights of one process but for rounding, written once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.errors import InputError
from harness.methods import Method, Problem
from harness.methods.density import build
from harness.training import step as trainer
from harness.training.configuration import TrainingConfig
from harness.training.processes import _RowsOfNoise
from harness.training.step import Trainer


def test_two_processes_train_what_one_does(run: Callable[..., Any], tmp_path: Path) -> None:
    # 1,200 images in batches of 77: neither they nor the last 45 are shared evenly. Every step draws signs.
    arguments = ["train", "--method", "ebflow-ssm", "--epochs", "3", "--batch", "77", "--dtype", "float64"]
    arguments += ["--threads", "1", "--draws", "1", "--json", "--results-dir"]
    ended = run(*arguments, str(tmp_path / "alone"))
    alone = {row["metric"]: row for row in ended.rows if row["method"] == "ebflow-ssm"}
    launched = subprocess.run(
        [
            sys.executable,
            *["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "harness.cli"],
            *arguments,
            str(tmp_path / "together"),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert launched.returncode == 0, launched.stderr
    rows = [row for row in map(json.loads, launched.stdout.splitlines()) if row["method"] == "ebflow-ssm"]
    del alone["peak_memory"]  # of a step that one process takes alone
    assert [row["metric"] for row in rows] == list(alone)
    for row in rows:
        if row["metric"] not in ("training_seconds", "reference_gemm_drift"):
            assert row["value"] == pytest.approx(alone[row["metric"]]["value"], rel=1e-9)
    assert len(list((tmp_path / "together").rglob("*.parquet"))) == 2  # the Gaussian beside it is one of them
    # Its timings are not those of one process.
    assert json.loads(rows[0]["config"])["identity"]["processes"] == 2
    assert rows[0]["cell"] != alone["nll"]["cell"]


@pytest.mark.parametrize(
    "draw",
    [
        lambda n, g: torch.randn((n, 3), generator=g),
        lambda n, g: torch.randn(n, 3, generator=g, dtype=torch.float64),
        lambda n, g: torch.rand(torch.Size([n, 3]), generator=g),
        lambda n, g: torch.randint(0, 2, (n, 3), generator=g),
        lambda n, g: torch.randint(9, (n,), generator=g),
    ],
)
def test_noise_of_a_share_is_its_rows_of_the_whole(draw: Callable[[int, torch.Generator], torch.Tensor]) -> None:
    whole = draw(11, torch.Generator().manual_seed(0))
    for rows in (slice(0, 5), slice(5, 11)):
        generator, other = (torch.Generator().manual_seed(0) for _ in range(2))
        with _RowsOfNoise(generator, 11, rows):
            assert torch.equal(draw(rows.stop - rows.start, generator), whole[rows])
            assert not torch.equal(draw(6, other), whole[5:])
        # Every process has drawn as much.
        after = torch.Generator().manual_seed(0)
        draw(11, after)
        assert torch.equal(generator.get_state(), after.get_state())


def test_several_processes_do_not_compile(monkeypatch: pytest.MonkeyPatch, fake_method: Callable[..., Method]) -> None:
    monkeypatch.setattr(trainer, "processes", lambda: 2)
    model = build(fake_method(), Problem(shape=(3,)))
    with pytest.raises(InputError, match="leave --compile out"):
        Trainer(model, TrainingConfig(compile=True), torch.Generator())
