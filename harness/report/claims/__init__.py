"""The paper's claims in its order, each with the rule by which rows of results decide it.

`results/README.md` is the reading by hand; what is here is computed, from whatever rows there are.
"""

from __future__ import annotations

from harness.methods.families import EXACT, FREE, RESTRICTED
from harness.report.claims import evidence, sampling, speed, trainings
from harness.report.claims.evidence import QUESTIONS, VERDICT_RULE, Claim, Evidence, Outcome, Verdict, judge, telling

__all__ = ["CLAIMS", "QUESTIONS", "VERDICT_RULE", "Claim", "Evidence", "Outcome", "Verdict", "judge", "telling"]

_PARITY_RULE = (
    "Each objective of score matching is compared with the lowest maximum likelihood of any dense layers, over the "
    f"seeds that both have. For: its test NLL is at most {trainings.PARITY:g} nats a dimension above. A comparison is "
    f"open while neither has come within {trainings.TRAINED:g} nats a dimension of one Gaussian in closed form: before "
    "that, the network has learned less than a mean and a covariance. Equal numbers are open: both kept one start."
)

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "speed",
        "An iteration of score matching takes less time than one of maximum likelihood.",
        "On a GPU, fc: 8 times (MNIST) and 11 times (CIFAR-10) by DSM; cnn: 87 and 920 times, against determinants "
        "taken on the CPU.",
        "The fastest score matching of dense layers is compared with the fastest method of each family that maximises "
        "the likelihood: exact dense (a determinant or inverse at every step), determinant-free dense (amortised, "
        "relative gradient, self-normalizing) and restricted matrices (LU, QR, SVD). Methods are compared inside one "
        f"run, where they take turns, over at least {speed.PAIRS} repetitions; of several runs of a problem the one "
        f"with most methods counts, and none that times less than {speed.FULL:.0%} of the methods of the fullest. For: "
        f"score matching is faster at every measured D from {speed.LARGE} on, at p < 0.05 corrected for all pairs of "
        "the two families. Partly: it is faster at the largest D. Against: it is not faster there.",
        ("harness runtime --dims 64,256,784,1600,3072", "harness runtime --architecture cnn --dims 784"),
        speed.speedup,
        kinds=(EXACT, FREE, RESTRICTED),
        short="An iteration of score matching is faster",
        published_short="8 times (MNIST), 11 (CIFAR-10), on a GPU",
        question=evidence.FASTER,
        figure="headline",
    ),
    Claim(
        "cubic",
        "Score matching is needed to train unrestricted linear layers without their cubic cost.",
        "The paper compares with maximum likelihood that computes every determinant at every step.",
        "Time is compared in the runs of the first claim. For: the fastest score matching is faster at the largest D "
        "than the fastest likelihood training of such layers that does not compute a determinant at every step "
        f"(amortised, relative gradient, self-normalizing). Against: it is at no D from {speed.LARGE} on. Partly: it "
        "is at some, but not at the largest. Likelihood is compared where both trainings are of one length. Against: "
        f"amortised maximum likelihood ends at most {trainings.AMORTISED:g} nats a dimension above the exact one, and "
        "not above score matching. For: it ends higher.",
        (
            "harness runtime --dims 64,256,784,1600,3072",
            "harness runtime --architecture cnn --dims 784",
            "harness reproduce amortised-mnist-fc --profile paper --epochs 20",
            "harness reproduce tuned-digits-fc tuned-patches-fc --profile paper",
            "harness reproduce amortised-digits-fc amortised-mnist-cnn --profile paper",
        ),
        lambda rows: [*speed.without_matching(rows), *trainings.without_matching(rows)],
        kinds=("time", "likelihood"),
        short="Only score matching avoids the cubic cost",
        published_short="every determinant is computed",
        question=evidence.USE,
        figure="amortised-mnist-fc-*-nll",
    ),
    Claim(
        "level",
        "Score matching reaches a given likelihood sooner than maximum likelihood.",
        "Figure 2(b), on a GPU: on MNIST, fc, DSM reaches 2.05 bits/dim in 0.19 h, SSM in 0.24 h, ML in 0.47 h.",
        "The time is the number of steps to a level of the validation NLL times the seconds of an iteration in the "
        "fullest run of timings of the same network. Each objective of score matching is compared with the soonest "
        "likelihood training of dense layers, by the same recipe. For: it is sooner. Against: it is later, or never "
        "gets there. A comparison is open where the looks before and at the level do not tell. Steps and seconds may "
        "be of two versions of this project.",
        (
            "harness runtime --dims 784,3072",
            "harness reproduce amortised-mnist-fc tuned-mnist-fc smooth-mnist-fc --profile paper --epochs 20",
            "harness reproduce table2-mnist-fc table2-cifar10-fc --profile paper --seeds 1",
        ),
        speed.to_level,
        kinds=("dsm", "ssm"),
        short="Score matching reaches a likelihood sooner",
        published_short="2.05 bits/dim: DSM 0.19 h, SSM 0.24 h, ML 0.47 h",
        question=evidence.FASTER,
        figure="amortised-mnist-fc-*-nll",
    ),
    Claim(
        "scaling",
        "The time of score matching grows as D²L, that of maximum likelihood as D³L.",
        "The paper states complexities; its curves have slopes of 1.45 to 2.3 for maximum likelihood.",
        f"Slopes of log time over log D are taken over at least {speed.POINTS} sizes from D = {speed.LARGE} on. "
        f"For: the slope is at most {2 + speed.SLOPE:g} by score matching and at least {3 - 2 * speed.SLOPE:g} by "
        "maximum likelihood with every determinant, whose products of the batch are D². "
        f"Partly: the slopes are at least {speed.SLOPE:g} apart. Against: amortised maximum likelihood grows slower "
        f"than the exact one by that much. The slope in L counts for the claim within {speed.SLOPE:g} of 1.",
        ("harness runtime --dims 784,1600,3072", "harness runtime --dims 784 --layers 2,4,8,16"),
        speed.scaling,
        kinds=("D", "L", FREE),
        short="Time grows as D²L by score matching, as D³L by ML",
        published_short="ML: slopes of 1.45 to 2.3",
        question=evidence.FASTER,
        figure="runtime-*-fc-L2-seconds-over-D",
    ),
    Claim(
        "parity",
        "As published, score matching ends at the likelihood that maximum likelihood ends at.",
        "MNIST, fc: ML 1092.4, SSM 1092.8, DSM 1099.2, FDSSM 1104.1 nats; one Gaussian in closed form has 1093.8.",
        f"Both are trained on the same network and data by the recipe paper. {_PARITY_RULE}",
        ("harness reproduce table2-mnist-fc digits-fc --profile paper --seeds 1",),
        lambda rows: trainings.parity(rows, "paper"),
        kinds=("mnist",),
        short="As published, score matching reaches the NLL of ML",
        published_short="MNIST: ML 1092.4, DSM 1099.2 nats",
        question=evidence.AS_GOOD,
        figure="table2-mnist-fc-*-likelihood",
    ),
    Claim(
        "tuned-parity",
        "Once both are trained well, score matching ends at the likelihood that maximum likelihood ends at.",
        "Nothing is published: the paper's networks end near one Gaussian.",
        f"Both are trained on the same network and data by the recipe tuned. {_PARITY_RULE}",
        (
            "harness reproduce tuned-mnist-fc tuned-digits-fc depth-digits-fc tuned-patches-fc --profile paper",
            "harness reproduce amortised-mnist-fc --profile paper --epochs 20",
        ),
        lambda rows: trainings.parity(rows, "tuned"),
        kinds=("mnist",),
        short="Trained well, score matching reaches the NLL of ML",
        published_short="no number",
        question=evidence.AS_GOOD,
        figure="tuned-mnist-fc-*-likelihood",
    ),
    Claim(
        "map",
        "Matching after preprocessing (MaP) lowers the NLL, and the gradient norm by orders of magnitude.",
        "MNIST, fc, SSM: 1720.5 nats without MaP, 1092.8 with it; gradient norms of 60 to 110 against below 1.",
        "Trainings of one experiment are compared, all else equal. For: the NLL is at least "
        f"{trainings.GAP:g} nats a dimension higher without MaP, and the median gradient norm, where it was kept, at "
        f"least {trainings.NORMS:g} times larger. Partly: the NLL is higher without MaP. Against: it is not.",
        ("harness reproduce table4-mnist-fc --profile paper --seeds 1 --methods ebflow-ssm --epochs 10",),
        trainings.matching,
        short="Preprocessing before matching (MaP) lowers the NLL",
        published_short="SSM 1720.5 without, 1092.8 with",
        question=evidence.USE,
        figure="table4-mnist-fc-*-ablation",
    ),
    Claim(
        "ema",
        "Averaged weights (EMA) lower the NLL.",
        "MNIST, fc, SSM without MaP: 1757.5 nats without EMA, 1720.5 with it.",
        "Trainings of one experiment are compared, all else equal. For: the NLL is lower with EMA.",
        ("harness reproduce table4-mnist-fc --profile paper --seeds 1 --methods ebflow-ssm --epochs 10",),
        trainings.averaging,
        short="Averaged weights (EMA) lower the NLL",
        published_short="SSM 1757.5 without, 1720.5 with",
        question=evidence.USE,
        figure="table4-mnist-fc-*-ablation",
    ),
    Claim(
        "matrices",
        "Linear layers of any form fit better than triangular and LU ones.",
        "Figure A4, on a 10-D multimodal density; its curves could not be obtained.",
        "Network and recipe are the same. For: full matrices end at a lower NLL than the restricted ones. A comparison "
        f"is open while both are more than {trainings.FITTED:g} nats a dimension of KL divergence from the data.",
        ("harness reproduce figure-a4-matrices --profile paper --seeds 1",),
        trainings.matrices,
        short="Matrices of any form fit better than triangular and LU ones",
        published_short="curves alone",
        question=evidence.USE,
        figure="*-multimodal10-multimodal*-divergence",
    ),
    Claim(
        "log-z",
        "The normalizing constant Z can be computed once, after training.",
        "The paper states an identity, to be estimated by importance sampling; no number is published.",
        "For: models trained without log Z were scored exactly; and, for each way to estimate log Z, the mean absolute "
        f"error is below {sampling.ERROR:g} nat at every measured D. Partly: it is so at some D.",
        ("harness reproduce log-z --profile paper",),
        sampling.normalizer,
        kinds=("identity", "estimate"),
        short="log Z can be computed once, after training",
        published_short="no number",
        question=evidence.AFTER,
    ),
    Claim(
        "imputation",
        "The score fills in missing pixels by Langevin dynamics.",
        "The paper shows filled-in training images; no number is published.",
        f"For: the mean over the chain is at least {sampling.GAIN:g} dB better than the mean image, interval included. "
        "Partly: it is better.",
        ("harness reproduce imputation-mnist --profile paper --seeds 1",),
        sampling.imputation,
        short="The score fills in missing pixels",
        published_short="no number",
        question=evidence.AFTER,
        figure="imputation-mnist-*-imputation",
    ),
    Claim(
        "glow",
        "Glow reaches 728 nats on MNIST by score matching.",
        "728 nats in pixel space, for SSM with 32 blocks.",
        f"For: score matching ends at most {trainings.PARITY:g} nats a dimension above 728 nats. Against: it ends "
        "higher. Maximum likelihood decides nothing.",
        (
            "harness train --method ebflow-ml --architecture glow --dataset mnist --recipe tuned --layers 8 --epochs 6 "
            "--draws 3",
        ),
        trainings.glow,
        short="Glow reaches 728 nats on MNIST by score matching",
        published_short="728 nats",
        question=evidence.AS_GOOD,
    ),
    Claim(
        "points",
        "On 2-D sets score matching is on par with maximum likelihood.",
        "The paper claims it for the sine, the swirl and the checkerboard; its numbers could not be obtained.",
        "Network, data and recipe are the same. For: the KL divergence from the exact density is at most "
        f"{trainings.PARITY:g} nats a dimension above the lowest of maximum likelihood.",
        ("harness reproduce tuned-2d --profile paper --seeds 1",),
        trainings.points,
        kinds=tuple(f"{name} {objective}" for name in trainings.POINT_SETS for objective in ("ssm", "dsm", "fdssm")),
        short="On 2-D sets score matching is on par with ML",
        published_short="no number",
        question=evidence.AS_GOOD,
        figure="tuned-2d-*-sine-*-density",
    ),
)
