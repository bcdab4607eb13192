"""Methods by name: found without importing, imported one by one, announced by other packages."""

import subprocess
import sys

import pytest

from tokenmark import registry
from tokenmark.contracts import ReducerMethod, TokenizerMethod
from tokenmark.errors import TokenmarkError, UnknownNameError

PLUGIN = """
from tokenmark.contracts import Paper, ReducerMethod
METHOD = ReducerMethod(id={id!r}, title="T", idea="I", paper=Paper("P", "A B", 2026, "https://x"), build=lambda m, s: m)
"""


def announced(package, entries, files=None):
    """A package on the path with the given entry points, as an installer would leave it."""
    lines = "\n".join(f"{name} = {place}" for name, place in entries.items())
    return package(
        {
            "made_dist-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: made-dist\nVersion: 1.0\n",
            "made_dist-1.0.dist-info/entry_points.txt": f"[tokenmark.methods]\n{lines}\n",
            **(files or {}),
        }
    )


def test_ids_are_the_names_of_files():
    known = registry.locations()
    assert known["tome-3stage"] == registry.Location("reference_impls.reducers.tome_3stage", "METHOD")
    assert {"jpeg", "maskgit-vq", "titok-maskgit", "none"} <= known.keys()
    for name in known:
        assert registry.get(name).id == name


def test_names_are_known_without_importing_any_method():
    program = (
        "import sys, tokenmark.registry as r; names = r.locations(); assert 'tome' in names\n"
        "print([m for m in sys.modules if m.startswith('reference_impls.') and m.count('.') > 1])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("wrong", "near"), [("tomee", "tome"), ("maskgit_vq", "maskgit-vq"), ("k-medoid", "k-medoids")]
)
def test_an_unknown_name_suggests_the_nearest(wrong, near):
    with pytest.raises(UnknownNameError, match=f"unknown method '{wrong}': did you mean .*{near}"):
        registry.get(wrong)


def test_a_method_of_another_kind():
    assert registry.get_as(ReducerMethod, "tome").id == "tome"
    with pytest.raises(TokenmarkError, match="'tome' is a reducer, but a tokenizer is needed"):
        registry.get_as(TokenizerMethod, "tome")


def test_an_unknown_variant():
    method = registry.get_as(TokenizerMethod, "jpeg")
    assert registry.variant_of(method, "q50") is method.variants["q50"]
    with pytest.raises(UnknownNameError, match=r"unknown variant of jpeg 'q55': did you mean .*q50"):
        registry.variant_of(method, "q55")


def test_another_package_announces_its_method(package):
    entries = {"made-method": "made_plugin.inner:METHOD"}
    text = PLUGIN.format(id="made-method")
    root = announced(package, entries, {"made_plugin/__init__.py": "", "made_plugin/inner.py": text})
    place = registry.locations()["made-method"]
    assert place == registry.Location("made_plugin.inner", "METHOD")
    assert place.package == "made_plugin"
    assert "made_plugin.inner" not in sys.modules
    assert registry.get("made-method").title == "T"
    assert registry.package_folder("made_plugin") == root / "made_plugin"
    assert len(registry.implementation("made-method")) == 64
    assert "tome" in registry.locations()


def test_one_name_for_two_algorithms_is_refused(package):
    announced(package, {"tome": "made_plugin:METHOD"}, {"made_plugin/__init__.py": PLUGIN.format(id="tome")})
    with pytest.raises(TokenmarkError, match=r"two methods are called 'tome': reference_impls.* and made_plugin"):
        registry.locations()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PLUGIN.format(id="other"), "with id 'made-method'"),
        ("METHOD = 3\n", "must be a TokenizerMethod or GeneratorMethod or ReducerMethod"),
        ("", "has no attribute 'METHOD'"),
        ("import a_module_that_is_not_there\n", "cannot be imported.*a_module_that_is_not_there"),
        ("def broken(:\n", "cannot be imported"),
        ("raise RuntimeError('needs a key')\n", "cannot be imported.*needs a key"),
    ],
)
def test_a_file_that_holds_no_method(package, text, message):
    announced(package, {"made-method": "made_plugin:METHOD"}, {"made_plugin/__init__.py": text})
    with pytest.raises(TokenmarkError, match=message):
        registry.get("made-method")


def test_a_package_without_a_folder(package):
    package({"made_single.py": ""})
    for name in ("made_single", "made_missing"):
        with pytest.raises(TokenmarkError, match="has no folder"):
            registry.package_folder(name)
