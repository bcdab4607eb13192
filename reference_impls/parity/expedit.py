"""Expedit beside its release for segmentation: the clustering and the reconstruction layer alone."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from reference_impls.layers.local_clustering import (
    cluster,
    home_cells,
    initial_centroids,
    nearest_centroid,
    reconstruction_weights,
)
from reference_impls.reducers.expedit import METHOD
from tokenmark.contracts import Parity, ParityCase


def build(_config: Mapping[str, Any], _variant: str) -> nn.Module:
    """Layers without weights."""
    return nn.Identity()


def outputs(_module: nn.Module, case: ParityCase) -> dict[str, Tensor]:
    """Centroids and labels before and after the rounds, and what the patches read of processed clusters."""
    config, features = case.config, case.inputs["features"]
    grid, clusters = (features.shape[2], features.shape[3]), tuple(config["num_spixels"])
    patches = features.flatten(2).transpose(1, 2)
    settings = {"iterations": config["n_iters"], "window": config["window_size"]}
    centroids = cluster(patches, grid, clusters, temperature=config["temperature"], **settings)
    home = home_cells(grid, clusters)
    weights = reconstruction_weights(patches, centroids, config["k"], config["reconstruction_temperature"])
    return {
        "initial_centroids": initial_centroids(patches, grid, clusters),
        "initial_labels": (home[:, 0] * clusters[1] + home[:, 1]).expand(features.shape[0], -1),
        "centroids": centroids,
        "labels": nearest_centroid(patches, centroids),
        "reconstructed": weights @ case.inputs["processed"],
    }


PARITY = Parity(build=build, outputs=outputs, layout=METHOD.layout)
