"""EBFlow and other people's flows: one module a library, which alone imports it.

A flow of nflows, normflows or zuko can be trained by any objective of ours, and stays what it is, an exact density::

    import torch
    from nflows.distributions import StandardNormal
    from nflows.flows import Flow
    from nflows.transforms import CompositeTransform, NaiveLinear

    from ebflow import DSM
    from ebflow.interop.nflows import LayerTransform, from_flow
    from ebflow.layers import SmoothLeakyReLU

    x = torch.randn(100, 8) @ torch.randn(8, 8)
    dense = [NaiveLinear(8, orthogonal_initialization=False) for _ in range(2)]
    activation = LayerTransform(SmoothLeakyReLU())
    flow = Flow(CompositeTransform([dense[0], activation, dense[1]]), StandardNormal([8]))

    view, objective = from_flow(flow, shape=(8,)), DSM(sigma=0.3)  # the same parameters, seen as an EBFlow
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        objective(view, x).backward()  # no determinant anywhere
        optimizer.step()
    flow.log_prob(x)  # nflows' own: exact, normalised
"""
