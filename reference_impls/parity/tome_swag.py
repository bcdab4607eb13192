"""ToMe on SWAG's vision transformer beside facebookresearch/ToMe."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from reference_impls.layers.swag_vit import SwagVit, swag_vit
from reference_impls.parity.tome import outputs, settings_of
from reference_impls.reducers.tome import METHOD
from tokenmark.contracts import Parity

SIZES = ("img_size", "patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "num_classes", "norm_eps")


def build(config: Mapping[str, Any], _variant: str) -> nn.Module:
    """The reduced model that the release's configuration describes: by its sizes, or by SWAG's own name."""
    sizes = {size: config[size] for size in SIZES if size in config}
    model = SwagVit(**sizes) if "embed_dim" in config else swag_vit(config["name"])
    reduced: Any = METHOD.build(model, settings_of(config))
    return reduced  # type: ignore[no-any-return]


PARITY = Parity(build=build, outputs=outputs, layout=METHOD.layout)
