import pytest

from tests.tokenmark.claims.made import filed
from tokenmark.claims import files
from tokenmark.errors import ClaimError, UnknownNameError

GOOD = """
version = 1
name = "JPEG"
title = "JPEG"
url = "https://example.org"

[[claims]]
id = "q50-parameters"
about = "quality 50"
quantity = "parameters"
value = "0"
resolution = "unstated"
printed = "table 1"
origin = "paper"
"""


def test_a_folder_is_read_paper_by_paper(tmp_path):
    (tmp_path / "b.toml").write_text(GOOD)
    (tmp_path / "a.toml").write_text(GOOD)
    assert [each.name for each in files.load(tmp_path)] == ["a/q50-parameters", "b/q50-parameters"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text + "=", "is not TOML"),
        (lambda text: text.replace('value = "0"', "value = 0"), "q50-parameters.value"),
        (lambda text: text.replace("origin", "orgin"), "q50-parameters"),
        (lambda text: text.replace("version = 1", "version = 2"), "version"),
        (lambda text: text.partition("[[")[0], "claims"),
        (lambda text: text.replace('quantity = "parameters"', 'quantity = "params"'), "unknown quantity 'params'"),
    ],
)
def test_a_file_of_another_form_is_named_with_its_place(tmp_path, change, says):
    (tmp_path / "a.toml").write_text(change(GOOD))
    with pytest.raises(ClaimError, match=says) as caught:
        files.load(tmp_path)
    assert "a.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "a.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ClaimError, match="is not TOML"):
        files.load(tmp_path)


def test_no_claims_at_all(tmp_path):
    with pytest.raises(ClaimError, match="no claims in"):
        files.load(tmp_path)


def test_claims_are_chosen_by_paper_method_and_name():
    all_of_them = [filed(), filed(id="other", subject={"method": "webp", "variant": "q50"})]
    assert files.chosen(all_of_them, methods=["webp"]) == all_of_them[1:]
    assert files.chosen(all_of_them, papers=["jpeg"]) == all_of_them
    assert files.chosen(all_of_them, names=["jpeg/other"], methods=["jpeg"]) == []


@pytest.mark.parametrize(
    ("asked", "near"),
    [({"papers": ["jpg"]}, "jpeg"), ({"methods": ["jpge"]}, "jpeg"), ({"names": ["jpeg/q50"]}, "jpeg/q50-rfid")],
)
def test_names_that_do_not_exist_get_the_nearest(asked, near):
    with pytest.raises(UnknownNameError, match=f"did you mean {near}"):
        files.chosen([filed()], **asked)
