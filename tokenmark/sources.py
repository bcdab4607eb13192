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
        waiting += [other for other in _imports(found[name]) if other.partition(".")[0] == package]
    return [found[name] for name in sorted(found)]


def _file(name: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:  # `from package.module import thing`: the thing is no module
        return None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def _imports(source: Source) -> list[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(source.text)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(source.name.split(".")[: -node.level]) if node.level else ""
            stem = ".".join(part for part in (base, node.module or "") if part)
            names += [stem, *(f"{stem}.{alias.name}" for alias in node.names)]
    return names
