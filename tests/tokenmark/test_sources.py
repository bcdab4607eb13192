"""The source files that make up a module, in packages made for it."""

import sys

import pytest

from tokenmark import registry, sources

FILES = {
    "made_pkg/__init__.py": "",
    "made_pkg/method.py": (
        "import json\n"
        "import made_pkg.plain as plain\n"
        "from made_pkg.named import thing\n"
        "from made_pkg import beside\n"
        "from . import near\n"
        "from .sub.deep import value\n"
        "def late():\n"
        "    from made_pkg import lazily\n"
    ),
    "made_pkg/plain.py": "from made_pkg import method  # a circle\n",
    "made_pkg/named.py": "thing = 1\n",
    "made_pkg/beside.py": "",
    "made_pkg/near.py": "import other_pkg\n",
    "made_pkg/lazily.py": "raise RuntimeError('not to be run')\n",
    "made_pkg/unrelated.py": "",
    "made_pkg/sub/__init__.py": "from .inner import name\n",
    "made_pkg/sub/inner.py": "name = 1\n",
    "made_pkg/sub/deep.py": "from ..up import step\nfrom . import inner\nvalue = 2\n",
    "made_pkg/up.py": "step = 1\n",
    "other_pkg/__init__.py": "",
}
EXPECTED = {"method", "plain", "named", "beside", "near", "lazily", "sub", "sub.inner", "sub.deep", "up"}


class Known:
    """A registry that knows one method, the made one."""

    def __call__(self):
        return {"made": registry.Location("made_pkg.method", "METHOD")}

    def cache_clear(self):
        """It keeps nothing."""


def names(module):
    return [source.name for source in sources.closure(module)]


def test_closure_follows_every_kind_of_import(package):
    package(FILES)
    found = names("made_pkg.method")
    assert found == sorted(found)
    assert set(found) == {"made_pkg"} | {f"made_pkg.{name}" for name in EXPECTED}


def test_nothing_is_run(package):
    package(FILES)
    sources.closure("made_pkg.method")
    assert not [name for name in sys.modules if name.startswith(("made_pkg", "other_pkg"))]


def test_relative_imports_of_a_package_itself(package):
    """In `__init__.py`, one dot is the package, not what it lies in."""
    package({"made_pkg/__init__.py": "from .part import x\n", "made_pkg/part.py": "x = 1\n", "part.py": ""})
    assert names("made_pkg") == ["made_pkg", "made_pkg.part"]


def test_a_single_file_and_what_is_no_python(package):
    package({"made_single.py": "import json\nfrom made_single import json\n"})
    assert names("made_single") == ["made_single"]
    assert sources.closure("math") == []
    assert sources.closure("made_missing.module") == []


@pytest.mark.parametrize("place", ["method.py", "sub/deep.py", "up.py", "lazily.py"])
def test_a_comment_anywhere_in_it_changes_the_hash(package, monkeypatch, place):
    package(FILES)
    monkeypatch.setattr(registry, "locations", Known())
    before = registry.implementation("made")
    package({f"made_pkg/{place}": FILES[f"made_pkg/{place}"] + "# a comment\n"})
    assert registry.implementation("made") != before


def test_what_is_not_imported_or_only_differs_in_line_ends_does_not(package, monkeypatch):
    root = package(FILES)
    monkeypatch.setattr(registry, "locations", Known())
    before = registry.implementation("made")
    for name in ("unrelated", "../other_pkg/__init__"):
        path = root / "made_pkg" / f"{name}.py"
        path.write_text("# changed\n")
    method = root / "made_pkg" / "method.py"
    method.write_bytes(method.read_bytes().replace(b"\n", b"\r\n"))
    registry.implementation.cache_clear()
    assert registry.implementation("made") == before


def test_a_real_method():
    found = names("reference_impls.reducers.tome")
    assert {"reference_impls.reducers.tome", "reference_impls.layers.matching"} <= set(found)
    assert "reference_impls.reducers.topk" not in found
    assert not [name for name in found if name.startswith("tokenmark")]
