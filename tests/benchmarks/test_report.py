"""The page of measured speeds: each benchmark writes its own section and no other."""

from benchmarks import report


def test_a_section_is_added_replaced_and_leaves_the_others():
    page = report.with_section(report.HEAD, "one", "first\n")
    page = report.with_section(page, "two", "second")
    assert page.startswith(report.HEAD.rstrip())
    assert page.index("first") < page.index("second")
    again = report.with_section(page, "one", "new\n\nlines")
    assert again == page.replace("first", "new\n\nlines")
    assert report.with_section(again, "one", "first") == page


def test_the_page_is_begun_and_kept(tmp_path):
    page = tmp_path / "docs" / "measured.md"
    for name in ("one", "two", "one"):
        report.write_section(name, f"text of {name}", page)
    text = page.read_text()
    assert text.startswith("# Measured\n")
    assert text.count("text of one") == text.count("text of two") == 1


def test_table():
    assert report.table([("a", "b"), ("c", "1")]) == "| a | b |\n| --- | ---: |\n| c | 1 |"
