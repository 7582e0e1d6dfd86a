"""Invertible layers, data to latent; each one says whether its Jacobian is constant."""

from ebflow.layers.activation import SmoothLeakyReLU
from ebflow.layers.actnorm import ActNorm
from ebflow.layers.base import ClosedForm, ConstantLayer, ElementwiseLayer, Layer, VaryingLayer
from ebflow.layers.chain import Chain, Split
from ebflow.layers.convolution import Convolution, Convolution1x1
from ebflow.layers.coupling import AffineCoupling, ChannelCoupling
from ebflow.layers.linear import Bias, Dense, Triangular
from ebflow.layers.pixel import Logit, Scale
from ebflow.layers.rearrange import Permutation, Reshape, Squeeze
from ebflow.layers.whitening import Whitening

__all__ = [
    "ActNorm",
    "AffineCoupling",
    "Bias",
    "Chain",
    "ChannelCoupling",
    "ClosedForm",
    "ConstantLayer",
    "Convolution",
    "Convolution1x1",
    "Dense",
    "ElementwiseLayer",
    "Layer",
    "Logit",
    "Permutation",
    "Reshape",
    "Scale",
    "SmoothLeakyReLU",
    "Split",
    "Squeeze",
    "Triangular",
    "VaryingLayer",
    "Whitening",
]
