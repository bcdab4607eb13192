"""Find methods by name, and import a method's file only when that method is asked for.

A method is known by where it lies: `reference_impls/{tokenizers,generators,reducers,classifiers}/<id>.py` holds
`METHOD`, and `reference_impls/parity/<id>.py` holds `PARITY` where it can be put beside its release. Other people's
packages announce theirs through the entry-point groups `tokenmark.methods` (`my-method =
"my_package.my_method:METHOD"`) and `tokenmark.parity`. Nothing is imported to answer which names exist.
"""

import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import pkgutil
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tokenmark import sources
from tokenmark.contracts import (
    ClassifierMethod,
    DiffusionReducerMethod,
    GeneratorMethod,
    Method,
    Parity,
    ReducerMethod,
    TokenizerMethod,
    Variant,
)
from tokenmark.errors import TokenmarkError, chosen

ENTRY_POINTS = "tokenmark.methods"
PARITY_ENTRY_POINTS = "tokenmark.parity"
PARITY_FOLDER = "reference_impls.parity"
BUILT_IN = tuple(f"reference_impls.{kind}" for kind in ("tokenizers", "generators", "reducers", "classifiers"))

KINDS = (TokenizerMethod, GeneratorMethod, ReducerMethod, DiffusionReducerMethod, ClassifierMethod)

M = TypeVar("M", bound=Method)


@dataclass(frozen=True, slots=True)
class Location:
    """Where a method's object is to be found."""

    module: str
    attribute: str

    @property
    def package(self) -> str:
        """The top-level package, in whose `weights/` folder the method's bundled weights lie."""
        return self.module.partition(".")[0]


@functools.cache
def locations() -> dict[str, Location]:
    """All known method ids and their places.

    Raises:
        TokenmarkError: two packages claim one id (one name, one algorithm).
    """
    return _found(BUILT_IN, ENTRY_POINTS, "METHOD")


@functools.cache
def parities() -> dict[str, Location]:
    """The ids of all methods that can be put beside their release, and where that is said.

    Raises:
        TokenmarkError: two packages claim one id.
    """
    return _found((PARITY_FOLDER,), PARITY_ENTRY_POINTS, "PARITY")


def _found(folders: tuple[str, ...], group: str, attribute: str) -> dict[str, Location]:
    found = {
        module.name.replace("_", "-"): Location(f"{folder}.{module.name}", attribute)
        for folder in folders
        for module in pkgutil.iter_modules(_folder(folder))
    }
    for entry in importlib.metadata.entry_points(group=group):
        place = Location(entry.module, entry.attr or attribute)
        if found.setdefault(entry.name, place) != place:
            raise TokenmarkError(
                f"two methods are called '{entry.name}': {found[entry.name].module} and {place.module};"
                " uninstall one or rename its entry point"
            )
    return found


def _folder(package: str) -> list[str]:
    spec = importlib.util.find_spec(package)
    return list(spec.submodule_search_locations or []) if spec else []


@functools.cache
def get(name: str) -> Method:
    """Import the method called `name`.

    Raises:
        UnknownNameError: no such method; the nearest names are given.
        TokenmarkError: its file does not hold what a method must be.
    """
    place = chosen("method", name, locations())
    method = _imported("method", name, place)
    if not isinstance(method, KINDS) or method.id != name:
        kinds = " or ".join(kind.__name__ for kind in KINDS)
        raise TokenmarkError(f"{place.module}:{place.attribute} must be a {kinds} with id '{name}'")
    return method


@functools.cache
def parity(name: str) -> Parity:
    """How the method called `name` is put beside its release.

    Raises:
        UnknownNameError: nothing says so for such a method; the nearest names are given.
        TokenmarkError: its file does not hold what it must.
    """
    place = chosen("system", name, parities())
    found = _imported("parity of", name, place)
    if not isinstance(found, Parity):
        raise TokenmarkError(f"{place.module}:{place.attribute} must be a Parity")
    return found


def _imported(what: str, name: str, place: Location) -> object:
    try:
        return getattr(importlib.import_module(place.module), place.attribute)
    except Exception as error:  # other people's files may fail in any way
        raise TokenmarkError(f"{what} '{name}' cannot be imported from {place.module}: {error}") from error


def get_as(kind: type[M] | tuple[type[M], ...], name: str) -> M:
    """The method called `name`, which must be of the given kind, or of one of them.

    Raises:
        TokenmarkError: it is a method of another kind.
    """
    method = get(name)
    if not isinstance(method, kind):
        wanted = " or ".join(map(kind_name, kind if isinstance(kind, tuple) else (kind,)))
        raise TokenmarkError(f"'{name}' is a {kind_of(method)}, but a {wanted} is needed here")
    return method


def in_sampler(name: str) -> DiffusionReducerMethod:
    """What the method called `name` is in a diffusion sampler.

    Raises:
        TokenmarkError: it does not reduce the tokens of samplers.
    """
    method: Method = get_as((ReducerMethod, DiffusionReducerMethod), name)
    found = method.in_sampler if isinstance(method, ReducerMethod) else method
    if not isinstance(found, DiffusionReducerMethod):
        raise TokenmarkError(f"'{name}' reduces the tokens of classifiers, and of no diffusion sampler")
    return found


def kind_name(kind: type[Method]) -> str:
    """`tokenizer`, `generator`, `reducer`, `diffusion reducer` or `classifier`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.__name__.removesuffix("Method")).lower()


def kind_of(method: Method) -> str:
    """The kind of a method, in words."""
    return kind_name(type(method))


def variant_of(method: TokenizerMethod | GeneratorMethod | ReducerMethod | ClassifierMethod, name: str) -> Variant:
    """A named size of a method.

    Raises:
        UnknownNameError: it has no such variant.
    """
    return chosen(f"variant of {method.id}", name, method.variants)


def package_folder(package: str) -> Path:
    """The folder of an importable top-level package."""
    folders = _folder(package)
    if not folders:
        raise TokenmarkError(f"package '{package}' has no folder to look for weights in")
    return Path(folders[0])


@functools.cache
def implementation(name: str) -> str:
    """SHA-256 of the source that makes up a method: its file and what that imports from its own package.

    Part of every run's specification, so that a changed method is measured again.
    """
    digest = hashlib.sha256()
    for module in sources.closure(locations()[name].module):
        digest.update(module.name.encode() + b"\0" + module.text.encode() + b"\0")
    return digest.hexdigest()
