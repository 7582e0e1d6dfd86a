"""The published numbers, configurations and experiments are what the paper says, and every experiment can start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from harness.cells import LikelihoodCell, RuntimeCell
from harness.datasets import names
from harness.errors import InputError
from harness.methods import Method, Rate
from harness.methods.registry import registry
from harness.paper import published
from harness.paper.configurations import configuration
from harness.paper.experiments import EXPERIMENTS, Context, statement
from harness.paper.plans import configured_cell
from harness.paper.recipes import PROFILES, RECIPES
from harness.training.configuration import TrainingConfig

OBJECTIVES = ("ml", "sml", "ssm", "dsm", "fdssm")


def test_published_likelihoods() -> None:
    table = published.likelihood()
    assert table.height == 4 * 5 + 1
    dsm = table.filter(dataset="mnist", architecture="fc", objective="dsm").row(0, named=True)
    assert (dsm["published_nll"], dsm["published_ci"]) == (1099.2, 0.2)
    assert table.filter(architecture="glow")["published_ci"].to_list() == [None]


def test_published_ablation_and_runtime() -> None:
    table = published.ablation()
    assert table.height == 18
    cell = table.filter(architecture="fc", objective="ssm", EMA=True, MaP=False)
    assert cell["published_nll"].to_list() == [1720.5]
    seconds = published.runtime().filter(architecture="fc", objective="ml", shape="1x28x28")
    assert seconds["published_seconds"].to_list() == [0.105]
    # The figure hides dsm and fdssm of the cnn behind ssm, and the score-matching curves of three channels.
    assert published.runtime().filter(architecture="cnn")["objective"].unique().sort().to_list() == ["ml", "sml", "ssm"]


def test_published_levels_and_caveats() -> None:
    levels = published.time_to_level()
    assert levels.height == 4 * 5
    ml = levels.filter(dataset="mnist", architecture="fc", objective="ml").row(0, named=True)
    assert (ml["level"], ml["published_hours"], ml["published_steps"]) == (2.05, 0.47, 13_536)
    assert any("Gaussian" in text for text in published.caveats("mnist", "fc"))
    assert published.caveats("digits", "fc") == []
    assert {"mnist", "cifar10"} >= set(published.priors()["dataset"])


def test_published_scores_of_density_estimation() -> None:
    scores = {(score.dataset, score.method): score for score in published.tabular()}
    assert len(scores) == len(published.tabular()) == 24 * 5
    assert {dataset for dataset, _ in scores} == {"power", "gas", "hepmass", "miniboone", "bsds300"} <= {*names()}
    spline = scores["miniboone", "RQ-NSF (AR)"]
    assert (spline.value, spline.error, spline.error_kind, spline.unit) == (-9.22, 0.48, "test-set", "nats")
    assert (spline.paper, spline.read) == ("1906.04032", "notes")
    assert scores["power", "Glow, by FFJORD's authors"].error is None
    assert "The authors ask that these be reported" in scores["gas", "TAN"].note
    # A method that fits better is published with a larger likelihood.
    for dataset in ("power", "gas", "hepmass", "miniboone", "bsds300"):
        order = [scores[dataset, method].value for method in ("Gaussian", "MADE", "MAF (5)", "RQ-NSF (AR)")]
        assert order == sorted(order)


def test_published_scores_of_images() -> None:
    scores = {(score.paper, score.dataset, score.method): score for score in published.images()}
    assert len(scores) == len(published.images())
    made = scores["1705.07057", "mnist", "made"]
    assert (made.value, made.error, made.unit) == (-1380.8, 4.8, "nats in logit space")
    glow = scores["1807.03039", "imagenet64", "glow"]
    assert (glow.value, glow.error, glow.unit) == (3.81, None, "bits/dim")


# Decay of the rate, its last epoch, weight decay, clipping, noise, residual, alpha, epochs, epochs to a validation.
@pytest.mark.parametrize(
    ("dataset", "architecture", "objective", "expected"),
    [
        ("mnist", "fc", "dsm", (0.95, 50, 0.0, None, 1.0, False, 0.5, 10_000, 10)),
        ("mnist", "fc", "fdssm", (0.95, 50, 0.0, 5.0, 1.0, False, 0.5, 10_000, 10)),
        ("mnist", "cnn", "ml", (0.925, 50, 1e-5, None, 0.1, True, 0.75, 1000, 1)),
        ("mnist", "cnn", "ssm", (0.95, 50, 0.0, None, 0.1, True, 0.75, 1000, 1)),
        ("mnist", "cnn", "dsm", (0.95, 50, 1e-5, None, 0.1, True, 0.75, 1000, 1)),
        ("cifar10", "fc", "ml", (0.7, 20, 1e-3, None, 0.1, True, 0.5, 10_000, 1)),
        ("cifar10", "fc", "ssm", (0.85, 30, 1e-3, None, 0.1, True, 0.5, 10_000, 1)),
        ("cifar10", "cnn", "dsm", (0.8, 20, 1e-3, None, 0.1, True, 0.75, 10_000, 1)),
        ("cifar10", "cnn", "fdssm", (0.85, 50, 1e-3, None, 0.1, True, 0.75, 10_000, 1)),
    ],
)
def test_configurations_of_images(dataset: str, architecture: str, objective: str, expected: tuple) -> None:
    found = configuration(dataset, architecture, objective)
    recipe, problem = found.training, found.problem
    assert (recipe.optimizer, recipe.learning_rate, recipe.ema_decay, problem.batch) == ("rmsprop", 1e-4, 0.999, 100)
    assert expected == (
        recipe.decay,
        recipe.decay_epochs,
        recipe.weight_decay,
        recipe.clip_norm,
        problem.noise,
        problem.residual,
        found.logit_alpha,
        recipe.epochs,
        recipe.evaluate_every,
    )
    assert problem.layers == {"fc": 2, "cnn": 6}[architecture]


@pytest.mark.parametrize(("objective", "noise"), [("ml", 0.1), ("dsm", 0.1), ("fdssm", 1.0)])
def test_configuration_of_glow(objective: str, noise: float) -> None:
    found = configuration("mnist", "glow", objective)
    recipe = found.training
    assert (recipe.optimizer, recipe.learning_rate, recipe.decay, recipe.clip_norm) == ("adam", 1e-5, 1.0, 500.0)
    assert (recipe.epochs, recipe.evaluate_every, recipe.weight_decay) == (80, 1, 0.0)
    assert (found.problem.noise, found.logit_alpha, found.problem.batch, found.problem.layers) == (noise, 1.0, 100, 32)


def test_configurations_of_points() -> None:
    sine = configuration("sine", "toy", "dsm")
    problem = sine.problem
    assert (sine.training.learning_rate, sine.training.clip_norm, problem.noise) == (1e-4, 1.0, 0.375)
    assert (problem.batch, problem.dtype, problem.layers, sine.clean_batches) == (2048, "float64", 11, True)
    assert 50_001 <= sine.training.epochs * 25 < 50_001 + 25
    assert configuration("sine", "toy", "sml").training.clip_norm is None
    assert configuration("swirl", "toy", "ml").training.learning_rate == 5e-3
    assert configuration("swirl", "toy", "fdssm").problem.noise == 0.1
    checkerboard = configuration("checkerboard", "toy", "ssm")
    assert checkerboard.problem.batch == 10_000
    assert 100_001 <= checkerboard.training.epochs * 5 < 100_001 + 5


def test_configuration_of_the_matrices() -> None:
    found = configuration("multimodal10", "multimodal", "ml")
    recipe = found.training
    assert (recipe.optimizer, recipe.learning_rate, recipe.decay) == ("adam", 1e-3, 1.0)
    assert (recipe.clip_norm, recipe.ema_decay) == (500, None)
    problem = found.problem
    assert (problem.batch, problem.layers, problem.dtype, problem.residual) == (2048, 11, "float64", False)
    assert 10_001 <= recipe.epochs * 25 < 10_001 + 25


def test_the_matrices_are_compared_on_one_network() -> None:
    (experiment,) = [experiment for experiment in EXPERIMENTS if experiment.name == "figure-a4-matrices"]
    cells = experiment.cells(Context("paper"))
    methods = {cell.method for cell in cells}
    assert methods == {f"ebflow-{matrix}-ml" for matrix in ("full", "lower", "upper", "lu")}
    assert {(cell.dataset, cell.problem.architecture, cell.draws) for cell in cells} == {
        ("multimodal10", "multimodal", 1)
    }


def test_other_data_gets_the_nearest_configuration() -> None:
    assert configuration("digits", "fc", "tssm") == configuration("digits", "fc", "ssm")
    assert configuration("mine.npy", "cnn", "ml").problem.residual
    digits, mnist = (configuration(dataset, "glow", "fdssm").problem for dataset in ("digits", "mnist"))
    assert digits == mnist


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda experiment: experiment.name)
def test_experiments_can_start(experiment, profile: str) -> None:
    # zuko takes half a minute to work out the masks of its autoregressive flows for all of these sizes.
    slow = ("zuko-maf-ml", "zuko-nsf-ml", "zuko-nsf-reg")
    cells = experiment.cells(Context(profile, methods=tuple(name for name in registry().methods if name not in slow)))
    assert cells
    for cell in cells:
        cell.check()
        assert (cell.experiment, cell.profile) == (experiment.name, profile)
    assert len({str(cell.identity()) for cell in cells}) == len(cells)
    methods = {name for cell in cells for name in (cell.methods if isinstance(cell, RuntimeCell) else [cell.method])}
    assert methods <= registry().methods.keys()
    trainings = [cell for cell in cells if isinstance(cell, LikelihoodCell)]
    assert {cell.problem.seed for cell in trainings} <= ({0} if profile == "quick" else {0, 1, 2})
    assert all(cell.download == (profile == "paper") for cell in trainings)
    assert statement(experiment.name, "quick").startswith("Differs from the publication: ")


def test_every_method_has_a_row_in_the_likelihood_tables() -> None:
    (experiment,) = [experiment for experiment in EXPERIMENTS if experiment.name == "table2-mnist-fc"]
    cells = experiment.cells(Context("quick"))
    assert {cell.method for cell in cells} == {m.name for m in registry().methods.values() if "fc" in m.architectures}


def test_the_ablation_crosses_ema_with_map() -> None:
    (experiment,) = [experiment for experiment in EXPERIMENTS if experiment.name == "table4-mnist-fc"]
    cells = experiment.cells(Context("paper"))
    crossed = {(cell.method, cell.config.ema_decay, cell.preprocess) for cell in cells}
    methods = ("ebflow-ssm", "ebflow-dsm", "ebflow-fdssm")
    assert crossed == {(method, ema, map_) for method in methods for ema in (None, 0.999) for map_ in (True, False)}
    assert len(cells) == 3 * len(crossed)


def test_a_budget_of_epochs_shortens_the_paper_profile_and_is_told() -> None:
    (experiment,) = [experiment for experiment in EXPERIMENTS if experiment.name == "table2-mnist-fc"]
    cells = experiment.cells(Context("paper", epochs=7, seeds=1, methods=("ebflow-ml", "gaussian")))
    found = {cell.method: (cell.config.epochs, cell.recipe) for cell in cells}
    assert found == {"ebflow-ml": (7, "paper, 7 of 10,000 epochs"), "gaussian": (10_000, "paper")}


def test_amortised_methods_are_refreshed_by_their_rule_and_every_k_steps() -> None:
    (experiment,) = [experiment for experiment in EXPERIMENTS if experiment.name == "amortised-mnist-fc"]
    cells = experiment.cells(Context("paper", epochs=20, seeds=1))
    refreshes = {}
    for cell in cells:
        refreshes.setdefault(cell.method, []).append(cell.problem.refresh)
    assert refreshes["ebflow-aml"] == refreshes["zuko-dense-aml"] == [None, 50, 20, 5, 100, 1]
    assert refreshes["ebflow-ml"] == refreshes["relative-gradient-ml"] == refreshes["ebflow-dsm"] == [None]
    labels = [cell.recipe for cell in cells if cell.method == "ebflow-aml"][:2]
    assert labels == ["tuned, 20 of 60 epochs", "tuned, refresh 50, 20 of 60 epochs"]
    assert {cell.problem.start for cell in cells} == {"whitened"}
    assert {cell.config.calibrate for cell in cells} == {True}


def test_recipes() -> None:
    tuned = configuration("mnist", "fc", "dsm", "tuned")
    assert (tuned.problem.start, tuned.training.calibrate, tuned.training.schedule) == ("whitened", True, "cosine")
    assert not configuration("mnist", "fc", "dsm", "tuned-unrefitted").training.calibrate
    assert configuration("mnist", "fc", "dsm", "tuned-logit-space").problem.start == "whitened-start"
    smooth = configuration("mnist", "fc", "dsm", "tuned-smooth")
    assert smooth == replace(tuned, smooth_noise=1.25)
    unrefitted = configuration("mnist", "fc", "dsm", "tuned-smooth-unrefitted")
    assert unrefitted == replace(configuration("mnist", "fc", "dsm", "tuned-unrefitted"), smooth_noise=1.25)
    augmented = configuration("cifar10", "fc", "aml", "tuned-augmented")
    assert (augmented.augment, augmented.problem.start, augmented.training.start_samples) == (True, "whitened", 120_000)
    assert configuration("mnist", "cnn", "ml", "tuned-augmented").augment
    starts = {recipe: configuration("mnist", "fc", "dsm", recipe) for recipe in RECIPES if recipe.startswith("snf")}
    assert [each.problem.start for each in starts.values()] == ["identity", "published", "orthogonal", "whitened"]
    assert {replace(each.training, start_samples=None) for each in starts.values()} == {
        TrainingConfig(optimizer="adam", decay=1.0, ema_decay=None, epochs=2_000)
    }
    for architecture in ("fc", "cnn"):  # the published recipe has it too, for CIFAR-10 alone
        published = configuration("cifar10", architecture, "dsm")
        assert published.augment
        assert configuration("cifar10", architecture, "dsm", "paper-unaugmented") == replace(published, augment=False)
        assert not configuration("mnist", architecture, "dsm").augment
    # The energy weighs 0.001 / C beside a loss a dimension, or 0.001 / epsilon^2.
    assert configuration("cifar10", "fc", "dsm", "official-lambda").problem.energy_weight == pytest.approx(1e-3 / 3)
    assert configuration("cifar10", "fc", "fdssm", "official-lambda").problem.energy_weight == pytest.approx(0.1)
    assert configuration("mnist", "glow", "ssm", "official-actnorm").problem.frozen_actnorm
    for dataset, architecture, objective, recipe in [
        ("mnist", "fc", "dsm", "official-lambda"),
        ("cifar10", "fc", "ml", "official-lambda"),
        ("mnist", "fc", "ml", "official-actnorm"),
        ("mnist", "fc", "ml", "paper-unaugmented"),
        ("mnist", "cnn", "ml", "snf"),
        ("sine", "toy", "ml", "snf-orthogonal"),
        ("mnist", "cnn", "ml", "tuned-unrefitted"),
        ("multimodal10", "multimodal", "ml", "tuned"),
        ("sine", "toy", "ml", "tuned-smooth"),
        ("sine", "toy", "ml", "tuned-augmented"),
        ("mnist", "cnn", "ml", "tuned-smooth-unrefitted"),
    ]:
        with pytest.raises(InputError, match=f"the recipe {recipe} changes nothing for {objective} on {dataset}"):
            configuration(dataset, architecture, objective, recipe)
    with pytest.raises(InputError, match="unknown recipe 'tunde': did you mean tuned"):
        configuration("mnist", "fc", "ml", "tunde")


def test_a_gpu_has_longer_curves_and_replayed_steps_beside_plain_ones() -> None:
    (curve, training) = [e for e in EXPERIMENTS if e.name in ("figure2a-fc-colour", "table2-mnist-fc")]
    context = Context("paper", device="cuda", seeds=1, methods=("ebflow-dsm", "gaussian"), cuda_graphs=True)
    timed = [(cell.problem.dimension, cell.config.cuda_graphs) for cell in curve.cells(context)]
    sizes = [3 * n * n for n in (8, 16, 20, 24, 28, 32, 36, 40, 48, 64)]
    assert timed == [(size, replayed) for replayed in (False, True) for size in sizes]
    assert max(sizes) == 12_288
    trained = {cell.method: cell for cell in training.cells(context)}
    assert {name: cell.config.cuda_graphs for name, cell in trained.items()} == {"ebflow-dsm": True, "gaussian": False}
    assert trained["ebflow-dsm"].origin.argv[-1] == "--cuda-graphs"
    plain = training.cells(replace(context, cuda_graphs=False))
    assert not any(cell.config.cuda_graphs for cell in plain)


def test_the_quick_profile_leaves_out_the_closed_form_of_augmented_data_unless_asked() -> None:
    by_name = {experiment.name: experiment for experiment in EXPERIMENTS}

    def gaussians(name: str, context: Context) -> list[str]:
        return [cell.recipe for cell in by_name[name].cells(context) if cell.method == "gaussian"]

    quick, asked, paper = Context("quick"), Context("quick", methods=("gaussian",)), Context("paper", seeds=1)
    for name, plain in (("table2-cifar10-fc", []), ("gaussian-cifar10", ["paper-unaugmented"])):
        assert gaussians(name, quick) == plain
        assert gaussians(name, asked) == gaussians(name, paper) == ["paper", *plain]


def test_depths_are_variants_of_one_recipe() -> None:
    (experiment,) = [experiment for experiment in EXPERIMENTS if experiment.name == "depth-digits-fc"]
    cells = experiment.cells(Context("paper", seeds=1, methods=("ebflow-dsm",)))
    found = [(cell.recipe, cell.problem.layers, cell.problem.residual) for cell in cells]
    plain = [("tuned", layers, False) for layers in (2, 4, 8)]
    assert found == plain + [("tuned, residual", layers, True) for layers in (2, 4, 8)]
    assert len({cell.key for cell in cells}) == 6


def configured(method: Method, recipe: str = "tuned") -> LikelihoodCell:
    return configured_cell("x", Context("custom"), method, "mnist", "fc", recipe=recipe)


def test_a_recipe_depends_on_objective_and_data_alone(fake_method: Callable) -> None:
    for recipe in ("paper", "tuned", "tuned-unrefitted", "tuned-smooth"):
        by_objective: dict = {}
        for method in registry().methods.values():
            if method.is_papers_fc and method.objective in ("ml", "aml", "ssm", "dsm"):
                cell = configured(method, recipe)
                by_objective.setdefault(method.objective, set()).add((cell.config, cell.problem))
        assert {objective: len(found) for objective, found in by_objective.items()} == dict.fromkeys(by_objective, 1)


def test_what_is_not_the_papers_fc_keeps_its_own_start_and_says_so(fake_method: Callable) -> None:
    cell = configured(fake_method("p-ml"))
    assert (cell.problem.start, cell.config.calibrate, cell.config.start_samples) == ("published", False, None)
    assert cell.config.schedule == "cosine"
    assert cell.caveat == "it starts as its library does, and its last layer is not refitted"
    assert configured(fake_method("p-ml", own_start="it starts at +I")).caveat == "it starts at +I"
    assert configured(fake_method("p-ml"), "paper").caveat == ""
    assert configured(registry().find("gaussian")).caveat == configured(registry().find("zuko-lu-ml")).caveat == ""
    assert "slopes above zero" in configured(registry().find("nflows-lu-ml")).caveat


def test_a_third_partys_objective_is_trained_as_its_family_says(fake_method: Callable) -> None:
    mine = fake_method("p-mine", objective="mine", linear="dense", family="score-matching")
    assert (mine.matches_scores, configured(mine).config) == (
        True,
        configuration("mnist", "fc", "ssm", "tuned").training,
    )
    unknown = fake_method("p-mine", objective="mine", linear="dense")
    assert (unknown.matches_scores, configured(unknown).config.epochs) == (False, 60)
    named_alike = fake_method("p-dsm", objective="dsm", linear="dense", family="likelihood")
    assert (named_alike.matches_scores, configured(named_alike).config.epochs) == (False, 60)
    for recipe in ("paper", "tuned"):
        for architecture in ("fc", "cnn", "glow"):
            expected = configuration("mnist", architecture, "ssm", recipe)
            assert configuration("mnist", architecture, "mine", recipe, "score-matching") == expected


def test_a_rate_of_a_methods_own_is_printed_with_its_reason(fake_method: Callable) -> None:
    method = fake_method("p-ml", linear="dense", rate=Rate(0.1, "its steps are relative"))
    cell = configured(method)
    assert cell.config.learning_rate == pytest.approx(1e-4)
    assert cell.caveat == "its learning rate is 0.0001, 0.1 times the recipe's: its steps are relative"
    assert cell.limits_of(method) == cell.caveat
    paper = configured(method, "paper")
    assert (paper.config.learning_rate, paper.caveat) == (configuration("mnist", "fc", "ml").training.learning_rate, "")
    for factor, why in ((0.0, "x"), (float("inf"), "x"), (0.1, "")):
        with pytest.raises(InputError, match="a rate needs a factor above 0 and a reason"):
            Rate(factor, why)


def test_large_tables_have_one_tuned_recipe_of_about_as_many_steps() -> None:
    patches = configured_cell("train", Context("custom"), registry().find("ebflow-ml"), "patches", "fc", recipe="tuned")
    assert (patches.problem.batch, patches.problem.layers, patches.config.epochs) == (256, 2, 1)
    assert (patches.problem.start, patches.config.start_samples, patches.config.calibrate) == ("whitened", 50_000, True)
    splines = configured_cell(
        "train", Context("custom"), registry().find("zuko-nsf-ml"), "patches", "fc", recipe="tuned"
    )
    assert (splines.problem.layers, splines.problem.start, splines.config.start_samples) == (5, "published", 50_000)
    assert splines.config.learning_rate == patches.config.learning_rate
    toy = configured_cell("train", Context("custom"), registry().find("ebflow-dsm"), "patches", "toy", recipe="tuned")
    assert (toy.problem.layers, toy.problem.start) == (11, "published")


def test_the_recipe_own_is_what_a_method_declares_for_the_data() -> None:
    cell = configured_cell("train", Context("custom"), registry().find("nflows-nsf-ml"), "patches", "fc", recipe="own")
    problem, config = cell.problem, cell.config
    assert (problem.layers, problem.hidden, problem.blocks, problem.dropout, problem.mixing) == (20, 128, 1, 0.2, True)
    assert (config.learning_rate, config.schedule, config.clip_norm) == (5e-4, "cosine", 5.0)
    assert round(config.epochs * 424_200 / problem.batch, -3) == 400_000
    assert not cell.origin.shortened
    maf = configured_cell("train", Context("custom"), registry().find("zuko-maf-ml"), "patches", "fc", recipe="own")
    assert (maf.problem.layers, maf.problem.hidden, maf.config.patience) == (5, 1024, 30)
    assert "batch normalisation" in str(maf.caveat)
    with pytest.raises(InputError, match="ebflow-ml declares hyper-parameters of its own for no dataset, not patches"):
        configured_cell("train", Context("custom"), registry().find("ebflow-ml"), "patches", "fc", recipe="own")
    with pytest.raises(InputError, match="the recipe own is for the datasets of the literature; use --recipe tuned"):
        configuration("my.csv", "fc", "ml", "own")
