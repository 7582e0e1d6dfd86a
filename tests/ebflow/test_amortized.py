"""Amortised maximum likelihood: exact at a refresh, stale within bounds between two, and the same in the end."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from layer_cases import LAYERS, Case
from torch import Tensor, nn

from ebflow import (
    DSM,
    ML,
    SML,
    SNL,
    SSM,
    AmortizedML,
    Behind,
    EBFlow,
    LowEnergy,
    Objective,
    SingularJacobianError,
    architectures,
)
from ebflow.layers import ActNorm, Convolution, Dense, SmoothLeakyReLU

DOUBLE = torch.float64

ARCHITECTURES: dict[str, Callable[[], EBFlow]] = {
    "fc": lambda: architectures.fc((6,), 3),
    "fc of images": lambda: architectures.fc((1, 2, 3), 2, residual=True),
    "cnn": lambda: architectures.cnn((1, 8, 8), 3),
    "glow": lambda: architectures.glow((1, 8, 8), 4, width=4),
    "toy": lambda: architectures.toy((2,), 3),
    "multimodal": lambda: architectures.multimodal((4,), 3),
    **{
        f"multimodal, {form}": lambda form=form: architectures.multimodal((4,), 3, matrix=form)
        for form in ("lu", "lower")
    },
}
every_architecture = pytest.mark.parametrize("build", ARCHITECTURES.values(), ids=ARCHITECTURES.keys())


def draw(flow: EBFlow, n: int = 20, seed: int = 1) -> Tensor:
    return torch.randn(n, *flow.shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def gradients(objective: Objective, flow: EBFlow, x: Tensor) -> list[Tensor]:
    parameters = [parameter for parameter in flow.parameters() if parameter.requires_grad]
    taken = torch.autograd.grad(objective(flow, x), parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, taken, strict=True)]


def relative_error(ours: list[Tensor], exact: list[Tensor]) -> float:
    return math.dist(*(torch.cat([g.flatten() for g in side]).tolist() for side in (ours, exact))) / max(
        math.hypot(*torch.cat([g.flatten() for g in exact]).tolist()), 1e-300
    )


def move(flow: EBFlow, size: float, seed: int = 5) -> None:
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=source, dtype=parameter.dtype))


def train(flow: EBFlow, objective: Objective, steps: int, rate: float = 1e-3, seed: int = 3) -> list[Tensor]:
    optimizer = torch.optim.Adam(flow.parameters(), rate)
    losses = []
    for step in range(steps):
        optimizer.zero_grad()
        loss = objective(flow, draw(flow, 50, seed * 1000 + step))
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return losses


class TestAtARefresh:
    @every_architecture
    def test_value_and_gradient_are_those_of_maximum_likelihood(self, build: Callable[[], EBFlow]) -> None:
        flow = build().double()
        move(flow, 0.05)
        x = draw(flow)
        assert relative_error(gradients(AmortizedML(), flow, x), gradients(ML(), flow, x)) < 1e-12
        torch.testing.assert_close(AmortizedML()(flow, x), ML()(flow, x), rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("case", LAYERS.values(), ids=LAYERS.keys())
    def test_with_every_layer(self, case: Case, randomise) -> None:
        flow = randomise(EBFlow(case.shape, [case.build()]))
        x = case.batch(5)
        if not ML()(flow, x).requires_grad:
            assert not AmortizedML()(flow, x).requires_grad
            return
        assert relative_error(gradients(AmortizedML(), flow, x), gradients(ML(), flow, x)) < 1e-12

    def test_in_single_precision(self, randomise) -> None:
        flow = randomise(architectures.fc((6,), 3), dtype=torch.float32)
        x = draw(flow).float()
        assert relative_error(gradients(AmortizedML(), flow, x), gradients(ML(), flow, x)) < 1e-5

    def test_a_weighted_loss_scales_the_kept_gradient_too(self, randomise) -> None:
        flow = randomise(architectures.fc((5,), 2))
        x = draw(flow)

        class Third(Objective):
            def __init__(self, objective: Objective) -> None:
                self.objective = objective

            def __call__(self, flow: EBFlow, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
                return self.objective(flow, x) / 3

        assert relative_error(gradients(Third(AmortizedML()), flow, x), gradients(Third(ML()), flow, x)) < 1e-12

    def test_behind_a_whitening_and_with_a_regulariser(self, randomise) -> None:
        flow = architectures.whitened_fc((5,), 2).double()
        flow.initialize(draw(flow, 200))
        randomise(flow)
        x = draw(flow)
        exact = gradients(Behind(LowEnergy(ML(), 0.3), 1), flow, x)
        objective = Behind(LowEnergy(AmortizedML(every=2), 0.3), 1)
        assert relative_error(gradients(objective, flow, x), exact) < 1e-12
        assert objective.observations(flow)["refreshes"] == 1
        other = Behind(LowEnergy(AmortizedML(every=2), 0.3), 1)
        other.set_state(objective.get_state())
        assert torch.equal(other(flow, x), objective(flow, x))


class TestBetweenRefreshes:
    def test_the_energy_is_fresh_and_log_z_is_kept(self, randomise) -> None:
        flow = randomise(architectures.fc((5,), 2))
        x, objective = draw(flow), AmortizedML(every=10)
        parameters = list(flow.parameters())
        objective(flow, x)
        kept = torch.autograd.grad(-flow.constant_log_det(), parameters, allow_unused=True)
        log_z = -flow.constant_log_det().detach()
        move(flow, 0.1)
        fresh = torch.autograd.grad(flow.energy(x).mean(), parameters)
        expected = [f if k is None else f + k for f, k in zip(fresh, kept, strict=True)]
        torch.testing.assert_close(objective(flow, x), flow.energy(x).mean() + log_z, rtol=1e-12, atol=1e-12)
        assert relative_error(gradients(objective, flow, x), expected) < 1e-12

    @pytest.mark.parametrize("k", [1, 2, 5])
    def test_a_period_is_kept(self, k: int, linear_algebra) -> None:
        flow = architectures.fc((4,), 2).double()
        objective, counts = AmortizedML(every=k), []
        for step in range(3 * k + 1):
            linear_algebra.calls.clear()
            with linear_algebra:
                objective(flow, draw(flow, seed=step)).backward()
            counts.append(len(linear_algebra.calls) > 0)
            move(flow, 0.01, seed=step)
        assert counts == [step % k == 0 for step in range(3 * k + 1)]
        assert objective.observations(flow)["refreshes"] == 4

    @pytest.mark.parametrize("size", [1e-3, 1e-2, 5e-2])
    def test_the_error_of_a_dense_layer_is_within_its_bound(self, size: float, randomise) -> None:
        flow = randomise(EBFlow((6,), [Dense(6)]))
        objective = AmortizedML(every=1000)
        objective(flow, draw(flow))
        before = flow.layers[0].weight.detach().clone()
        move(flow, size)
        now = flow.layers[0].weight.detach()
        drift = float(torch.linalg.matrix_norm(torch.linalg.inv(before) @ (now - before), 2))
        assert drift < 1
        kept, exact = torch.linalg.inv(before), torch.linalg.inv(now)
        error = float(torch.linalg.matrix_norm(kept - exact, 2) / torch.linalg.matrix_norm(exact, 2))
        assert error <= drift * (1 + 1e-9)  # of the gradient of now; of the kept one it is divided by 1 - drift
        told = objective.observations(flow)["log_z_gradient_error"]
        frobenius = float(torch.linalg.matrix_norm(kept - exact) / torch.linalg.matrix_norm(exact))
        assert told == pytest.approx(frobenius, rel=1e-9)

    def test_the_cosine_is_that_of_the_gradient_that_was_followed(self, randomise) -> None:
        flow = randomise(architectures.fc((6,), 2))
        x, objective = draw(flow), AmortizedML(every=100)
        objective(flow, x)
        move(flow, 0.05)
        objective(flow, x).backward()
        followed = [parameter.grad.clone() for parameter in flow.parameters()]
        exact = gradients(ML(), flow, x)
        sides = [torch.cat([g.flatten() for g in side]) for side in (followed, exact)]
        expected = float(torch.cosine_similarity(*sides, dim=0))
        assert expected < 0.9999
        assert objective.observations(flow)["gradient_cosine"] == pytest.approx(expected, rel=1e-9)


class TestDrift:
    """Seeds are fixed; that errors stay near the tolerance is a statement about these trainings."""

    @pytest.mark.parametrize("build", [ARCHITECTURES[name] for name in ("fc", "cnn", "multimodal")])
    @pytest.mark.parametrize("tolerance", [0.03, 0.1])
    def test_the_error_stays_near_the_tolerance(self, build: Callable[[], EBFlow], tolerance: float) -> None:
        flow = build().double()
        objective = AmortizedML(tolerance=tolerance)
        optimizer = torch.optim.Adam(flow.parameters(), 1e-3)
        errors = []
        for step in range(150):
            optimizer.zero_grad()
            objective(flow, draw(flow, seed=step)).backward()
            errors.append(objective.observations(flow)["log_z_gradient_error"])
            optimizer.step()
        assert max(errors) < 2 * tolerance
        assert 2 < objective.observations(flow)["refreshes"] < 75

    def test_a_larger_tolerance_refreshes_less(self) -> None:
        counts = []
        for tolerance in (0.01, 0.03, 0.1, 0.3):
            flow, objective = architectures.fc((6,), 2).double(), AmortizedML(tolerance=tolerance)
            train(flow, objective, 100, rate=3e-3)
            counts.append(objective.observations(flow)["refreshes"])
        assert counts == sorted(counts, reverse=True)
        assert counts[0] > 2 * counts[-1]

    def test_a_layer_that_does_not_move_is_not_refreshed(self) -> None:
        flow = architectures.fc((6,), 2).double()
        flow.layers[0].requires_grad_(False)
        objective = AmortizedML(tolerance=0.01)
        train(flow, objective, 50, rate=3e-3)
        still, moving = (kept for kept in objective._kept)
        assert still.refreshes == 1
        assert moving.refreshes > 5

    def test_it_refreshes_in_any_case_now_and_then(self, linear_algebra) -> None:
        flow, objective = architectures.fc((3,), 1).double(), AmortizedML()
        x, calls = draw(flow, 2), []
        for _ in range(250):
            linear_algebra.calls.clear()
            with linear_algebra, torch.no_grad():
                objective(flow, x)
            calls.append(len(linear_algebra.calls) > 0)
        assert [step for step, called in enumerate(calls) if called] == [0, 100, 200]


class TestEditsFromOutside:
    @pytest.mark.parametrize("how", ["load_state_dict", "data", "in place", "assigned"])
    def test_they_are_seen(self, how: str, randomise) -> None:
        flow, objective = architectures.fc((5,), 2).double(), AmortizedML()
        train(flow, objective, 40)
        other = randomise(architectures.fc((5,), 2), seed=9)
        age = max(kept.age for kept in objective._kept)
        if how == "data":
            for parameter, new in zip(flow.parameters(), other.parameters(), strict=True):
                parameter.data = new.data.clone()
        elif how == "in place":
            with torch.no_grad():
                for parameter, new in zip(flow.parameters(), other.parameters(), strict=True):
                    parameter.copy_(new)
        else:
            flow.load_state_dict(copy.deepcopy(other.state_dict()), assign=how == "assigned")
        x = draw(flow)
        for _ in range(age // 2 + 1):  # the next look
            ours = gradients(objective, flow, x)
        assert relative_error(ours, gradients(ML(), flow, x)) < 1e-12

    def test_another_type_is_taken_up_at_once(self, randomise) -> None:
        flow, objective = randomise(architectures.fc((5,), 2)), AmortizedML(every=100)
        objective(flow, draw(flow))
        flow.float()
        x = draw(flow).float()
        assert relative_error(gradients(objective, flow, x), gradients(ML(), flow, x)) < 1e-5


class TestSingular:
    def test_a_singular_layer_is_named_as_by_log_z(self, randomise) -> None:
        flow = randomise(EBFlow((3,), [Dense(3), SmoothLeakyReLU(), Dense(3)]))
        objective = AmortizedML(every=2)
        objective(flow, draw(flow))
        with torch.no_grad():
            flow.layers[2].weight[0] = flow.layers[2].weight[1]
            flow.layers[2].weight.zero_()
        objective(flow, draw(flow))  # nothing is refreshed yet
        with pytest.raises(SingularJacobianError, match=r"layer 2 \(Dense\) is singular") as ours, torch.no_grad():
            objective(flow, draw(flow))
        with pytest.raises(SingularJacobianError) as theirs, torch.no_grad():
            flow.log_normalizer()
        assert str(ours.value) == str(theirs.value)

    def test_a_weight_that_is_not_finite_is_named(self) -> None:
        flow = EBFlow((3,), [ActNorm((3,)), Dense(3)]).double()
        with torch.no_grad():
            flow.layers[1].weight[0, 0] = torch.nan
        with pytest.raises(SingularJacobianError, match=r"layer 1 \(Dense\)"):
            AmortizedML()(flow, draw(flow))


class TestState:
    @pytest.mark.parametrize("objective", [AmortizedML, lambda: AmortizedML(7), lambda: AmortizedML(7, math.inf)])
    def test_a_training_goes_on_with_the_same_bits(self, objective: Callable[[], AmortizedML]) -> None:
        def run(stop: int | None) -> list[Tensor]:
            flow, own = architectures.fc((5,), 3), objective()
            optimizer = torch.optim.SGD(flow.parameters(), 1e-2)
            for step in range(40):
                if step == stop:
                    weights, state = copy.deepcopy(flow.state_dict()), own.get_state()
                    flow, own = architectures.fc((5,), 3), objective()
                    flow.load_state_dict(weights)
                    own.set_state({name: tensor.clone() for name, tensor in state.items()})
                    optimizer = torch.optim.SGD(flow.parameters(), 1e-2)
                optimizer.zero_grad()
                own(flow, draw(flow, seed=step).float()).backward()
                optimizer.step()
            return [*(p.detach() for p in flow.parameters()), *own.get_state().values()]

        whole = run(None)
        for stop in (1, 2, 9, 23):
            assert all(torch.equal(a, b) for a, b in zip(run(stop), whole, strict=True))

    def test_nothing_is_kept_before_the_first_step(self) -> None:
        flow, objective = architectures.fc((4,), 2).double(), AmortizedML()
        assert objective.observations(flow) == {}
        objective.set_state(objective.get_state())
        assert relative_error(gradients(objective, flow, draw(flow)), gradients(ML(), flow, draw(flow))) < 1e-12

    def test_it_keeps_one_copy_of_the_gradients_and_one_of_the_weights(self) -> None:
        flow = architectures.fc((32,), 2)
        size = sum(p.numel() for p in flow.parameters())
        for objective, copies in ((AmortizedML(), 2), (AmortizedML(every=5), 1)):
            train(flow.double(), objective, 12)
            tensors = [tensor for name, tensor in objective.get_state().items() if name != "layers"]
            assert sum(tensor.numel() for tensor in tensors) == copies * size

    def test_a_refresh_takes_no_new_memory(self) -> None:
        flow, objective = architectures.fc((4,), 2).double(), AmortizedML(tolerance=0.001)
        objective(flow, draw(flow)).backward()
        before = [tensor.data_ptr() for kept in objective._kept for tensor in (*kept.gradients, *kept.weights)]
        train(flow, objective, 20)
        assert min(kept.refreshes for kept in objective._kept) > 2
        after = [tensor.data_ptr() for kept in objective._kept for tensor in (*kept.gradients, *kept.weights)]
        assert after == before


class TestInTheEnd:
    @pytest.mark.parametrize(
        "objective", [lambda: AmortizedML(every=20), lambda: AmortizedML(tolerance=0.01)], ids=["k = 20", "drift"]
    )
    def test_the_optimum_is_that_of_maximum_likelihood(self, objective: Callable[[], AmortizedML]) -> None:
        """One dense layer on fixed data: its optimum is the Gaussian of their mean and covariance."""
        source = torch.Generator().manual_seed(0)
        x = torch.randn(500, 4, generator=source, dtype=DOUBLE) @ torch.randn(4, 4, generator=source, dtype=DOUBLE) + 1
        flow, own = EBFlow((4,), [Dense(4)]).double(), objective()
        optimizer = torch.optim.Adam(flow.parameters(), 0.03)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3000)
        for _ in range(3000):
            optimizer.zero_grad()
            own(flow, x).backward()
            optimizer.step()
            schedule.step()
        layer = flow.layers[0]
        precision = layer.weight.mT @ layer.weight
        torch.testing.assert_close(torch.linalg.inv(precision), torch.cov(x.mT, correction=0), rtol=3e-3, atol=3e-3)
        assert own.observations(flow)["refreshes"] <= 600

    def test_too_long_a_period_swings_around_the_optimum(self) -> None:
        """Between two refreshes w settles where its pull is zero, at 1 / (c w_0), and so it swings for ever."""
        flow = EBFlow((1,), [Dense(1, bias=False)]).double()
        x = 0.5 * torch.randn(200, 1, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
        c = float(x.square().mean())
        optimizer = torch.optim.SGD(flow.parameters(), 1.0)
        ends = {}
        for period in (200, 5):
            with torch.no_grad():
                flow.layers[0].weight.fill_(1.0)
            objective, weights = AmortizedML(every=period), []
            for _ in range(1000):
                optimizer.zero_grad()
                objective(flow, x).backward()
                optimizer.step()
                weights.append(float(flow.layers[0].weight.detach()))
            ends[period] = [weights[-period - 1], weights[-1]]
        assert ends[200] == pytest.approx([1.0, 1 / c], rel=1e-3) or ends[200] == pytest.approx([1 / c, 1.0], rel=1e-3)
        assert ends[5] == pytest.approx([c**-0.5] * 2, rel=1e-3)

    def test_the_likelihood_is_that_of_maximum_likelihood(self) -> None:
        ends = []
        for objective in (ML(), AmortizedML(every=10), AmortizedML()):
            flow = EBFlow((1, 4, 4), [Convolution((1, 4, 4), 3), SmoothLeakyReLU(), Convolution((1, 4, 4), 3)]).double()
            train(flow, objective, 300, rate=3e-3)
            with torch.no_grad():
                ends.append(float(-flow.log_prob(draw(flow, 2000, seed=99)).mean()))
        assert ends[1:] == pytest.approx([ends[0]] * 2, abs=0.05)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"every": 0}, "not every 0 steps"), ({"tolerance": 0.0}, "above 0, not 0"), ({"tolerance": math.nan}, "nan")],
)
def test_settings_without_a_meaning(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AmortizedML(**settings)


def test_a_state_that_was_set_is_kept_before_the_first_step() -> None:
    """A training that is stopped twice in a row must not lose what it resumed from."""
    flow = architectures.fc((3,), layers=2).double()
    first, second = AmortizedML(every=3), AmortizedML(every=3)
    first(flow, draw(flow, 5))
    second.set_state(first.get_state())
    for name, tensor in first.get_state().items():
        assert torch.equal(second.get_state()[name], tensor)


@pytest.mark.parametrize(
    "other", [architectures.fc((3,), layers=3), architectures.fc((4,), layers=2)], ids=["layers", "sizes"]
)
def test_the_state_of_another_flow_is_refused(other: EBFlow) -> None:
    first, second = AmortizedML(), AmortizedML()
    first(other, draw(other, 5).float())
    second.set_state(first.get_state())
    flow = architectures.fc((3,), layers=2)
    with pytest.raises(ValueError, match="that of a flow with other layers"):
        second(flow, draw(flow, 5).float())


def test_compiled_it_takes_the_same_steps() -> None:
    def run(compiled: bool) -> list[nn.Parameter]:
        flow, objective = architectures.fc((6,), 2), AmortizedML(every=3)
        loss = (
            torch.compile(lambda x: objective(flow, x), backend="aot_eager")
            if compiled
            else lambda x: objective(flow, x)
        )
        optimizer = torch.optim.SGD(flow.parameters(), 1e-2)
        for step in range(8):
            optimizer.zero_grad()
            loss(draw(flow, seed=step).float()).backward()
            optimizer.step()
        return list(flow.parameters())

    torch.testing.assert_close(run(True), run(False), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("behind", [False, True])
def test_a_caller_that_prepares_every_step_takes_the_same_steps(behind: bool) -> None:
    def run(prepared: bool) -> tuple[list[Tensor], list[Tensor], dict[str, Tensor]]:
        flow = (architectures.whitened_fc((6,), 2) if behind else architectures.fc((6,), 2)).double()
        flow.initialize(draw(flow, 200))
        amortized = AmortizedML(tolerance=0.02)
        objective = Behind(LowEnergy(amortized, 0.1), 1) if behind else amortized
        optimizer = torch.optim.Adam(flow.parameters(), 1e-2)
        losses = []
        for step in range(30):
            if prepared:
                assert objective.prepare(flow)
            optimizer.zero_grad()
            with objective.prepared() if prepared else nullcontext():
                loss = objective(flow, draw(flow, seed=step))
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return losses, [weight.detach() for weight in flow.parameters()], objective.get_state()

    (losses, weights, state), (again, moved, kept) = run(False), run(True)
    assert torch.equal(torch.stack(losses), torch.stack(again))
    assert all(torch.equal(a, b) for a, b in zip(weights, moved, strict=True))
    assert all(torch.equal(state[name], kept[name]) for name in state)
    refreshes = state["layers"][:, 4]
    assert 1 < float(refreshes.max()) < 30


def test_in_prepared_no_call_counts_as_a_step() -> None:
    flow, objective = architectures.fc((5,), 2).double(), AmortizedML(every=2)
    objective.prepare(flow)
    before = objective.get_state()["layers"]
    with objective.prepared():
        for seed in range(5):
            objective(flow, draw(flow, seed=seed))
    assert torch.equal(objective.get_state()["layers"], before)
    objective(flow, draw(flow))  # outside, a call counts as ever
    assert not torch.equal(objective.get_state()["layers"], before)


def test_what_remembers_its_steps_says_that_they_differ() -> None:
    flow = architectures.fc((4,), 2).double()
    flow.initialize(draw(flow, 200))
    for stateless in (ML(), SML(), SSM(), DSM(0.3), LowEnergy(DSM(0.3), 0.1)):
        assert stateless.prepare(flow)
    objective = SNL()
    assert objective.prepare(flow)
    objective(flow, draw(flow, 50), torch.Generator().manual_seed(0))
    assert not objective.prepare(flow)
