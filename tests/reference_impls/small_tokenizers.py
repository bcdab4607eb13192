"""Small sizes of every tokenizer: arguments of `METHOD.build`, for the tests that hold for all of them.

The weights are drawn, so that only what does not depend on training is tested with them.
"""

from typing import Any

_TITOK: dict[str, Any] = {
    "image_size": 32,
    "encoder": {"width": 48, "layers": 2, "heads": 4, "patch_size": 8},
    "decoder": {"width": 48, "layers": 2, "heads": 4, "patch_size": 8},
    "num_latent_tokens": 16,
    "token_size": 12,
    "codebook_size": 256,
    "use_l2_norm": True,
    "pixel": {
        "hidden_channels": 32,
        "channel_mult": [1, 1, 1, 1],
        "num_res_blocks": 1,
        "z_channels": 32,
        "codebook_size": 64,
    },
}

SMALL: dict[str, dict[str, Any]] = {
    "jpeg": {"quality": 50},
    "llamagen-vq": {"image_size": 32, "ch": 32, "ch_mult": [1, 2], "num_res_blocks": 1, "z_channels": 32},
    "maskgit-vq": {
        "image_size": 32,
        "hidden_channels": 32,
        "channel_mult": [1, 1, 1],
        "num_res_blocks": 1,
        "z_channels": 32,
        "codebook_size": 256,
    },
    "one-d-piece": _TITOK,
    "titok": _TITOK,
    "webp": {"quality": 50},
}
