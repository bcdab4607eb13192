"""The site as files: complete, linked, self-contained, the same for the same records, safe from what others write."""

import csv
import hashlib
import html
import io
import json
import posixpath
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.tokenmark import make
from tests.tokenmark.leaderboard import made
from tests.tokenmark.leaderboard.made import TOKENIZED, pages
from tokenmark import registry
from tokenmark.claims.judged import VERDICTS
from tokenmark.errors import ClaimError, RecordError, StorageError
from tokenmark.leaderboard import site
from tokenmark.leaderboard.contents import Contents
from tokenmark.records import Value
from tokenmark.store import Results
from tokenmark.tracks import TRACKS, groups

EVIL = "</script><script>alert(1)</script><img src=x onerror='alert(1)'>"
LIMIT = 3_000_000
VENDOR = Path(site.__file__).with_name("vendor")


def records():
    return [
        make.record(TOKENIZED, pictures={"reconstructions": b"png"}),
        make.record(TOKENIZED, method="titok", variant="mini-16", details={"parameters": 5}),
        make.record(method="titok", variant="mini-16", samples=100),
        make.record(method="gone-with-its-package"),
        make.record(implementation=make.digest("older")),
        make.classified(),
        make.classified(method="topk", settings={"keep_rate": 0.7}),
        make.generated(),
    ]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return made.stored_in(tmp_path_factory.mktemp("made"), *records(), pictures={"reconstructions": b"png"})


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    return made.judged(tmp_path_factory.mktemp("claims"), records())


@pytest.fixture(scope="module")
def files(results, judged):
    return made.files(results, judged)


def test_there_is_a_page_for_everything(files, judged):
    assert {
        *("index.html", "methods/index.html", "papers/index.html", "claims/index.html", "records/index.html"),
        *("tracks/reconstruction--mini.html", "tracks/accuracy--mini.html", "tracks/generation--mini.html"),
        *(f"methods/{name}.html" for name in ("jpeg", "titok", "gone-with-its-package", "tome", "topk")),
        *("papers/a-paper.html", *(f"claims/a-paper--{each.claim.id}.html" for each in judged)),
        *(f"records/{record.run}.html" for record in records()),
        *(f"records/{record.run}.json" for record in records()),
    } <= files.keys()


def test_every_link_leads_somewhere(files):
    found = pages(files)
    for path, page in found.items():
        assert len(set(page.ids)) == len(page.ids), path
        for link in (*page.links, *page.loads):
            parts = urlsplit(link)
            if parts.scheme in {"http", "https", "data"}:
                continue
            target = (
                posixpath.normpath(posixpath.join(posixpath.dirname(path), unquote(parts.path))) if parts.path else path
            )
            assert target in files, f"{path} links to {link}"
            if parts.fragment:
                assert unquote(parts.fragment) in found[target].ids, f"{path} links to {link}"


def test_every_page_is_reached_from_the_index(files):
    found, seen, todo = pages(files), set(), ["index.html"]
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        links = (urlsplit(link) for link in found[path].links)
        for parts in links:
            if parts.path and not parts.scheme:
                target = posixpath.normpath(posixpath.join(posixpath.dirname(path), parts.path))
                todo += [target] if target in found else []
    assert seen == set(found)


def test_nothing_is_loaded_from_elsewhere(files):
    for path, page in pages(files).items():
        for load in page.loads:
            assert urlsplit(load).scheme in {"", "data"}, path
            assert not load.startswith("//")
        assert "default-src 'none'" in page.text
        assert "iframe" not in page.tags
    assert not re.search(r"url\(|@import", files["assets/site.css"].decode())
    for name in ("assets/site.js", "assets/plots.js"):
        assert not re.search(r"fetch\(|XMLHttpRequest|sendBeacon|https?://|eval\(|Function\(", files[name].decode())


@pytest.mark.parametrize("name", ["d3.min.js", "plot.umd.min.js"])
def test_what_is_vendored_is_what_was_published(files, name):
    digest = re.search(rf"`{re.escape(name)}` \|.*`([0-9a-f]{{64}})`", (VENDOR / "README.md").read_text("utf-8"))[1]
    assert hashlib.sha256(files[f"vendor/{name}"]).hexdigest() == digest
    assert b"provided that the above copyright notice" in files[f"vendor/{name.split('.')[0]}.LICENSE"]


def test_the_same_records_are_the_same_bytes(results, judged, files):
    assert made.files(Results(results.root), judged) == files


