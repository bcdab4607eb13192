"""The verbs one after the other, as a newcomer uses them."""

import json
import shutil

from tests.e2e.harness import JPEG, ROOT, TOME, Place, write_suite

COLUMNS = 100


def narrow(text: str) -> str:
    """The text, whose tables are at most 100 columns wide."""
    tables = [line for line in text.splitlines() if "http" not in line and "/" not in line[:3] and "─" in line]
    assert all(len(line) <= COLUMNS for line in tables)
    return text


def test_list_names_every_method_with_its_paper_and_link(finished: Place):
    rows = json.loads(finished.call("list", "--json").well())
    shown = finished.call("list").well()
    assert max(map(len, shown.splitlines())) <= COLUMNS
    text = " ".join(shown.split())
    folders = (ROOT / "reference_impls" / kind for kind in ("tokenizers", "generators", "reducers"))
    files = {path.stem.replace("_", "-") for folder in folders for path in folder.glob("[!_]*.py")}
    assert {row["method"] for row in rows} >= files
    assert len({row["method"] for row in rows}) == len(rows)
    for row in rows:
        assert row["link"].startswith("https://")
        for part in (row["method"], row["paper"], row["link"]):
            assert " ".join(part.split()) in text


def test_list_suites_and_protocols(finished: Place):
    suites = json.loads(finished.call("list", "suites", "--json", "--suites", ROOT / "suites").well())
    (mini,) = (row for row in suites if row["suite"] == "mini")
    assert {"suite": "mini", "protocol": "mini"}.items() <= mini.items()
    assert "mini v1" in finished.call("protocols").well()


def test_every_verb_explains_itself(finished: Place):
    for verb in ("list", "run", "show", "compare", "leaderboard", "sync"):
        assert verb in finished.call("--help").well()
        assert "Usage: tokenmark" in finished.call(verb, "--help").well()
    assert finished.call("--version").well().startswith("tokenmark, version ")


def test_a_second_run_has_nothing_to_do(finished: Place, place: Place):
    shutil.copytree(finished.results / "records", place.results / "records")
    before = {path: path.read_bytes() for path in (place.results / "records").rglob("*.*")}
    suite = write_suite(place.folder / "small.toml", JPEG, TOME)
    output = narrow(place.run(suite, "--page").well())
    assert "Nothing to do: all 2 runs were measured already." in output
    assert "1/2 already measured jpeg/q50" in output
    assert {path: path.read_bytes() for path in (place.results / "records").rglob("*.*")} == before
    assert str(place.results / "site" / "index.html") in output


def test_another_batch_size_is_another_run(finished: Place, place: Place):
    shutil.copytree(finished.results / "records", place.results / "records")
    suite = write_suite(place.folder / "small.toml", JPEG.replace(" }", ", batch_size = 100 }"))
    assert "1 measured, 0 already there" in place.run(suite).well()
    paths = list((place.results / "records" / "small" / "jpeg").glob("*.json"))
    assert len(paths) == 2
    output = narrow(place.call("compare", paths[0].stem[:12], paths[1].stem[:12], "--results", place.results).well())
    assert "different experiments" in output
    assert "batch_size" in output
    assert "psnr" in output


def test_show_and_compare(finished: Place):
    records = finished.records()
    output = narrow(finished.call("show", "--results", finished.results).well())
    for word in ("Reconstruction", "jpeg/q50", "maskgit-vq/mini", "Accuracy", "tome r=4", "topk keep_rate=0.7"):
        assert word in output
    run = records["tome"]["run"]
    text = narrow(finished.call("show", run[:12], "--results", finished.results).well())
    for value in records["tome"]["values"]:
        assert value["name"] in text
        assert f"{value['value']:.6g}" in text
    assert (
        json.loads(finished.call("show", run[:12], "--json", "--results", finished.results).well()) == records["tome"]
    )
    both = (run[:12], records["topk"]["run"][:12])
    assert "top1" in narrow(finished.call("compare", *both, "--results", finished.results).well())


def test_leaderboard_goes_where_it_is_told(finished: Place, place: Place):
    out = place.folder / "pages"
    output = finished.call("leaderboard", "--results", finished.results, "--out", out).well()
    assert output.strip() == f"Page: {out / 'index.html'}"
    assert (out / "index.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_a_folder_without_records(place: Place):
    assert "No records in" in place.call("show", "--results", place.results).well()
    place.call("leaderboard", "--results", place.results).well()
    assert "No records yet" in (place.results / "site" / "index.html").read_text(encoding="utf-8")
