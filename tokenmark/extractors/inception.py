"""Inception v3 of 2015-12-05, the network of FID: torch-fidelity's port, driven by us.

Its features are those of ADM's evaluator too: 2,048 averages (FID, precision and recall), seven channels of a middle
layer in place (sFID, Nash et al. 2021, arXiv 2103.03841), and class scores without their bias (Inception score).
"""

import functools
import io
from pathlib import Path

import torch
from torch import Tensor
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from tokenmark.errors import WeightsError
from tokenmark.extractors.base import Extractor, Outputs, Recipe, Tensors
from tokenmark.resize import Resize
from tokenmark.weights import WeightsFile

SIDE = 299
SPATIAL_CHANNELS = 7
"""ADM's evaluator keeps the first seven of `mixed_6/conv:0`."""

BEFORE_SPATIAL = (
    *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "MaxPool_2"),
    *("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c"),
)
AFTER_SPATIAL = ("Mixed_6d", "Mixed_6e", "Mixed_7a", "Mixed_7b", "Mixed_7c", "AvgPool")


class Inception(Extractor):
    """Three outputs of one pass.

    `features` `(B, 2048)`; `spatial` `(B, 17 * 17 * 7)`, flattened as in ADM's reference files, channels last; `logits`
    `(B, 1008)` without their bias.
    """

    def __init__(self, network: torch.nn.Module, resize: Resize, dtype: torch.dtype, *, unit: bool) -> None:
        middle, half = (127.5, 127.5) if unit else (128.0, 128.0)
        super().__init__(SIDE, resize, dtype, (middle,) * 3, (half,) * 3)
        self.network = network.to(dtype)

    def forward(self, images: Tensor) -> Outputs:
        """Images `(B, 3, H, W)`, uint8 or floats in [0, 1], to everything that measures take from Inception."""
        x = self._through(BEFORE_SPATIAL, self.prepared(images))
        # TensorFlow's mixed_6 is Mixed_6d here; its first convolution reads what the whole block reads.
        spatial = self.network.get_submodule("Mixed_6d.branch1x1")(x)[:, :SPATIAL_CHANNELS]
        features = self._through(AFTER_SPATIAL, x).flatten(1)
        logits = features @ self.network.get_parameter("fc.weight").T
        return Outputs(features.float(), spatial.permute(0, 2, 3, 1).flatten(1).float(), logits.float())

    def _through(self, blocks: tuple[str, ...], x: Tensor) -> Tensor:
        for block in blocks:
            x = self.network.get_submodule(block)(x)
        return x


def build(tensors: Tensors, path: Path, resize: Resize, dtype: torch.dtype, *, unit: bool) -> Inception:
    """The network filled with tensors; `unit` maps [0, 255] to [-1, 1] as pytorch-fid does, not by (x - 128) / 128.

    Raises:
        WeightsError: the tensors are not Inception's.
    """
    # torch-fidelity's constructor unpickles any file that it is given, so it is given bytes that were written here.
    state = io.BytesIO()
    torch.save(dict(tensors), state)
    state.seek(0)
    try:
        network = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise WeightsError(f"{path} does not fit Inception v3: {reason[:200]}") from error
    return Inception(network, resize, dtype, unit=unit)


FILE = WeightsFile(
    "weights-inception-2015-12-05-6726825d.pth",
    "torch-fidelity's release v0.2.0 on GitHub",
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
)
"""The bytes are those of pytorch-fid's pt_inception-2015-12-05-6726825d.pth."""

INCEPTION = Recipe(FILE, "tf1", functools.partial(build, unit=False))
PYTORCH_FID = Recipe(FILE, "half-pixel", functools.partial(build, unit=True))
