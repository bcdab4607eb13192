"""Which source files make up a module: the file itself and what it imports from its own package, transitively."""

import ast
import importlib.util
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Source:
    """One module's text, with line ends as on Unix."""

    name: str
    text: str


def closure(module: str) -> list[Source]:
    """The sources of `module` and of all modules of its top-level package that it imports, sorted by name.

    Read, not run: imports are taken from the syntax tree.
    """
    package = module.partition(".")[0]
    found: dict[str, Source] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _file(name)
        if name in found or path is None:
            continue
        found[name] = Source(name, path.read_text(encoding="utf-8").replace("\r\n", "\n"))
        here = name if path.name == "__init__.py" else name.rpartition(".")[0]
        waiting += [other for other in _imports(found[name], here) if other.partition(".")[0] == package]
    return [found[name] for name in sorted(found)]


def _file(name: str) -> Path | None:
    """Where a module lies; only its top-level package is asked for, so that nothing is imported on the way."""
    top, *rest = name.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for folder in spec.submodule_search_locations or ():
        place = Path(folder, *rest)
        for path in (place / "__init__.py", place.with_suffix(".py")):
            if path.is_file():
                return path
    return None  # `from package.module import thing`: the thing is no module


def _imports(source: Source, here: str) -> list[str]:
    """The names that a module imports; `here` is the package that its first dot means."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source.text)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = here.split(".")
            base = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            stem = ".".join(part for part in (base, node.module or "") if part)
            names += [stem, *(f"{stem}.{alias.name}" for alias in node.names)]
    return names