def test_every_number_of_a_track_leads_to_its_value(files):
    page = pages(files)["tracks/accuracy--mini.html"]
    rows = re.findall(r'<tr data-run="([0-9a-f]{64})">(.*?)</tr>', page.text, re.DOTALL)
    assert len(rows) == 2
    for run, row in rows:
        cells = re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL)
        assert len(cells) == 5
        values = {"tokens_left", "macs", "top1", "top1_difference", "top1_mcnemar_p"}
        anchors = set(re.findall(rf'href="\.\./records/{run}\.html#value-([a-z0-9_]+)"', row))
        assert anchors == values
        for cell in cells:
            assert ("<a " in cell) == bool(re.sub(r"<[^>]*>", "", cell).strip())


def test_tables_csv_and_records_say_the_same(results, files):
    seen = 0
    for track in TRACKS:
        for group in groups(track, results.all()):
            [text] = [
                data.decode()
                for path, data in files.items()
                if re.fullmatch(rf"data/{track.id}--mini--[0-9a-f]{{8}}\.csv", path)
                and all(record.run in data.decode() for record in group.records)
            ]
            rows = list(csv.DictReader(io.StringIO(text)))
            assert [row["run"] for row in rows] == [record.run for record in group.records]
            page = files[f"tracks/{track.id}--mini.html"].decode()
            for row, record in zip(rows, group.records, strict=True):
                shown = re.search(rf'<tr data-run="{record.run}">(.*?)</tr>', page, re.DOTALL)[1]
                for text, number in re.findall(r'data-number="([^"]+)"><a href="[^"]*#value-([a-z0-9_]+)"', shown):
                    value = record.value(number)
                    assert float(text) == float(row[number]) == value.value
                    assert row[f"{number}_se"] == ("" if value.se is None else str(value.se))
                    assert row[f"{number}_n"] == str(value.n)
                    seen += 1
    assert seen > 20


def test_rows_that_must_not_be_ranked_together_are_in_tables_of_their_own(files):
    text = files["tracks/reconstruction--mini.html"].decode()
    tables = re.findall(r"<table.*?</table>", text, re.DOTALL)
    subset = next(record.run for record in records() if record.spec.samples == 100)
    [alone] = [table for table in tables if subset in table]
    assert alone.count("data-run=") == 1
    assert "subset: 100 of 500" in alone
    assert all("mini</span>" in table for table in tables)


def test_a_record_lies_beside_its_page_with_its_pictures(results, files):
    for record in records():
        data = files[f"records/{record.run}.json"]
        assert data == results.path(record.spec).read_bytes()
        page = files[f"records/{record.run}.html"].decode()
        for value in record.values:
            assert f'id="value-{value.name}"' in page
            assert f'data-number="{value.value}"' in page
        assert "--method" in page
        assert record.environment.lock_sha256 in page
    run = records()[0].run
    assert files[f"records/{run}.reconstructions.png"] == b"png"
    assert f'<img src="../records/{run}.reconstructions.png"' in files[f"records/{run}.html"].decode()


def test_a_superseded_record_keeps_its_page_and_leaves_the_tables(tmp_path):
    old = make.record(implementation=make.digest("old"))
    new = make.record().model_copy(update={"started": "2027-01-01T00:00:00+00:00"}).sealed()
    files = made.files(made.stored_in(tmp_path, old, new))
    assert "superseded</span>" in files[f"records/{old.run}.html"].decode()
    assert "superseded</span>" not in files[f"records/{new.run}.html"].decode()
    track = files["tracks/reconstruction--mini.html"].decode()
    assert new.run in track
    assert old.run not in track
    assert f"../records/{old.run}.html" in files["methods/jpeg.html"].decode()


def test_methods_that_are_not_installed_keep_their_page(files):
    page = files["methods/gone-with-its-package.html"].decode()
    assert "not installed" in page
    assert "12.3 ± 0.46" in page
    assert registry.get("titok").idea in html.unescape(files["methods/titok.html"].decode())


def test_claims_show_their_verdicts(files, judged):
    everything = files["claims/index.html"].decode()
    for each, verdict in zip(judged, VERDICTS, strict=True):
        page = files[f"claims/a-paper--{each.claim.id}.html"].decode()
        assert f"</span> {verdict}</span>" in page
        assert each.claim.value in page
        assert "table 2" in page
        assert "the source does not say" in page
        assert f'data-verdict="{verdict}"' in everything
        for record in each.records:
            assert f'href="../records/{record.run}.html"' in page
    assert "nox -s bench-mini" in files["claims/a-paper--claim-4.html"].decode()
    rows = list(csv.DictReader(io.StringIO(files["data/claims.csv"].decode())))
    assert [row["verdict"] for row in rows] == list(VERDICTS)
    assert [float(row["claimed"]) for row in rows] == [float(each.claim.value) for each in judged]


