"""Names, labels and counts of a source, and the choice of a balanced subset."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tokenmark.data.made_imagenet import label_of
from tokenmark.data.check import balanced, check
from tokenmark.data.imagenet import COLLECTIONS, validation_name, wnids
from tokenmark.data.sources.base import Entry, Source

VAL = COLLECTIONS["imagenet-val"]
WHOLE = [Entry(validation_name(number), label_of(number), (number,)) for number in range(1, 50_001)]


def source(entries, named=True):
    return Source("made", (tuple(entries),), lambda _: b"", named)


def kinds(checked):
    return checked.ambiguous.by_kind | checked.incomplete.by_kind


def test_the_whole_set_has_no_fault():
    checked = check(source(reversed(WHOLE)), VAL, None)
    assert kinds(checked) == {}
    assert [entry.name for entry, _ in checked.entries] == [entry.name for entry in WHOLE]
    assert [label for _, label in checked.entries] == [entry.label for entry in WHOLE]


def test_a_missing_file_is_named_with_its_class():
    checked = check(source(WHOLE[:9] + WHOLE[10:]), VAL, None)
    assert kinds(checked) == {
        "missing": [validation_name(10)],
        "classes of a wrong size": [f"{wnids()[label_of(10)]}: 49 instead of 50"],
        "wrong count": ["49,999 images instead of 50,000"],
    }


def test_an_extra_file_is_named_and_not_used():
    checked = check(source([*WHOLE, Entry("cat.jpg", 3, (0,), known=False)]), VAL, None)
    assert kinds(checked) == {"extra": ["cat.jpg"]}
    assert len(checked.entries) == 50_000


def test_a_name_that_comes_twice():
    """In two class folders, say: nobody can tell which is right."""
    twice = Entry(validation_name(5), 7, ("elsewhere",))
    assert check(source([*WHOLE, twice]), VAL, None).ambiguous.by_kind["named twice"] == [validation_name(5)]


def test_a_file_without_label():
    entries = [Entry(entry.name, None, entry.place) for entry in WHOLE]
    labels = {entry.name: entry.label for entry in WHOLE}
    assert kinds(check(source(entries), VAL, labels)) == {}
    del labels[validation_name(3)]
    assert check(source(entries), VAL, labels).ambiguous.by_kind == {"without a label": [validation_name(3)]}


def test_labels_that_disagree_with_the_folders():
    labels = {entry.name: entry.label for entry in WHOLE} | {validation_name(8): (label_of(8) + 1) % 1000}
    found = check(source(WHOLE), VAL, labels).ambiguous.by_kind
    assert found == {"labelled otherwise by --labels": [validation_name(8)]}


def test_pictures_without_names_are_counted_only():
    entries = [Entry(f"shard:{entry.place[0]}", entry.label, entry.place, known=False) for entry in WHOLE]
    checked = check(source(reversed(entries), named=False), VAL, None)
    assert kinds(checked) == {}
    assert checked.entries[0][0].name == "shard:50000"
    assert set(kinds(check(source(entries[1:], named=False), VAL, None))) == {"classes of a wrong size", "wrong count"}


def test_names_that_cannot_be_printed():
    checked = check(source([*WHOLE, Entry("a\nb\udcff.jpg", 3, (0,), known=False)]), VAL, None)
    assert checked.incomplete.summary() == r"1 extra ('a\nb\udcff.jpg')"
    assert checked.incomplete.report() == "extra\t'a\\nb\\udcff.jpg'\n"


def test_a_summary_is_short_and_a_report_is_whole():
    checked = check(source(WHOLE[:1000]), VAL, None)
    assert "49,000 missing (ILSVRC2012_val_00001001.JPEG, ILSVRC2012_val_00001002.JPEG" in checked.incomplete.summary()
    assert len(checked.incomplete.summary()) < 500
    assert checked.incomplete.report().count("\n") == 49_000 + 1000 + 1


@given(st.lists(st.integers(0, 6), max_size=60), st.integers(1, 70))
def test_a_subset_is_balanced_and_in_order(labels, limit):
    entries = [(Entry(str(place), label, (place,)), label) for place, label in enumerate(labels)]
    items = balanced(entries, limit)
    assert len(items) == min(limit, len(entries))
    assert [item.index for item in items] == list(range(len(items)))
    places = [item.entry.place for item in items]
    assert places == sorted(set(places))
    whole, kept = Counter(labels), Counter(item.label for item in items)
    most = max(kept.values(), default=0)
    for label in whole:
        assert kept[label] >= min(whole[label], most - 1)
    assert [item.entry for item in balanced(entries, None)] == [entry for entry, _ in entries]


@pytest.mark.parametrize("limit", [1000, 1500, 49_999])
def test_a_subset_of_the_real_size(limit):
    counts = Counter(item.label for item in balanced([(entry, entry.label) for entry in WHOLE], limit))
    assert set(counts.values()) <= {limit // 1000, -(-limit // 1000)}
