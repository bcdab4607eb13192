"""Names of files: whatever strangers call their methods, nothing leaves the site's folder and nothing meets."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenmark.leaderboard import names


@pytest.mark.parametrize("name", ["tome", "tome-3stage", "clip-vit-b.16", "top1_difference", "2406.07550"])
def test_ordinary_names_stay(name):
    assert names.slug(name) == name


@given(st.text())
def test_a_slug_is_one_plain_part_of_a_path(name):
    slug = names.slug(name)
    assert re.fullmatch(r"[a-z0-9]+([-._][a-z0-9]+)*", slug)
    assert len(slug) <= 100
    assert "--" not in slug
    assert slug != "index"
    assert names.slug(slug) == slug


@given(st.text(), st.text())
def test_two_names_are_two_files(one, other):
    assert (names.slug(one) == names.slug(other)) == (one == other)


@pytest.mark.parametrize(
    ("one", "other"), [("Tome", "tome"), ("a/b", "a-b"), ("a b", "a.b"), ("../x", "x"), ("é", "e")]
)
def test_near_names_are_two_files_even_where_case_does_not_count(one, other):
    assert names.slug(one).lower() != names.slug(other).lower()


def test_groups_have_data_of_their_own():
    assert names.data_file("accuracy", "mini", "500 images") != names.data_file("accuracy", "mini", "400 images")
    assert names.data_file("accuracy", "mini", "500 images") != names.data_file(
        "accuracy", "mini", "500 images", "macs"
    )
