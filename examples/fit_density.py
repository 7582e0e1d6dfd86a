"""Fit a 2-D density by score matching, and draw it beside the exact one: python examples/fit_density.py."""

import argparse

import matplotlib.pyplot as plt
import torch

import ebflow
from harness import datasets
from harness.datasets.densities import NOISE_STD

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=5000)
parser.add_argument("--output", default="density.png")
arguments = parser.parse_args()

torch.manual_seed(0)
data = datasets.load("sine")  # clean points, and the exact density of points with N(0, NOISE_STD^2 I) added
points, test = data.train.float(), data.preprocessing.draw(data.test[:2000])  # the latter with that noise
flow = ebflow.architectures.toy((2,), layers=5)
flow.initialize(points[:5000] + NOISE_STD * torch.randn(5000, 2))  # ActNorm starts from data
objective = ebflow.DSM(sigma=NOISE_STD)  # denoising score matching brings the noise itself
optimizer = torch.optim.Adam(flow.parameters(), lr=1e-3)
for _ in range(arguments.steps):
    loss = objective(flow, points[torch.randint(len(points), (500,))])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

axis = torch.linspace(-10, 10, 100)
grid = torch.cartesian_prod(axis, axis)
with torch.no_grad():  # log Z is computed at the first of these, and kept
    print(f"KL divergence {(data.density.log_prob(test) - flow.log_prob(test)).mean():.3f} nats")
    densities = {"exact": data.density.log_prob(grid).exp(), "learned": flow.log_prob(grid).exp()}
figure, panels = plt.subplots(1, 2, figsize=(8, 4), layout="constrained", sharey=True)
for panel, (name, density) in zip(panels, densities.items(), strict=True):
    panel.pcolormesh(axis.numpy(), axis.numpy(), density.view(100, 100).T.numpy(), vmax=densities["exact"].max())
    panel.set(title=name, aspect="equal")
figure.savefig(arguments.output, dpi=150)
