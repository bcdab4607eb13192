"""Options that several verbs share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def results_option(function: F) -> F:
    """`--results`."""
    return click.option(
        "--results",
        "results_folder",
        type=click.Path(path_type=Path, file_okay=False),
        default=Path("results"),
        show_default=True,
        help="Folder of records.",
    )(function)


def suites_option(function: F) -> F:
    """`--suites`."""
    return click.option(
        "--suites",
        "suites_folder",
        type=click.Path(path_type=Path, file_okay=False),
        default=Path("suites"),
        show_default=True,
        help="Folder of suite files.",
    )(function)


def device_option(function: F) -> F:
    """`--device`."""
    return click.option(
        "--device", default="auto", show_default=True, help="cpu, cuda, cuda:1 ...; auto takes a GPU if there is one."
    )(function)


def weights_option(function: F) -> F:
    """`--weights`, a folder."""
    return click.option(
        "--weights",
        "weights_folder",
        type=click.Path(path_type=Path, file_okay=False),
        envvar="TOKENMARK_WEIGHTS",
        default=Path("weights"),
        show_default=True,
        show_envvar=True,
        help="Folder of weights that others published.",
    )(function)


def data_option(function: F) -> F:
    """`--data`."""
    return click.option(
        "--data",
        type=click.Path(path_type=Path, file_okay=False),
        default=Path("data"),
        show_default=True,
        help="Folder of prepared data; embedded data are prepared there on first use.",
    )(function)
