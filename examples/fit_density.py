"""Fit a 2-D density by score matching and by likelihood, and draw both beside the exact one."""

import argparse

import matplotlib.pyplot as plt
import torch

import ebflow
from harness import datasets

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=2000)
parser.add_argument("--output", default="density.png")
arguments = parser.parse_args()

torch.manual_seed(0)
data = datasets.load("sine")  # points, the noise that smooths their density, and that density
test = data.preprocessing.draw(data.test[:2000])
axis = torch.linspace(-10, 10, 100)
grid = torch.cartesian_prod(axis, axis)
drawn = {"exact": data.density.log_prob(grid)}
# Score matching sees slopes where there are data, and not how much mass lies elsewhere; likelihood sees that too.
for name, objective in {"score matching": ebflow.DSM(sigma=0.1), "likelihood": ebflow.ML()}.items():
    flow = ebflow.architectures.toy((2,), layers=5)
    flow.initialize(data.preprocessing.draw(data.train[:5000]))  # ActNorm starts from data
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-3)
    for _ in range(arguments.steps):
        loss = objective(flow, data.preprocessing.draw(data.train[torch.randint(len(data.train), (500,))]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():  # log Z is computed here, once
        drawn[name] = flow.log_prob(grid)
        print(f"{name}: KL divergence {(data.density.log_prob(test) - flow.log_prob(test)).mean():.3f} nats")
figure, panels = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained", sharey=True)
for panel, (name, log_density) in zip(panels, drawn.items(), strict=True):
    panel.pcolormesh(axis.numpy(), axis.numpy(), log_density.exp().view(100, 100).T.numpy(), vmin=0, vmax=0.035)
    panel.set(title=name, aspect="equal")
figure.savefig(arguments.output, dpi=150)
