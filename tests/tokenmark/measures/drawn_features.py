"""Features of drawn numbers, and what torch-fidelity says of two sets of them."""

import numpy as np
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric


def drawn(seed, n, d, rank=None, shift=0.0):
    """Features `(n, d)` with unequal scales and correlations, on a subspace of `rank` dimensions."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(seed + 1000).standard_normal((rank or d, d)) / np.sqrt(d)
    scales = np.linspace(0.2, 3.0, rank or d)
    return rng.standard_normal((n, rank or d)) * scales @ mixing + shift


def by_torch_fidelity(features, reference):
    statistics = [fid_features_to_statistics(torch.from_numpy(x)) for x in (features, reference)]
    if features.shape[1] == 1:  # numpy's covariance of one variable is a number
        statistics = [{"mu": s["mu"], "sigma": s["sigma"].reshape(1, 1)} for s in statistics]
    return fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
