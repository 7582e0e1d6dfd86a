"""Verdicts by rule: what counts for a claim, against it, or not at all, and that every number has its cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from stored import stored_config

from harness.report.claims import CLAIMS, Evidence, Outcome, Verdict, judge
from harness.results import Row, Store, to_frame
from harness.results.derived import derived

REFERENCE = Path(__file__).parents[3] / "results" / "reference"
CLAIM = {claim.name: claim for claim in CLAIMS}
SHORT = {"recipe": "paper, 9 of 10,000 epochs"}


def frame(rows: Sequence[Row]) -> pl.DataFrame:
    return derived(to_frame(rows))


def compared(name: str, rows: Sequence[Row]) -> list[Evidence]:
    return CLAIM[name].compare(frame(rows))


def outcomes(name: str, rows: Sequence[Row]) -> list[str]:
    return [str(one.outcome) for one in compared(name, rows)]


@pytest.fixture
def times(make_row: Callable[..., Row]) -> Callable[..., list[Row]]:
    """Timings of one run a D, with repetitions that scatter by a percent or so: {method: {D: seconds}}."""

    def times(
        seconds: dict[str, dict[int, float]], cell: str = "run", repetitions: int = 6, **changes: Any
    ) -> list[Row]:
        rows = []
        for number, (method, curve) in enumerate(seconds.items()):
            kind = "relative-gradient" if method.startswith("relative") else method.split("-")[-1]
            for size, value in curve.items():
                columns = {
                    "cell": f"{cell}-{size}",
                    "method": method,
                    "objective": kind,
                    "linear": "lu" if "lu" in method else "dense",
                    "D": size,
                    **changes,
                }
                rows.append(make_row(**{**columns, "value": value, "ci_low": 0.9 * value, "ci_high": 1.1 * value}))
                for turn in range(repetitions):
                    scattered = value * (1 + 0.01 * ((turn * (number + 2)) % 5 - 2))
                    rows.append(
                        make_row(
                            **{**columns, "metric": "seconds_of_repetition", "iteration": turn, "value": scattered}
                        )
                    )
        return rows

    return times


@pytest.fixture
def trained(make_row: Callable[..., Row]) -> Callable[..., list[Row]]:
    """One training to an NLL, at the full length of its recipe unless told otherwise."""

    def trained(
        method: str, value: float | None, ema: bool = True, preprocess: bool = True, **changes: Any
    ) -> list[Row]:
        columns = {
            "dataset": "mnist",
            "architecture": "fc",
            "D": 784,
            "objective": "closed-form" if method == "gaussian" else method.split("-")[-1],
            "recipe": "paper",
            "profile": "paper",
            "experiment": "table2-mnist-fc",
            "cell": f"{method}-{ema}-{preprocess}",
            "unit": "nats",
            **changes,
        }
        training = {"ema_decay": 0.999 if ema else None, "max_seconds": None}
        shortened = columns["profile"] == "quick" or " of " in columns["recipe"]
        origin = {
            "recipe": columns["recipe"].split(",")[0],
            "shortened": shortened and columns["objective"] != "closed-form",
        }
        config = stored_config("likelihood", origin=origin, config=training, preprocess=preprocess)
        row = make_row(**{"method": method, "metric": "nll", "value": value, "config": config, **columns})
        return [row, make_row(**{**columns, "method": method, "metric": "training_iterations", "value": 500.0})]

    return trained


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_no_rows_decide_nothing(claim: Any) -> None:
    assert claim.compare(frame([])) == []
    assert judge([]) is Verdict.UNMEASURED


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (["for", "for"], "holds"),
        (["for", "open"], "holds"),
        (["open"], "not enough measured"),
        (["partly"], "holds with a limit"),
        (["for", "partly"], "holds with a limit"),
        (["partly", "against"], "holds in part"),
        (["for", "against"], "holds in part"),
        (["against", "open"], "does not hold here"),
    ],
)
def test_verdicts(found: list[str], verdict: str) -> None:
    evidence = [Evidence(Outcome(outcome), "", "", (), "time") for outcome in found]
    assert judge(evidence) == judge(evidence, ["time"]) == verdict
    assert judge(evidence, ["time", "likelihood"]) is Verdict.UNMEASURED


def test_every_claim_says_its_rule_and_its_command() -> None:
    assert len(CLAIM) == len(CLAIMS) == 13
    for claim in CLAIMS:
        assert "For:" in claim.rule
        assert all(command.startswith("harness ") for command in claim.commands)


def test_reference_results_are_traceable() -> None:
    rows, _ = Store(REFERENCE).frame()
    known = set(rows["cell"].to_list())
    for claim in CLAIMS:
        evidence = claim.compare(rows)
        assert evidence, claim.name
        assert all(one.cells and set(one.cells) <= known for one in evidence)


@pytest.mark.parametrize("method", ["ebflow-ml", "ebflow-aml", "ebflow-dsm", "ebflow-ssm", "relative-gradient-ml"])
def test_what_is_missing_turns_no_verdict_of_the_reference(method: str) -> None:
    """Without a method, or with its seeds or its commit changed, a verdict stays, or not enough is measured."""
    rows, _ = Store(REFERENCE).frame()
    its = pl.col("method") == method
    changes = [
        rows.filter(~its),
        rows.with_columns(seed=pl.when(its).then(pl.col("seed") + 50).otherwise("seed")),
        rows.with_columns(commit=pl.when(its).then(pl.lit("d" * 40)).otherwise("commit")),
    ]
    for claim in CLAIMS:
        before = claim.weigh(rows)[0]
        for changed in changes:
            assert claim.weigh(changed)[0] in (before, Verdict.UNMEASURED), claim.name


def test_amortised_likelihood_against_score_matching_in_time(times: Callable[..., list[Row]]) -> None:
    matched = {"ebflow-dsm": {784: 1.0, 3072: 10.0}, "ebflow-ssm": {784: 0.9, 3072: 12.0}}
    (found,) = compared("cubic", times({**matched, "ebflow-aml": {784: 0.8, 3072: 5.0}}))
    assert (found.outcome, found.kind) == (Outcome.AGAINST, "time")
    assert "takes 0.89 times (D = 784), 0.50 (3,072) as long" in found.text
    assert "ebflow-aml and ebflow-dsm at D = 3,072" in found.text
    assert outcomes("cubic", times({**matched, "ebflow-aml": {784: 0.95, 3072: 5.0}})) == ["partly"]
    assert outcomes("cubic", times({**matched, "ebflow-aml": {784: 0.8, 3072: 10.8}})) == ["for"]
    # A restricted matrix answers another question, and an exact determinant is what the claim is about.
    assert outcomes("cubic", times({**matched, "nflows-lu-aml": {784: 0.1}, "ebflow-ml": {784: 0.1}})) == []
    (found,) = compared("cubic", times({**matched, "relative-gradient-ml": {784: 0.7, 3072: 4.0}}))
    assert (found.outcome, "relative-gradient-ml" in found.text) == (Outcome.AGAINST, True)


def test_amortised_likelihood_against_the_exact_one_in_nats(trained: Callable[..., list[Row]]) -> None:
    tuned = {"recipe": "tuned"}
    rivals = [*trained("ebflow-ml", 976.0, **tuned), *trained("ebflow-dsm", 1007.0, **tuned)]
    (found,) = compared("cubic", [*rivals, *trained("ebflow-aml", 976.5, **tuned)])
    assert found.outcome is Outcome.AGAINST
    assert "ebflow-dsm, 1,007" in found.text
    assert outcomes("cubic", [*rivals, *trained("ebflow-aml", 978.0, **tuned)]) == ["for"]
    assert outcomes("cubic", [*rivals, *trained("ebflow-aml", 970.0, recipe="tuned, 90 of 60 epochs")]) == []
    # Two that were cut at one length are compared at that length.
    short = {"recipe": "tuned, 9 of 60 epochs", "cell": "short"}
    budget = [*trained("ebflow-aml", 980.0, **short), *trained("ebflow-ml", 978.0, **{**short, "cell": "ml"})]
    assert outcomes("cubic", budget) == ["for"]
    worse = trained("ebflow-ml", 1008.0, **tuned), trained("ebflow-dsm", 1007.0, **tuned)
    assert outcomes("cubic", [*worse[0], *worse[1], *trained("ebflow-aml", 1008.0, **tuned)]) == ["for"]


def test_faster_than_every_determinant(times: Callable[..., list[Row]]) -> None:
    slow = {"ebflow-ml": {256: 0.5, 784: 8.0, 3072: 85.0}, "zuko-dense-ml": {784: 6.0, 3072: 95.0}}
    (found,) = compared("speed", times({**slow, "ebflow-dsm": {256: 0.1, 784: 2.0, 3072: 9.0}}))
    assert (found.outcome, found.kind) == (Outcome.FOR, "exact dense")
    # The strongest opponent at each size, and what is published.
    assert "5.0 times (D = 256), 3.0 (784), 9.4 (3,072)" in found.text
    assert "At D = 3,072 these are ebflow-ml and ebflow-dsm" in found.text
    assert "85,000.0 ms against 9,000.0" in found.text
    assert "7.1" in found.text
    assert found.cells == ("run-256", "run-784", "run-3072")
    # Small D say nothing of the products; of the large ones the largest decides.
    assert outcomes("speed", times({**slow, "ebflow-dsm": {256: 0.9, 784: 2.0, 3072: 9.0}})) == ["for"]
    assert outcomes("speed", times({**slow, "ebflow-dsm": {256: 0.1, 784: 9.0, 3072: 9.0}})) == ["partly"]
    assert outcomes("speed", times({**slow, "ebflow-dsm": {256: 0.1, 784: 2.0, 3072: 86.0}})) == ["against"]
    assert outcomes("speed", times({"ebflow-ml": {256: 0.5}, "ebflow-dsm": {256: 0.1}})) == []


def test_one_repetition_decides_nothing(times: Callable[..., list[Row]]) -> None:
    for repetitions in (0, 1, 4):
        assert outcomes("speed", times({"ebflow-ml": {784: 8.0}, "ebflow-dsm": {784: 1.0}}, "run", repetitions)) == [
            "open"
        ]
    # Nor do many that cannot be told apart.
    assert outcomes("speed", times({"ebflow-ml": {784: 1.001}, "ebflow-dsm": {784: 1.0}})) == ["against"]


def test_only_what_took_turns_is_compared(times: Callable[..., list[Row]]) -> None:
    rows = times({"ebflow-ml": {784: 8.0}}, cell="a") + times({"ebflow-dsm": {784: 1.0}}, cell="b")
    assert outcomes("speed", rows) == []


@pytest.mark.parametrize(("lu", "outcome"), [(3.0, "for"), (0.5, "against")])
def test_restricted_matrices_are_rivals(times: Callable[..., list[Row]], lu: float, outcome: str) -> None:
    rows = times({"ebflow-dsm": {784: 1.0}, "nflows-lu-ml": {784: lu}, "zuko-lu-ml": {784: 9.0}})
    (found,) = compared("speed", rows)
    assert (found.outcome, found.kind, "nflows-lu-ml" in found.text) == (outcome, "restricted matrices", True)


PANEL = {
    "ebflow-dsm": {784: 10.0, 3072: 120.0},
    "ebflow-ssm": {784: 14.0, 3072: 160.0},
    "ebflow-ml": {784: 21.0, 3072: 680.0},
    "nflows-lu-ml": {784: 19.0, 3072: 220.0},
    "ebflow-aml": {784: 7.0, 3072: 105.0},
    "relative-gradient-ml": {784: 7.4, 3072: 83.0},
}


@pytest.mark.parametrize("family", ["ml", "lu-ml", "relative"])
def test_no_slow_adapter_turns_a_verdict(times: Callable[..., list[Row]], family: str) -> None:
    """It is no strongest opponent, alone in a small run least of all."""
    panel = times(PANEL)
    before = {name: CLAIM[name].weigh(frame(panel)) for name in ("speed", "cubic", "scaling")}
    assert before["speed"][0] is Verdict.MIXED
    slow = "relative-slow" if family == "relative" else f"slow-{family}"
    newest = {"started_at": "2026-01-01T00:00:00+00:00"}
    small = times({"ebflow-dsm": {784: 10.0, 4096: 200.0}, slow: {784: 99.0, 4096: 900.0}}, cell="small", **newest)
    whole = times({**PANEL, slow: {784: 99.0, 3072: 900.0}}, cell="whole", **newest)
    elsewhere = [replace(row, cpu="another") for row in small]
    for more in (small, whole, elsewhere, [replace(row, commit="d" * 40) for row in small]):
        for name, (verdict, evidence) in before.items():
            after, found = CLAIM[name].weigh(frame([*panel, *more]))
            assert after is verdict, (name, found)
            assert [one.short for one in found] == [one.short for one in evidence]


def test_the_series_of_asv_is_no_run_of_methods_that_take_turns(times: Callable[..., list[Row]]) -> None:
    panel = times(PANEL)
    others = {f"other{number}-ml": {64: 1.0, 784: 2.0} for number in range(30)}
    series = times({**PANEL, **others}, cell="series", experiment="asv", started_at="2026-01-01T00:00:00+00:00")
    for name in ("speed", "cubic", "scaling"):
        verdict, evidence = CLAIM[name].weigh(frame(panel))
        again, found = CLAIM[name].weigh(frame([*panel, *series]))
        assert (again, [one.short for one in found]) == (verdict, [one.short for one in evidence])


def test_without_a_family_there_is_no_verdict(times: Callable[..., list[Row]]) -> None:
    for dropped in (
        ["ebflow-ml"],
        ["nflows-lu-ml"],
        ["ebflow-aml", "relative-gradient-ml"],
        ["ebflow-dsm", "ebflow-ssm"],
    ):
        rows = times({method: curve for method, curve in PANEL.items() if method not in dropped})
        assert CLAIM["speed"].weigh(frame(rows))[0] is Verdict.UNMEASURED
    # One of two of a family is replaced by the other.
    rows = times({method: curve for method, curve in PANEL.items() if method != "relative-gradient-ml"})
    verdict, evidence = CLAIM["speed"].weigh(frame(rows))
    assert verdict is Verdict.MIXED
    assert "ebflow-aml takes 0.88 times" in evidence[1].short


def test_compiled_timings_are_another_method(times: Callable[..., list[Row]]) -> None:
    compiled = stored_config("runtime", config={"compile": True})
    assert outcomes("speed", times({"ebflow-ml": {784: 8.0}, "ebflow-dsm": {784: 1.0}}, config=compiled)) == []


@pytest.mark.parametrize(
    ("matched", "likelihood", "outcome"), [(2, 3, "for"), (2, 2.4, "partly"), (2.5, 3, "partly"), (2, 2, "against")]
)
def test_slopes(times: Callable[..., list[Row]], matched: float, likelihood: float, outcome: str) -> None:
    sizes = (784, 1600, 3072)
    rows = times({"ebflow-dsm": {d: d**matched for d in sizes}, "ebflow-ml": {d: d**likelihood for d in sizes}})
    (found,) = compared("scaling", rows)
    assert found.outcome == outcome
    assert f"D to the power {matched:.2f}, of ebflow-ml {likelihood:.2f}" in found.text
    # Two sizes are no slope, and small ones say nothing.
    assert compared("scaling", [row for row in rows if row.D != 784]) == []
    assert compared("scaling", times({"ebflow-dsm": {8: 1, 16: 2, 32: 4}, "ebflow-ml": {8: 1, 16: 2, 32: 4}})) == []


def test_slopes_in_depth(times: Callable[..., list[Row]]) -> None:
    rows = [row for depth in (1, 2, 4) for row in times({"ebflow-dsm": {784: 0.1 * depth**1.5}}, L=depth)]
    (found,) = compared("scaling", rows)
    assert (found.outcome, "L to the power 1.50" in found.text) == ("against", True)


def test_parity(trained: Callable[..., list[Row]]) -> None:
    bar = trained("gaussian", 1093.0)
    ml = trained("ebflow-ml", 1000.0)
    assert outcomes("parity", bar + ml + trained("ebflow-dsm", 1007.0)) == ["for"]
    (found,) = compared("parity", bar + ml + trained("ebflow-dsm", 1050.0))
    assert found.outcome is Outcome.AGAINST
    assert "ebflow-dsm 1,050.0 nats after 500 steps, ebflow-ml, the best maximum likelihood, 1,000.0 nats" in found.text
    assert "+50.00 nats or +0.064 a dimension" in found.text
    assert set(found.cells) == {"gaussian-True-True", "ebflow-ml-True-True", "ebflow-dsm-True-True"}
    # Other recipes are another claim, and the strongest opponent need not be ours, nor compute a determinant.
    assert outcomes("tuned-parity", bar + ml + trained("ebflow-dsm", 1007.0)) == []
    (found,) = compared("parity", bar + ml + trained("ebflow-dsm", 1007.0) + trained("zuko-dense-aml", 990.0))
    assert (found.outcome, "zuko-dense-aml" in found.text) == (Outcome.AGAINST, True)
    restricted = trained("nflows-lu-ml", 900.0, linear="lu")
    assert outcomes("parity", bar + ml + trained("ebflow-dsm", 1007.0) + restricted) == ["for"]
    # Two objectives with one number have both kept the start that they share.
    assert outcomes("parity", bar + ml + trained("ebflow-dsm", 1000.0)) == ["open"]


def test_parity_is_of_seeds_that_both_have(trained: Callable[..., list[Row]]) -> None:
    def seeds(method: str, values: dict[int, float | None]) -> list[Row]:
        rows = []
        for seed, value in values.items():
            bad = {"status": "diverged", "reason": "at step 7"} if value is None else {}
            rows += trained(method, value, seed=seed, cell=f"{method}-{seed}", **bad)
        return rows

    bar = trained("gaussian", 1093.0)
    ml = seeds("ebflow-ml", {0: 1000.0, 1: 1010.0, 2: 990.0})
    (found,) = compared("parity", bar + ml + seeds("ebflow-dsm", {0: 1005.0, 1: 1016.0, 2: 994.0}))
    assert found.outcome is Outcome.FOR
    assert "+5.00 (+2.52 to +7.48, 3 seeds) nats" in found.text
    (found,) = compared("parity", bar + ml + seeds("ebflow-dsm", {7: 1005.0}))
    assert (found.outcome, "have no seed in common" in found.text) == (Outcome.OPEN, True)
    # Survivors do not decide, whichever side lost a seed.
    (found,) = compared("parity", bar + ml + seeds("ebflow-dsm", {0: 1005.0, 1: None, 2: None}))
    assert found.outcome is Outcome.OPEN
    assert "2 of 3 seeds of ebflow-dsm diverged (at step 7)" in found.text
    (found,) = compared("parity", bar + seeds("ebflow-ml", {0: 1100.0, 1: None}) + seeds("ebflow-dsm", {0: 1000.0}))
    assert (found.outcome, "ebflow-ml diverged" in found.text) == (Outcome.OPEN, True)


def test_numbers_of_two_versions_are_not_compared(trained: Callable[..., list[Row]]) -> None:
    rows = frame(trained("gaussian", 1093.0) + trained("ebflow-ml", 1000.0) + trained("ebflow-dsm", 1050.0))
    assert [str(one.outcome) for one in CLAIM["parity"].compare(rows)] == ["against"]
    mixed = rows.with_columns(project=pl.when(method="ebflow-dsm").then(pl.lit("0.0.1")).otherwise("project"))
    assert CLAIM["parity"].compare(mixed) == []


def test_networks_of_another_depth_or_activation_are_not_compared(trained: Callable[..., list[Row]]) -> None:
    rows = frame(
        trained("gaussian", 1093.0)
        + trained("ebflow-ml", 1000.0, L=2)
        + trained("ebflow-ml", 900.0, L=8, cell="deep")
        + trained("ebflow-dsm", 1001.0, L=2)
    )
    (found,) = CLAIM["parity"].compare(rows)
    assert (found.outcome, found.short) == ("for", "mnist fc paper, L = 2: ebflow-dsm ends 1.0 nats above ebflow-ml")
    residual = rows.with_columns(residual=pl.col("method") == "ebflow-dsm")
    assert CLAIM["parity"].compare(residual) == []
    (found,) = CLAIM["parity"].compare(rows.with_columns(residual=True, project=pl.lit("0.3.0")))
    assert found.text.startswith("mnist, fc, recipe paper, L = 2 residual, version 0.3.0: ebflow-dsm 1,001.0 nats")


def test_parity_of_what_was_cut_short(trained: Callable[..., list[Row]]) -> None:
    bar = trained("gaussian", 1093.0)
    # The loser may still improve, the winner needs not.
    assert outcomes("parity", bar + trained("ebflow-ml", 1000.0) + trained("ebflow-dsm", 1050.0, **SHORT)) == ["open"]
    short = trained("ebflow-ml", 1000.0, **SHORT)
    assert outcomes("parity", bar + short + trained("ebflow-dsm", 1050.0)) == ["against"]
    assert outcomes("parity", bar + short + trained("ebflow-dsm", 990.0)) == ["partly"]
    # One that was cut short sooner than the winner was not heard.
    longer = [
        replace(row, value=9000.0) if row.metric == "training_iterations" else row
        for row in trained("ebflow-dsm", 990.0)
    ]
    assert outcomes("parity", bar + short + longer) == ["open"]
    # Above the Gaussian nothing has been learned.
    assert outcomes("parity", bar + trained("ebflow-ml", 1200.0) + trained("ebflow-dsm", 1200.0)) == ["open"]
    assert outcomes("parity", trained("ebflow-ml", 1000.0) + trained("ebflow-dsm", 1000.0)) == ["open"]


def test_the_time_to_a_level(trained: Callable[..., list[Row]], times: Callable[..., list[Row]]) -> None:
    def falling(method: str, nll: dict[int, float], **changes: Any) -> list[Row]:
        (row, steps) = trained(method, min(nll.values()), **changes)
        curve = [replace(row, metric="validation_curve", value=value, iteration=step) for step, value in nll.items()]
        return [row, steps, *curve]

    each = times({"ebflow-dsm": {784: 1.0}, "ebflow-ml": {784: 2.0}, "ebflow-aml": {784: 0.5}})
    ml = falling("ebflow-ml", {1000: 1200.0, 1900: 1150.0, 2000: 1100.0})
    dsm = falling("ebflow-dsm", {1000: 1200.0, 3000: 1100.0})
    (found,) = compared("level", [*each, *ml, *dsm])
    assert (found.outcome, found.kind) == (Outcome.FOR, "dsm")  # 3,000 s at the latest, against 3,800 at the soonest
    assert "by ebflow-dsm between 1,000 and 3,000 s (3,000 steps of 1,000.0 ms)" in found.text
    assert "by ebflow-ml between 3,800 and 4,000 s" in found.text
    # Looks that are too far apart do not tell.
    rarely = falling("ebflow-ml", {1000: 1200.0, 2000: 1100.0})
    assert outcomes("level", [*each, *rarely, *dsm]) == ["open"]
    aml = falling("ebflow-aml", {1000: 1200.0, 2000: 1100.0})
    (found,) = compared("level", [*each, *ml, *dsm, *aml])
    assert (found.outcome, "ebflow-aml between 500 and 1,000 s" in found.text) == (Outcome.AGAINST, True)
    # Timed with a refresh every 10 steps, of 2.3 s where others take 0.3, and trained with one at every step.
    timed = next(row for row in each if (row.method, row.metric) == ("ebflow-aml", "seconds_per_iteration"))
    period = [
        replace(timed, metric=name, value=value)
        for name, value in (("steps_per_refresh", 10.0), ("seconds_of_refresh_step", 2.3))
    ]
    always, rare = (
        [*aml, *(replace(aml[0], metric="refreshes", value=share * step, iteration=step) for step in (1000, 2000))]
        for share in (1.0, 0.1)
    )
    (found,) = compared("level", [*each, *period, *ml, *dsm, *always])
    assert (found.outcome, "by ebflow-ml between 3,800 and 4,000 s" in found.text) == (Outcome.FOR, True)
    (found,) = compared("level", [*each, *period, *dsm, *always])
    assert "ebflow-aml between 2,300 and 4,600 s (2,000 steps of 2,300.0 ms)" in found.text
    (found,) = compared("level", [*each, *period, *ml, *dsm, *rare])
    assert "ebflow-aml between 500 and 1,000 s (2,000 steps of 500.0 ms)" in found.text
    # A deeper network is another one, and so is what another version trained.
    deep = falling("ebflow-aml", {1000: 1200.0, 2000: 1100.0}, L=8, cell="deep")
    assert outcomes("level", [*each, *ml, *dsm, *deep]) == ["for"]
    old = frame([*each, *ml, *dsm, *aml]).with_columns(
        project=pl.when(method="ebflow-aml").then(pl.lit("0.0.1")).otherwise(pl.lit("0.0.2"))
    )
    (found,) = CLAIM["level"].compare(old)
    assert (found.outcome, found.text[:46]) == ("for", "mnist fc, recipe paper, version 0.0.2: a valid")
    never = falling("ebflow-dsm", {1000: 1200.0, 3000: 1150.0})
    assert outcomes("level", [*each, *ml, *never]) == ["against"]
    short = falling("ebflow-dsm", {1000: 1200.0, 3000: 1150.0}, **SHORT)
    assert outcomes("level", [*each, *ml, *short]) == ["open"]
    # Without the seconds of an iteration nothing is said, nor with those of two machines.
    assert outcomes("level", [*ml, *dsm]) == []
    faster = times({"ebflow-ml": {784: 0.1}, "ebflow-aml": {784: 0.1}}, cell="new", cpu="another")
    assert outcomes("level", [*each, *faster, *ml, *dsm]) == ["for"]


def test_what_was_cut_short_is_a_fact_of_the_row(trained: Callable[..., list[Row]]) -> None:
    rows = trained("gaussian", 1093.0) + trained("ebflow-ml", 1000.0) + trained("ebflow-dsm", 1050.0)
    short = frame(rows).with_columns(shortened=pl.col("method") == "ebflow-dsm")
    assert [str(one.outcome) for one in CLAIM["parity"].compare(short)] == ["open"]


def norms(rows: list[Row], value: float) -> list[Row]:
    return [*rows, replace(rows[0], metric="gradient_norm", value=value)]


def test_matching_after_preprocessing(trained: Callable[..., list[Row]]) -> None:
    good = norms(trained("ebflow-ssm", 1000.0), 0.5)
    assert outcomes("map", good + norms(trained("ebflow-ssm", 1500.0, preprocess=False), 50.0)) == ["for"]
    assert outcomes("map", good + norms(trained("ebflow-ssm", 1500.0, preprocess=False), 1.0)) == ["partly"]
    assert outcomes("map", good + trained("ebflow-ssm", 1050.0, preprocess=False)) == ["partly"]  # 0.06 a dimension
    assert outcomes("map", good + trained("ebflow-ssm", 900.0, preprocess=False)) == ["against"]
    failed = trained("ebflow-ssm", None, preprocess=False, status="diverged", reason="at step 1")
    (found,) = compared("map", good + failed)
    assert found.outcome is Outcome.OPEN
    assert "diverged without MaP (at step 1)" in found.text


def test_averaged_weights(trained: Callable[..., list[Row]]) -> None:
    off = trained("ebflow-ssm", 1000.0, ema=False)
    assert outcomes("ema", trained("ebflow-ssm", 990.0) + off) == ["for"]
    assert outcomes("ema", trained("ebflow-ssm", 1010.0) + off) == ["against"]
    quick = {"profile": "quick"}
    short = trained("ebflow-ssm", 1000.0, ema=False, **quick)
    assert outcomes("ema", trained("ebflow-ssm", 1010.0, **quick) + short) == ["open"]
    assert outcomes("ema", trained("ebflow-ssm", 990.0, **quick) + short) == ["partly"]
    # What another experiment trained is no control.
    assert outcomes("ema", trained("ebflow-ssm", 990.0, experiment="other") + off) == []


def test_matrices(trained: Callable[..., list[Row]]) -> None:
    data = {"dataset": "multimodal10", "architecture": "multimodal", "ema": False}
    full = trained("ebflow-full-ml", 46.0, **data)
    assert outcomes("matrices", full + trained("ebflow-lu-ml", 50.0, linear="lu", **data)) == ["for"]
    assert outcomes("matrices", full + trained("ebflow-upper-ml", 45.0, linear="upper", **data)) == ["against"]
    # Far from the data nothing is said.
    far = [replace(row, metric="kl", value=42.0, D=10) for row in full if row.metric == "nll"]
    full, lu = (
        [replace(row, D=10) for row in rows] for rows in (full, trained("ebflow-lu-ml", 50.0, linear="lu", **data))
    )
    assert outcomes("matrices", [*full, *far, *lu]) == ["open"]


def test_glow(trained: Callable[..., list[Row]]) -> None:
    data = {"architecture": "glow"}
    assert outcomes("glow", trained("ebflow-ssm", 730.0, **data)) == ["for"]
    assert outcomes("glow", trained("ebflow-ssm", 800.0, **data)) == ["against"]
    assert outcomes("glow", trained("ebflow-ssm", 800.0, **SHORT, **data)) == ["open"]
    assert outcomes("glow", trained("ebflow-ml", 700.0, **data)) == ["open"]  # it says nothing of score matching


def test_points(trained: Callable[..., list[Row]]) -> None:
    data = {"dataset": "sine", "architecture": "toy", "metric": "kl", "D": 2}
    ml = trained("ebflow-ml", 0.05, **data)
    assert outcomes("points", ml + trained("ebflow-dsm", 0.065, **data)) == ["for"]
    assert outcomes("points", ml + trained("ebflow-dsm", 0.5, **data)) == ["against"]


def test_log_z(make_row: Callable[..., Row]) -> None:
    def error(name: str, size: int, value: float) -> Row:
        return make_row(cell=f"z{size}", metric=f"log_z_error_{name}", D=size, value=value, unit="nats")

    assert outcomes("log-z", [error("bridge", 2, 0.1), error("bridge", 64, 0.2)]) == ["for"]
    (found,) = compared("log-z", [error("prior", 2, 0.125), error("prior", 64, 18.5)])
    assert found.outcome is Outcome.PARTLY
    assert "0.125 nats at D = 2 and 18.5 nats at D = 64; below 1 nat at 1 of 2" in found.text
    assert found.cells == ("z2", "z64")
    assert outcomes("log-z", [error("prior", 64, 18.0)]) == ["against"]


@pytest.mark.parametrize(("gain", "outcome"), [(2.5, "for"), (2.05, "partly"), (1.5, "partly"), (-1.0, "open")])
def test_imputation(make_row: Callable[..., Row], gain: float, outcome: str) -> None:
    config = stored_config("imputation", origin={"shortened": True})
    ends = {"ci_low": gain - 0.1, "ci_high": gain + 0.1}
    row = make_row(metric="psnr_gain", value=gain, unit="dB", config=config, profile="quick", dataset="mnist", **ends)
    assert outcomes("imputation", [row]) == [outcome]


def test_rows_of_unknown_things_are_no_error(make_row: Callable[..., Row]) -> None:
    strange = {"dataset": "?", "architecture": "?", "recipe": "?", "config": "no JSON", "metric": "nll"}
    rows = frame([make_row(**strange), make_row(**{**strange, "metric": "seconds_per_iteration"})])
    assert [claim.weigh(rows)[0] for claim in CLAIMS] == [Verdict.UNMEASURED] * len(CLAIMS)
