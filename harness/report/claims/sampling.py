"""What comes after training: log Z, once, and missing pixels."""

from __future__ import annotations

import polars as pl

from harness.report.claims.evidence import Evidence, Outcome, keys
from harness.report.tables.comparison import newest
from harness.report.tables.text import text_of

ERROR = 1.0
"""An estimate of log Z is of use while its mean absolute error is below so many nats."""
GAIN = 2.0
"""How many dB better than the mean image the filled-in pixels should be."""

_ESTIMATORS = {
    "prior": "importance sampling from N(0, I), the paper's",
    "gaussian": "importance sampling from a Gaussian fitted to the data",
    "bridge": "bridge sampling with the model's own samples",
}
_IMPUTED = {
    "psnr_posterior_mean": "mean over the chain",
    "psnr_last_iterate": "last iterate",
    "psnr_mean_image": "mean image",
    "psnr_gaussian": "a Gaussian's conditional mean",
}


def normalizer(rows: pl.DataFrame) -> list[Evidence]:
    """Count the models trained without log Z and scored with it afterwards; weigh how far its estimates are off."""
    evidence = []
    matched = rows.filter(pl.col("method").is_in(["ebflow-ssm", "ebflow-dsm"]), metric="nll", status="ok")
    if not matched.is_empty():
        text = (
            f"{matched.height:,} trainings by SSM or DSM, which never compute log Z, ended with an exact test NLL: "
            "log Z was computed afterwards, from the linear layers' determinants."
        )
        short = f"{matched.height:,} trainings scored exactly afterwards"
        evidence.append(Evidence(Outcome.FOR, short, text, keys(matched["cell"]), "identity"))
    estimates = newest(rows.filter(pl.col("metric").str.contains("^(log_z_error|ess)_"), pl.col("status") == "ok"))
    for name, described in _ESTIMATORS.items():
        errors = estimates.filter(metric=f"log_z_error_{name}").sort("D")
        if errors.is_empty():
            continue
        fine = (errors["value"] < ERROR).sum()
        outcome = Outcome.FOR if fine == errors.height else Outcome.PARTLY if fine else Outcome.AGAINST
        effective = dict(estimates.filter(metric=f"ess_{name}").select("D", "value").rows())
        at_ends = []
        for size, error in errors.select("D", "value").rows()[:: max(errors.height - 1, 1)]:
            draws = f" ({effective[size]:,.0f} effective draws)" if size in effective else ""
            at_ends.append(f"{text_of(error)} nats at D = {size:,}{draws}")
        share = f"below {ERROR:g} nat at {fine} of {errors.height} measured D"
        text = f"{described}: error {' and '.join(at_ends)}; {share}."
        evidence.append(Evidence(outcome, f"{name}: {share}", text, keys(errors["cell"]), "estimate"))
    return evidence


def imputation(rows: pl.DataFrame) -> list[Evidence]:
    """Weigh how much better the mean over the chain fills in missing pixels than the mean image."""
    own = newest(rows.filter(pl.col("method").str.starts_with("ebflow-"), kind="imputation"))
    evidence = []
    runs = ["dataset", "method", "recipe", "cell", "shortened"]
    for (dataset, method, recipe, cell, shortened), group in own.group_by(runs, maintain_order=True):
        fine = group.filter(status="ok")
        values = dict(fine.select("metric", "value").rows())
        gain = values.get("psnr_gain")
        if gain is None:
            continue
        if gain > 0:
            (least,) = fine.filter(metric="psnr_gain").select(pl.coalesce("ci_low", "value")).to_series()[:1]
            outcome = Outcome.FOR if least >= GAIN else Outcome.PARTLY
        else:
            outcome = Outcome.OPEN if shortened else Outcome.AGAINST
        numbers = [f"{name} {text_of(values[metric])} dB" for metric, name in _IMPUTED.items() if metric in values]
        gained = f"gain over the mean image {text_of(gain)} dB"
        text = f"{dataset}, {method}, recipe {recipe}: {gained}; {', '.join(numbers)}."
        short = f"{text_of(gain)} dB better than the mean image ({method})"
        evidence.append(Evidence(outcome, short, text, (str(cell),)))
    return evidence
