"""Records found by the beginnings of their names, shown, and compared."""

import io

import pytest
from rich.console import Console

from tests.tokenmark import make
from tokenmark.errors import TokenmarkError
from tokenmark.records import Value
from tokenmark.recordview import beyond_errors, find, print_comparison, print_record
from tokenmark.store import Results


def printed(function, *arguments):
    out = io.StringIO()
    function(*arguments, Console(file=out, width=100, highlight=False))
    return out.getvalue()


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    results = Results(tmp_path_factory.mktemp("results"))
    records = [make.record(seed=seed) for seed in range(20)]
    for record in records:
        results.write(record, {})
    return results, records


def test_found_by_four_digits_or_more(stored):
    results, records = stored
    for record in records[:5]:
        for digits in (8, 12, 64):
            assert find(results, record.run[:digits]) == record


@pytest.mark.parametrize("prefix", ["", "a", "abc", "zzzzz", "0" * 64])
def test_short_or_unknown(stored, prefix):
    with pytest.raises(TokenmarkError, match="give at least 4 digits"):
        find(stored[0], prefix)


def test_ambiguous(tmp_path):
    results = Results(tmp_path)
    record = make.record()
    path = results.write(record, {})
    path.with_name(f"{record.run[:10]}{'0' * 54}.json").write_bytes(b"another whose name begins alike")
    with pytest.raises(TokenmarkError, match=f"2 records .* begin with '{record.run[:8]}'"):
        find(results, record.run[:8])
    assert find(results, record.run[:12]) == record


def value(number, se=None, interval=None):
    return Value(name="x", value=number, n=10, se=se, interval=interval)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (value(1.0, se=0.1), value(1.27, se=0.1), False),  # 1.96 * 0.1 * sqrt 2 = 0.277
        (value(1.0, se=0.1), value(1.29, se=0.1), True),
        (value(1.29, se=0.1), value(1.0, se=0.1), True),
        (value(1.0, interval=(0.8, 1.2)), value(1.27, interval=(1.07, 1.47)), False),
        (value(1.0, interval=(0.8, 1.2)), value(1.3, interval=(1.1, 1.5)), True),
        (value(1.0, se=0.1), value(1.19), False),
        (value(1.0), value(1.21, se=0.1), True),
        (value(1.0), value(1.0), False),
        (value(1.0), value(1.1), None),
    ],
)
def test_beyond_errors(one, other, expected):
    assert beyond_errors(one, other) is expected


def test_a_record_in_full():
    record = make.classified()
    text = printed(print_record, record)
    assert max(map(len, text.replace(f"run {record.run}", "").splitlines())) <= 100
    assert record.run in text
    for item in record.values:
        assert item.name in text
        assert f"{item.value:.6g}" in text
    assert "[0.9535, 0.9833]" in text
    assert "environment python" in text


def test_comparison_says_what_differs_and_only_that():
    one = make.record()
    other = make.record(
        [value(1.0), *make.RECONSTRUCTED[1:]], seed=7, environ=make.environment(libraries={"torch": "2.7.0"})
    )
    text = printed(print_comparison, one, other)
    assert "different experiments" in text
    facts = {line.split()[0] for line in text.splitlines() if line.strip()}
    assert "seed" in facts
    assert "batch_size" not in facts
    assert "2.7.0" in text
    (psnr,) = [line.split() for line in text.splitlines() if line.strip().startswith("psnr ")]
    assert psnr == ["psnr", "27.5", "27.5", "+0", "no"]
    (rfid,) = [line.split() for line in text.splitlines() if line.strip().startswith("rfid ")]
    assert rfid == ["rfid", "12.3457"]


def test_comparison_of_one_experiment_on_two_machines():
    one, other = make.record(), make.record(device="cuda: Made", site="site-other")
    text = printed(print_comparison, one, other)
    assert "the same experiment" in text
    assert "site-other" in text
    assert "Nothing differs" in printed(print_comparison, one, one)
