"""Fill in the lower half of digits by Langevin dynamics: python examples/impute_pixels.py."""

import argparse

import matplotlib.pyplot as plt
import torch

import ebflow
from harness import datasets

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=1000, help="of the chains")
parser.add_argument("--output", default="imputed.png")
arguments = parser.parse_args()

torch.manual_seed(0)
data = datasets.load("digits")
x = data.preprocessing.draw(torch.cat([data.train] * 20))  # 20 draws of the dequantisation noise
flow = ebflow.architectures.fc(data.shape, layers=2)
ebflow.initialization.from_data(flow, x)  # closed forms alone; train it further by any objective

truth, missing = data.test[:10], torch.zeros(data.shape, dtype=torch.bool)
missing[:, 4:] = True
start = torch.where(missing, x[:10], data.preprocessing.draw(truth))  # the lower halves are those of other digits
options = {"steps": arguments.steps, "step_size": 0.1, "mask": missing}
options["covariance"] = x.flatten(1).T.cov()  # all directions mix alike
options["log_density"] = lambda x: -flow.energy(x)  # steps are accepted or refused; log Z is not needed
draws = torch.stack([data.preprocessing.inverse(x) for x in ebflow.langevin.chain(flow.score, start, **options)])

rows = {"original": truth, "known": truth.where(~missing, 0), "one draw": draws[-1], "mean": draws.mean(0)}
error = (rows["mean"] - truth)[:, missing].square().mean().sqrt()
print(f"the mean is off by {error:.2f} of 16 grey levels (root mean square)")
figure, panels = plt.subplots(len(rows), len(truth), figsize=(10, 4), layout="constrained")
for panel, image in zip(panels.flat, torch.cat(list(rows.values())), strict=True):
    panel.imshow(image[0].numpy(), vmin=0, vmax=16, cmap="gray_r")
    panel.set(xticks=[], yticks=[])
for panel, name in zip(panels[:, 0], rows, strict=True):
    panel.set_ylabel(name)
figure.savefig(arguments.output, dpi=150)
