from tests.tokenmark import make
from tokenmark.claims import arithmetic
from tokenmark.records import Value

DETAILS = {
    "cost": {
        "embed": 10,
        "head": 5,
        "head_per_token": 2,
        "blocks": [{"linear": 3, "pairs": 1, "mlp": 4}],
        "depth": 3,
    },
    "schedule": [[8, 8], [8, 6], [6, 6]],
}


def test_the_sum_is_written_out_as_it_comes_about():
    total = 10 + 3 * (8 + 8 + 6) + 1 * (64 + 64 + 36) + 4 * (8 + 6 + 6) + (5 + 2 * 6)
    values = [Value(name="macs", value=total, n=1), Value(name="macs_method", value=7, n=1)]
    text = arithmetic.macs(make.record(values, details=DETAILS))
    assert text == (
        "10 (patches) + 3 x 22 + 1 x 164 + 4 x 20 + 17 (head) = 337 MACs, and 7 of the method's own, with"
        " N = 8 (2 times), 6, N' = 8, 6 (2 times)"
    )
    assert total == 337


def test_what_was_counted_operation_by_operation_has_no_sum():
    assert arithmetic.macs(make.record([Value(name="macs", value=1.0, n=1)])) == ""
