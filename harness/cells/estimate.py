"""How long a training takes on this machine, from its budget, two steps of it and one scored batch."""

from __future__ import annotations

import math
from functools import cache, partial
from typing import NamedTuple

import torch

from harness.methods import Problem, moments
from harness.methods.calls import guarded
from harness.methods.density import build, log_prob
from harness.methods.precision import stored
from harness.methods.process_settings import give_back_memory
from harness.methods.registry import registry, why_unavailable
from harness.timing.interleaved import time_block, trainer_on_noise
from harness.training.configuration import TrainingConfig
from harness.training.scoring import SAMPLES_AT_ONCE


class Pace(NamedTuple):
    """The seconds of a training step (of reading a batch, for a closed form), and of scoring a sample."""

    step: float
    sample: float


class Costs(NamedTuple):
    """The estimated seconds of a training and its validations, and of the scoring that follows."""

    training: float
    scoring: float


def pace(name: str, problem: Problem, config: TrainingConfig) -> Pace:
    """Time a method, after its first step, once for all seeds; zeros if it cannot run: its row will say why.

    Where steps are not alike theirs is the mean over a period. The start is the published one, because the probe's
    batch is too small to whiten.
    """
    return _pace(name, problem.replace(seed=0, start="published"), config)


@cache
def _pace(name: str, problem: Problem, config: TrainingConfig) -> Pace:
    if why_unavailable(registry().find(name)) is not None:
        return Pace(0.0, 0.0)
    try:
        return _timed(name, problem, config)
    except Exception:  # a competitor may fail in any way
        return Pace(0.0, 0.0)
    finally:
        give_back_memory()


def _timed(name: str, problem: Problem, config: TrainingConfig) -> Pace:
    method = registry().find(name)
    step = 0.0
    if method.iterative:
        trainer, batch = trainer_on_noise(method, problem, config)
        model = trainer.model
        with guarded("a training step"):
            trainer.step(batch)
            step = time_block(lambda: trainer.step(batch), method.period(problem), problem.device)
    else:
        model = build(method, problem)
        batch = torch.zeros(problem.batch, *problem.shape, device=problem.device, dtype=stored(problem.dtype))
        step = time_block(lambda: moments([batch, batch]), 1, problem.device) / 2
    model.module.eval()
    with torch.no_grad(), guarded("to_latent"):
        log_prob(model, batch)
        half, whole = (
            time_block(partial(log_prob, model, part), 1, problem.device) for part in (batch[len(batch) // 2 :], batch)
        )
    # What is computed once for a block, such as a determinant, is shared by more samples than those of a batch.
    sample = max(whole - half, 0.0) / (len(batch) / 2)
    once = max(whole - sample * len(batch), 0.0)
    return Pace(step, sample + once / SAMPLES_AT_ONCE)


def training_costs(
    name: str, problem: Problem, config: TrainingConfig, samples: tuple[int, int, int], draws: int
) -> Costs:
    """Estimate the seconds of a training, its validations and its tests; downloads and pictures are not counted.

    Args:
        name: The name of the method.
        problem: The problem.
        config: The recipe.
        samples: The numbers of training, validation and test samples; zeros where the data are not there.
        draws: The number of passes over the test samples.
    """
    training, validation, test = samples
    if not training:
        return Costs(0.0, 0.0)
    method, (step, sample) = registry().find(name), pace(name, problem, config)
    look, epoch = validation * sample, math.ceil(training / problem.batch) * step
    if not method.iterative:
        return Costs(epoch + look, draws * test * sample)
    if method.matches_scores:  # whose own loss is looked at too, at up to the price of a step
        look += validation / problem.batch * step
    seconds = min(config.max_seconds or math.inf, config.epochs * epoch)
    epochs = min(config.epochs, math.ceil(seconds / epoch)) if epoch else 0
    looks = math.ceil(epochs / config.evaluate_every) + (config.start_samples is not None)
    if config.evaluate_steps and step:
        looks += int(seconds / step) // config.evaluate_steps
    return Costs(seconds + looks * look, draws * test * sample)
