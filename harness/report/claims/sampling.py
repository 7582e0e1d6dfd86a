"""What comes after training: log Z, once, and missing pixels."""

from __future__ import annotations

import polars as pl

from harness.report.claims.evidence import Evidence, Outcome, keys, shortened
from harness.report.tables.columns import is_of_kind
from harness.report.tables.runtime import newest
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


def normalizer(rows: pl.DataFrame) -> list[Evidence]:
    """Models trained without log Z that were scored with it afterwards, and how far its estimates are off."""
    found = []
    matched = rows.filter(
        pl.col("metric") == "nll", pl.col("status") == "ok", pl.col("method").is_in(["ebflow-ssm", "ebflow-dsm"])
    )
    if not matched.is_empty():
        text = (
            f"{matched.height:,} trainings by SSM or DSM, which never compute log Z, ended with an exact test NLL: "
            "log Z was computed afterwards, from the linear layers' determinants."
        )
        short = f"{matched.height:,} trainings scored exactly afterwards"
        found.append(Evidence(Outcome.FOR, short, text, keys(matched["cell"].to_list())))
    estimates = newest(rows.filter(pl.col("metric").str.contains("^(log_z_error|ess)_"), pl.col("status") == "ok"))
    for name, described in _ESTIMATORS.items():
        errors = estimates.filter(metric=f"log_z_error_{name}").sort("D")
        if errors.is_empty():
            continue
        fine = errors.filter(pl.col("value") < ERROR)
        outcome = Outcome.FOR if fine.height == errors.height else Outcome.PARTLY if fine.height else Outcome.AGAINST
        effective = dict(estimates.filter(metric=f"ess_{name}").select("D", "value").rows())
        ends = [errors.row(0, named=True), errors.row(-1, named=True)]
        told = " and ".join(
            f"{text_of(row['value'])} nats at D = {row['D']:,}"
            + (f" ({effective[row['D']]:,.0f} effective draws)" if row["D"] in effective else "")
            for row in ends[: errors.height]
        )
        upto = f"below {ERROR:g} nat at {fine.height} of {errors.height} measured D"
        short = f"{name}: {upto}"
        found.append(Evidence(outcome, short, f"{described}: error {told}; {upto}.", keys(errors["cell"].to_list())))
    return found


def imputation(rows: pl.DataFrame) -> list[Evidence]:
    """PSNR of the missing pixels: the mean over the chain beside the mean image and the Gaussian's conditional mean."""
    kind = is_of_kind("ImputationCell")
    own = newest(rows.filter(kind, pl.col("method").str.starts_with("ebflow-")))
    found = []
    for (dataset, method, recipe, cell), group in own.group_by(
        ["dataset", "method", "recipe", "cell"], maintain_order=True
    ):
        values = dict(group.filter(status="ok").select("metric", "value").rows())
        gain = values.get("psnr_gain")
        if gain is None:
            continue
        if gain >= GAIN:
            outcome = Outcome.FOR
        elif gain > 0:
            outcome = Outcome.PARTLY
        else:
            outcome = Outcome.OPEN if shortened(group)[0] else Outcome.AGAINST
        told = [
            f"{name} {text_of(values[metric])} dB"
            for metric, name in (
                ("psnr_posterior_mean", "mean over the chain"),
                ("psnr_last_iterate", "last iterate"),
                ("psnr_mean_image", "mean image"),
                ("psnr_gaussian", "a Gaussian's conditional mean"),
            )
            if metric in values
        ]
        text = f"{dataset}, {method}, recipe {recipe}: gain over the mean image {text_of(gain)} dB; {', '.join(told)}."
        short = f"{text_of(gain)} dB better than the mean image ({method})"
        found.append(Evidence(outcome, short, text, (cell,)))
    return found