def test_a_folder_without_claims_and_one_without_records(tmp_path):
    assert "No records yet" in made.files(Results(tmp_path))["index.html"].decode()
    (tmp_path / "claims").mkdir()
    assert site.judged(tmp_path / "claims", ()) == ()
    index = site.write(Results(tmp_path), tmp_path / "site")
    assert index == tmp_path / "site" / "index.html"
    assert "None yet" in (tmp_path / "site" / "claims" / "index.html").read_text()


def test_a_broken_file_of_claims_is_named(tmp_path):
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "broken.toml").write_text("version = ")
    with pytest.raises(ClaimError, match=r"broken\.toml"):
        site.write(Results(tmp_path), tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_text_of_others_stays_text(tmp_path):
    evil = make.record(
        [*TOKENIZED, Value(name=EVIL, value=1.0, n=1)],
        method="<img src=x onerror=alert(1)>",
        variant=EVIL,
        settings={EVIL: EVIL, "__proto__": ["</script>"]},
        weights={EVIL: make.digest("weights")},
        site=EVIL,
        device=EVIL,
        precision="float32",
        details={EVIL: EVIL, "weights": "random"},
        environ=make.environment(device="cuda", device_name=EVIL, platform=EVIL, libraries={EVIL: EVIL}),
    )
    evil = evil.model_copy(update={"warnings": (EVIL,)}).sealed()
    other = make.record(TOKENIZED, device=EVIL, site=EVIL, method="=cmd|' ! A0")
    judged = made.judged(tmp_path, [evil], title=EVIL, url="javascript:alert(1)", about=EVIL, note=EVIL)
    files = made.files(made.stored_in(tmp_path, evil, other), judged)
    for path, page in pages(files).items():
        assert EVIL not in page.text, path
        assert page.handlers == []
        assert not [link for link in page.links if link.lower().startswith(("javascript:", "data:"))]
        images = [load for load in page.loads if load == "x"]
        assert images == []
        scripts = re.findall(r"<script([^>]*)>(.*?)</script>", page.text, re.DOTALL)
        for attributes, body in scripts:
            assert 'src="' in attributes or json.loads(body)
    csvs = "".join(data.decode() for path, data in files.items() if path.endswith(".csv"))
    assert "'=cmd|" in csvs
    assert not re.search(r"(?m)^=", csvs)


def test_five_hundred_rows_stay_under_three_megabytes():
    many = tuple(
        make.record(TOKENIZED, method=f"method-{place // 10}", tokens=place + 1, seed=place) for place in range(500)
    )
    files = {}
    for path, data in site.pages(Contents(many, {})):
        files[path] = data
        if path == "records/index.html":
            break  # the 500 pages of the records come after their list, and are of no interest here
    for path in ("tracks/reconstruction--mini.html", "records/index.html"):
        page = made.Page(files[path].decode())
        assert page.text.count("data-run=") == 500
        loads = [posixpath.normpath(posixpath.join(posixpath.dirname(path), load)) for load in page.loads]
        assert len(files[path]) + sum(len(files[load]) for load in loads if load in files) < LIMIT


def test_stale_pages_vanish_and_a_damaged_record_leaves_the_old_site(tmp_path):
    first, second = make.record(), make.record(method="webp")
    results = made.stored_in(tmp_path, first, second)
    out = site.write(results, results.root / "site").parent
    assert (out / "methods" / "webp.html").exists()
    results.path(second.spec).unlink()
    site.write(results, out)
    assert not (out / "methods" / "webp.html").exists()
    assert not (out / "records" / f"{second.run}.html").exists()
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    path = results.path(first.spec)
    path.write_bytes(path.read_bytes().replace(b"27.5", b"28.5"))
    with pytest.raises(RecordError, match="was altered"):
        site.write(results, out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_picture_that_vanished_is_named(tmp_path):
    record = make.record(pictures={"reconstructions": b"png"})
    results = made.stored_in(tmp_path, record, pictures={"reconstructions": b"png"})
    next(results.records.rglob("*.png")).unlink()
    with pytest.raises((RecordError, StorageError), match="missing or altered"):
        site.write(results, tmp_path / "site")
