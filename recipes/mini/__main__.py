"""`python -m recipes.mini [NAME...] [--again]`: train the small models whose weights the repository holds."""

import shutil
from pathlib import Path

import click
import torch

from recipes.mini import cards, classifiers, generators, tokenizers
from recipes.mini.training import Recipe, train
from tokenmark.data import catalog, digits
from tokenmark.errors import TokenmarkError, UnknownNameError

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        classifiers.FEATURES,
        classifiers.VIT,
        tokenizers.VQ,
        tokenizers.FSQ_MINI,
        tokenizers.MASKBIT_MINI,
        tokenizers.MAR_VAE_MINI,
        tokenizers.TITOK_MINI,
        tokenizers.ONE_D_PIECE_MINI,
        generators.MASKGIT,
        generators.LLAMAGEN_MINI,
        generators.DIT_MINI,
    )
}


@click.command()
@click.argument("names", nargs=-1)
@click.option("--again", is_flag=True, help="Train from the start even where weights are in the repository.")
@click.option("--data", "data_folder", type=Path, default=Path("data"), show_default=True, help="Prepared data.")
@click.option("--state", type=Path, default=Path("runs/train-mini"), show_default=True, help="Stopped trainings.")
@click.option("--device", default="cpu", show_default=True)
def main(names: tuple[str, ...], again: bool, data_folder: Path, state: Path, device: str) -> None:
    """Train the small models, all or those NAMED; one that was stopped goes on where it was."""
    try:
        for name in names or RECIPES:
            if name not in RECIPES:
                raise UnknownNameError("recipe", name, RECIPES)
            _one(RECIPES[name], again, data_folder, state, torch.device(device))
    except TokenmarkError as error:
        click.echo(f"train-mini: {error}", err=True)
        raise SystemExit(2) from error


def _one(recipe: Recipe, again: bool, data_folder: Path, state: Path, device: torch.device) -> None:
    path = state / f"{recipe.name}.pt"
    if cards.paths(recipe)[0].exists() and not again and not path.exists():
        click.echo(f"{recipe.name}: its weights are here already (train anew with --again)")
        return
    train_data, held_out = (catalog.load(digits.NAME, split, data_folder) for split in ("train", "val"))
    model = train(recipe, train_data, path, device)
    reached = cards.write(recipe, model.cpu(), train_data, held_out)
    shutil.rmtree(path, ignore_errors=True)
    path.unlink(missing_ok=True)
    click.echo(f"{recipe.name}: " + ", ".join(f"{key} {value:.4f}" for key, value in reached.items()))


if __name__ == "__main__":
    main()
