"""Errors that a user can cause."""

import pytest

from tokenmark import errors
from tokenmark.errors import TokenmarkError, UnknownNameError


def test_the_nearest_names_are_offered():
    text = str(UnknownNameError("method", "titok-maskit", ["titok-maskgit", "titok", "jpeg"]))
    assert text.startswith("unknown method 'titok-maskit': did you mean titok-maskgit")
    assert "jpeg" not in text


def test_without_a_near_one_all_are_listed_in_order():
    assert str(UnknownNameError("suite", "zzz", {"mini", "big"})) == "unknown suite 'zzz': there are: big, mini"
    assert str(UnknownNameError("suite", "zzz", ())) == "unknown suite 'zzz': there are none"


def test_a_long_list_is_cut():
    text = str(UnknownNameError("model", "###", (f"m{number:04d}" for number in range(1042))))
    assert text.startswith("unknown model '###': there are: m0000, m0001, ")
    assert text.endswith("m0039 and 1,002 others")


@pytest.mark.parametrize("name", [name for name in vars(errors) if name.endswith("Error")])
def test_one_kind_of_error_is_the_users(name):
    assert issubclass(getattr(errors, name), TokenmarkError)
    assert not issubclass(TokenmarkError, ValueError | OSError | RuntimeError)
