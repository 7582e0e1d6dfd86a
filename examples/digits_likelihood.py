"""Train on 8 x 8 digits by score matching, then ask for the exact NLL: python examples/digits_likelihood.py."""

import argparse
import math

import torch

import ebflow
from harness import datasets

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=2000)
arguments = parser.parse_args()

torch.manual_seed(0)
data = datasets.load("digits")
pixels = torch.cat([data.train] * 20)  # 20 draws of the dequantisation noise, for the closed forms
x = data.preprocessing.draw(pixels)

gaussian = ebflow.architectures.fc(data.shape, layers=1)
ebflow.initialization.from_data(gaussian, x)  # one dense layer from data is the Gaussian in closed form

flow = ebflow.architectures.whitened_fc(data.shape, layers=2)
ebflow.initialization.from_data(flow, x)
objective = ebflow.Behind(ebflow.DSM(sigma=0.3), layers=2)  # behind the reshape and the whitening
optimizer = torch.optim.Adam(flow.parameters(), lr=3e-4)
for _ in range(arguments.steps):
    batch = data.preprocessing.draw(data.train[torch.randint(len(data.train), (100,))])
    loss = objective(flow, batch)  # no determinant
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

test, log_det = data.preprocessing(data.test)  # and log|det| of the way from grey levels to model space
with torch.no_grad():
    print(f"log Z {flow.log_normalizer():.2f} nats, computed once")
    for name, model in (("Gaussian", gaussian), ("flow", flow)):
        nll = -(model.log_prob(test) + log_det).mean().item()
        print(f"{name:9s}{nll:7.2f} nats an image, {nll / (data.dimension * math.log(2)):.3f} bits/dim")
