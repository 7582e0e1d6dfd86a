"""One seed, and a stream of random numbers of its own for every purpose."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from harness import datasets
from harness.methods import Problem
from harness.methods.density import build
from harness.methods.registry import registry
from harness.methods.seeds import Purpose, generator, stream
from harness.paper.plans import Context, configured_cell
from harness.timing.interleaved import trainer_on_noise
from harness.training.configuration import TrainingConfig

PURPOSES = get_args(Purpose)

HARNESS = Path(__file__).parents[3] / "harness"


def test_no_two_purposes_and_no_two_seeds_share_a_stream() -> None:
    seeds = [*range(300), 2**62 - 1]
    streams = {stream(seed, purpose) for seed, purpose in itertools.product(seeds, PURPOSES)}
    assert len(streams) == len(seeds) * len(PURPOSES)
    assert all(0 <= number < 2**63 for number in streams)
    drawn = [tuple(torch.randn(4, generator=generator(0, purpose)).tolist()) for purpose in PURPOSES]
    assert len(set(drawn)) == len(PURPOSES)


def test_a_stream_never_changes() -> None:
    # Stored results rest on these numbers: to change them is to raise the version.
    assert stream(0, "training") == 7323078425985976884
    first, again = (torch.rand(5, generator=generator(3, "test")) for _ in range(2))
    assert torch.equal(first, again)


def test_data_start_and_noise_do_not_coincide() -> None:
    """With one seed for all, the first latents of a set were the first numbers that its weights were drawn from."""
    points = datasets.load("multimodal10", seed=7).train.flatten()[:1000]
    with torch.random.fork_rng():
        torch.manual_seed(7)
        raw = torch.randn(1000, dtype=torch.float64)
    assert not torch.isin(raw, points).any()
    problem = Problem(architecture="multimodal", shape=(10,), layers=2, dtype="float64", seed=7, batch=100)
    model = build(registry().find("ebflow-full-ml"), problem)
    _, batch = trainer_on_noise(registry().find("ebflow-full-ml"), problem, TrainingConfig())
    drawn = [torch.randn(100, 10, generator=generator(7, purpose), dtype=torch.float64) for purpose in PURPOSES]
    assert [torch.equal(batch, numbers) for numbers in drawn].count(True) == 1
    again = build(registry().find("ebflow-full-ml"), problem)
    other = build(registry().find("ebflow-full-ml"), problem.replace(seed=8))
    states = [torch.cat([p.detach().flatten() for p in one.module.parameters()]) for one in (model, again, other)]
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_a_seed_redraws_synthetic_data_and_not_the_split_of_a_users_file(tmp_path: Path) -> None:
    mine = tmp_path / "mine.npy"
    np.save(mine, np.random.default_rng(0).normal(size=(50, 2)))

    def test_set(dataset: str, seed: int) -> torch.Tensor:
        architecture = "toy" if dataset == "sine" else "fc"
        method = registry().find("ebflow-dsm")
        return configured_cell("x", Context("custom"), method, dataset, architecture, seed=seed).load().test

    assert torch.equal(test_set("sine", 1), test_set("sine", 1))
    assert not torch.isin(test_set("sine", 1), test_set("sine", 2)).any()
    assert torch.equal(test_set(str(mine), 1), test_set(str(mine), 2))


def test_no_users_seed_becomes_a_generator_elsewhere() -> None:
    files = {path.name: path.read_text() for path in HARNESS.rglob("*.py")}
    assert [name for name, text in files.items() if re.search(r"manual_seed\(\w+(\.\w+)*\.seed\)", text)] == []
