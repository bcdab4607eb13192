"""The frame of a diffusion transformer over a grid of latents (DiT, arXiv 2212.09748, section 3.2)."""

from timm.layers.patch_embed import PatchEmbed
from torch import Tensor, nn

from reference_impls.layers.dit_blocks import FinalLayer, LabelEmbedder, TimestepEmbedder, grid_sincos, unpatchify
from reference_impls.layers.latent_diffusion import LatentDiffusion
from tokenmark.contracts import MethodError

__all__ = ["DiffusionTransformer"]


class DiffusionTransformer(LatentDiffusion):
    """Patches, positions, time and class around the blocks, which a subclass gives (`mixed`).

    Args:
        input_size: Side of the latents.
        patch_size: Latents per side of a patch.
        in_channels: Channels of the latents, C.
        hidden_size: Width.
        num_classes: Classes, the dropped one left out.
        latent_scale: What the tokenizer's latents are multiplied with for the network.
    """

    def __init__(
        self,
        *,
        input_size: int,
        patch_size: int = 2,
        in_channels: int = 4,
        hidden_size: int,
        num_classes: int = 1000,
        latent_scale: float,
    ) -> None:
        super().__init__()
        if input_size % patch_size:
            raise MethodError(f"input_size must be a multiple of patch_size {patch_size}, got {input_size}")
        self.side, self.channels, self.classes, self.latent_scale = input_size, in_channels, num_classes, latent_scale
        self.patch_size, self.grid = patch_size, input_size // patch_size
        self.x_embedder = PatchEmbed(input_size, patch_size, in_channels, hidden_size)
        self.t_embedder = TimestepEmbedder(hidden_size, exact=True)
        self.y_embedder = LabelEmbedder(num_classes, hidden_size)
        # A parameter, as in the release, which counts it among them; it is not trained.
        self.pos_embed = nn.Parameter(grid_sincos(hidden_size, self.grid)[None], requires_grad=False)

    def finish(self, hidden_size: int) -> None:
        """Add the last layer, once a subclass has added its blocks: so that the keys keep the release's order."""
        self.final_layer = FinalLayer(hidden_size, 2 * self.channels * self.patch_size**2)

    def mixed(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """Tokens `(B, L, D)` and conditions `(B, D)` to tokens, by the blocks."""
        raise NotImplementedError

    def forward(self, x: Tensor, times: Tensor, labels: Tensor) -> Tensor:
        """Noisy latents `(B, C, S, S)`, training steps `(B,)` and labels to noise, then variance, `(B, 2C, S, S)`."""
        tokens = self.x_embedder(x.to(self.pos_embed.dtype)) + self.pos_embed
        condition = self.t_embedder(times) + self.y_embedder(labels)
        patches = self.final_layer(self.mixed(tokens, condition), condition)
        return unpatchify(patches, self.patch_size, self.grid)
