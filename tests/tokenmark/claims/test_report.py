import io
import json

import pytest
from rich.console import Console

from tests.tokenmark import make
from tests.tokenmark.claims.made import filed
from tokenmark.claims import report
from tokenmark.claims.commands import Commands
from tokenmark.claims.verdict import judge


@pytest.fixture
def judged():
    claims = [filed(), filed(id="off", value="11.0"), filed(id="else", subject={}, about="a [bold]strange[/] | one")]
    return judge(claims, [make.record()], Commands())


def printed(judged, **changes) -> str:
    out = Console(width=100, record=True, file=io.StringIO())
    report.print_table(judged, **{"reasons": False, "to": out, **changes})
    return out.export_text()


def test_every_verdict_is_told_in_words_and_by_a_sign(judged):
    text = printed(judged)
    assert "= reproduced" in text
    assert "x not reproduced" in text
    assert "? not run" in text
    assert "12.34568" in text
    assert "[bold]strange[/]" in text
    assert "3 claims of 1 paper: 1 reproduced, 1 not reproduced, 1 not run" in text
    assert max(map(len, text.splitlines()[:8])) <= 100


def test_without_the_whole_what_was_not_run_is_counted_alone(judged):
    text = printed(judged, whole=False)
    assert "1 more" in text
    assert "strange" not in text
    assert "--verdict 'not run'" in text


def test_few_claims_are_told_with_their_arithmetic(judged):
    assert "measured 12.34568, claimed 11.0: 1.345678 apart, more than 0.052" in " ".join(printed(judged).split())


def test_json_holds_the_claim_and_its_runs(judged):
    first, off, _ = json.loads(report.to_json(judged))
    assert first["verdict"] == "reproduced"
    assert first["claim"]["value"] == "12.3"
    assert first["runs"] == [make.record().run]
    assert off["measured"] == pytest.approx(12.345678)


def test_markdown_has_a_row_each_and_escapes_what_would_end_a_cell(judged):
    lines = report.to_markdown(judged).splitlines()
    assert len([line for line in lines if line.startswith("| ")]) == 1 + len(judged)
    assert all(line.replace("\\|", "").count("|") == 7 for line in lines if line.startswith("| "))


def test_counts_are_of_all_five(judged):
    assert report.counts(judged) == {
        "reproduced": 1,
        "better": 0,
        "not reproduced": 1,
        "protocol differs": 0,
        "not run": 1,
    }
