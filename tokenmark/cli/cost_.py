"""`tokenmark cost`: what token reduction costs, before anything runs."""

from typing import Any

import click


@click.command("cost")
@click.argument("model")
@click.option("--method", default="none", show_default=True, help="A reducer; `tokenmark list` names them.")
@click.option("--set", "given", multiple=True, metavar="SETTING=VALUE", help="A setting: r=13, keep_rate=0.7; repeats.")
@click.option("--macs", help="Find the dearest setting that costs no more: 3.0G, 450M, or a share of the model's: 60%.")
@click.option("--keep", type=float, help="Find the dearest setting that leaves at most this share of the patches.")
@click.option("--like", metavar="METHOD:SETTING=VALUE", help="Find the setting that costs what another method's does.")
def command(model: str, method: str, given: tuple[str, ...], **asked: Any) -> None:
    r"""Tell what reducing the tokens of MODEL costs: tokens and multiply-accumulates (MACs) of every block.

    MODEL is a name of timm's (deit_small_patch16_224), of open_clip's (clip:ViT-B-16) or of Tokenmark's (vit-mini); no
    weights are needed. A budget is stated by a method's own setting, by the share of patches that are left, by MACs, or
    by what another method costs:

    \b
      tokenmark cost deit_small_patch16_224 --method tome --set r=13
      tokenmark cost deit_small_patch16_224 --method tome --macs 3.0G
      tokenmark cost deit_small_patch16_224 --method tome --keep 0.25
      tokenmark cost deit_small_patch16_224 --method tome --like topk:keep_rate=0.7

    MACs are what papers print as "GFLOPs": linear layers, attention and patch embedding, without norms and softmax.
    A budget that the method cannot meet is refused with the least that it can do; status 2.
    """
    from tokenmark import costs  # noqa: PLC0415  the engine takes seconds to import

    costs.print_cost(model, method, given, **asked)
