"""The leaderboard in a browser: without a network, sorted, filtered, on a phone, by keyboard, true to the records."""

import json
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.e2e import plugins
from tests.e2e.harness import Place, write_suite
from tests.tokenmark.leaderboard import made
from tokenmark.leaderboard import folder
from tokenmark.leaderboard.contents import Contents, stored
from tokenmark.leaderboard.site import pages
from tokenmark.store import Results

api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

RECONSTRUCTION, ACCURACY = "tracks/reconstruction--mini.html", "tracks/accuracy--mini.html"
EVIL = "<script>document.title='broken'</script><img src=x onerror=\"document.title='broken'\">"


def chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    found = (shutil.which(name) for name in names)
    return os.environ.get("TOKENMARK_CHROMIUM") or next((path for path in found if path), None)


@pytest.fixture(scope="module")
def browser() -> Iterator["api.Browser"]:
    path = chromium()
    if path is None:
        pytest.skip("no Chromium: install one, or name it in TOKENMARK_CHROMIUM")
    with api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield running
        running.close()


class Opened:
    """A page of a site under watch: what it says to the console, and what it asks for beyond the site's files."""

    def __init__(self, browser: "api.Browser", site: Path, path: str, width: int) -> None:
        self.said: list[str] = []
        self.asked: list[str] = []
        self.context = browser.new_context(viewport={"width": width, "height": 800})
        self.page = self.context.new_page()
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        self.root = site.resolve().as_uri() + "/"
        self.context.route("**/*", self._route)
        self.page.goto(self.root + path)

    def _route(self, route: "api.Route") -> None:
        if route.request.url.startswith(self.root):
            route.continue_()
        else:
            self.asked.append(route.request.url)
            route.abort()

    def close(self) -> None:
        self.context.close()
        assert self.said == []
        assert [url for url in self.asked if not url.startswith("data:")] == []


@pytest.fixture(scope="module")
def site(shared: Path) -> Path:
    """The site of an undisturbed run and of claims about one of its methods."""
    results = Results(shared / "results")
    records, folders = stored(results)
    jpeg = next(record for record in records if record.spec.method == "jpeg")
    judged = made.judged(shared, [jpeg])
    folder.replace(shared / "claimed", pages(Contents(records, folders, judged)))
    return shared / "claimed"


@pytest.fixture
def open_page(browser, site: Path):
    opened = []

    def opening(path: str = RECONSTRUCTION, width: int = 1280, at: Path | None = None):
        opened.append(Opened(browser, at or site, path, width))
        return opened[-1].page

    yield opening
    for each in opened:
        each.close()


def numbers(table: "api.Locator", column: int) -> list[float]:
    cells = table.locator("tbody tr").locator(f":nth-child({column + 1})").locator("xpath=self::td|self::th").all()
    return [float(cell.get_attribute("data-number") or "nan") for cell in cells]


def runs(table: "api.Locator") -> list[str]:
    return [row.get_attribute("data-run") for row in table.locator("tbody tr").all()]


def shown(page: "api.Page") -> list[str]:
    return [row.locator("th").inner_text().split("\n")[0] for row in page.locator("tbody tr:visible").all()]


@pytest.mark.parametrize("path", [RECONSTRUCTION, ACCURACY])
def test_headings_sort_their_column_both_ways(open_page, path: str):
    page = open_page(path)
    [table] = page.locator("table.sortable").all()
    turned = False
    for place, button in enumerate(table.locator("thead button").all()):
        button.click()
        rising, order = numbers(table, place), runs(table)
        heading = table.locator("thead th").nth(place)
        assert heading.get_attribute("aria-sort") == "ascending"
        assert table.locator("thead th[aria-sort]").count() == 1
        button.click()
        assert heading.get_attribute("aria-sort") == "descending"
        falling = numbers(table, place)
        there = [number for number in rising if not math.isnan(number)]
        if len(set(there)) > 1:
            assert there == sorted(there)
            assert falling[: len(there)] == sorted(there, reverse=True)
            assert order != runs(table)
            turned = True
        assert all(map(math.isnan, rising[len(there) :] + falling[len(there) :])), "empty cells come last"
        assert set(runs(table)) == set(order)
    assert turned


def test_the_view_is_in_the_address_and_comes_back_with_it(open_page):
    page = open_page(ACCURACY)
    page.get_by_role("button", name="MMACs").click()
    page.get_by_role("button", name="MMACs").click()
    page.get_by_label("Filter").fill("tome R=4")
    assert shown(page) == ["tome r=4 mini"]
    assert page.get_by_role("status").inner_text() == "1 of 2 rows"
    query = page.url.partition("?")[2]
    assert query == "sort=MMACs&order=desc&filter=tome+R%3D4"
    again = open_page(f"{ACCURACY}?{query}")
    assert shown(again) == ["tome r=4 mini"]
    assert again.get_by_label("Filter").input_value() == "tome R=4"
    assert again.locator("th[aria-sort=descending]").inner_text().startswith("MMACs")
    again.get_by_role("button", name="Show all").click()
    again.wait_for_function("location.search === ''")
    assert len(shown(again)) == 2
    assert again.get_by_role("status").inner_text() == "2 rows"


def test_claims_are_chosen_by_verdict(open_page):
    page = open_page("claims/index.html?verdict=not+run")
    assert page.locator("tbody tr:visible").get_by_text("not run").count() == 1
    assert page.get_by_role("status").inner_text() == "1 of 5 rows"
    page.get_by_label("Verdict").select_option("reproduced")
    assert page.locator("tbody tr:visible").get_by_text("reproduced").count() == 1
    assert page.url.endswith("?verdict=reproduced")
    page.get_by_label("Verdict").select_option("")
    assert page.get_by_role("status").inner_text() == "5 rows"
    assert "?" not in page.url


def test_from_the_index_to_a_number_and_its_record(open_page, finished: Place):
    record = finished.records()["tome"]
    page = open_page("index.html")
    page.get_by_role("listitem").filter(has_text="Top-1 of a classifier").get_by_role("link").click()
    page.locator(f"tr[data-run='{record['run']}'] td a").filter(has_text="[").first.click()
    target = page.locator(":target")
    assert target.get_attribute("id") == "value-top1"
    [top1] = [value["value"] for value in record["values"] if value["name"] == "top1"]
    assert float(target.locator("td").first.get_attribute("data-number")) == top1
    assert "run small --method tome" in page.get_by_label("Commands").inner_text()
    link = page.get_by_role("link", name="the record as JSON").get_attribute("href")
    file = Path(unquote(urlsplit(page.url).path)).parent / link
    assert json.loads(file.read_bytes()) == record
    page.get_by_role("link", name="tome", exact=True).first.click()
    assert page.get_by_text("Token Merging: Your ViT But Faster").count() == 1


def test_pictures_are_shown(open_page, finished: Place):
    page = open_page(f"records/{finished.records()['jpeg']['run']}.html")
    picture = page.locator("img").first
    picture.scroll_into_view_if_needed()
    page.wait_for_function("image => image.complete && image.naturalWidth > 100", arg=picture.element_handle())
    assert "originals above" in picture.get_attribute("alt")


@pytest.mark.parametrize("width", [360, 390, 1280])
def test_plots_have_names_intervals_and_a_front(open_page, width: int):
    page = open_page(ACCURACY, width)
    plot = page.get_by_role("img", name="Accuracy against cost")
    assert plot.count() == 1
    text = " ".join(plot.locator("text").all_text_contents())
    for name in ("tome r=4", "topk keep_rate=0.7", "top-1 % (higher is better)"):
        assert name in text
    marks = plot.locator("path[transform]")
    shapes = {mark.get_attribute("d") for mark in marks.all()}
    assert len(shapes) >= 2, "methods are told apart by shape"
    assert plot.locator("line").count() >= 2, "intervals"
    data = page.locator("figure a[download]").get_attribute("href")
    file = Path(unquote(urlsplit(page.url).path)).parent / data
    assert file.read_text().startswith("method,run,macs,macs_low,macs_high,top1,top1_low,top1_high,pareto\n")


def everything(finished: Place) -> list[str]:
    """A page of every kind."""
    return [
        *("index.html", RECONSTRUCTION, ACCURACY),
        *("methods/index.html", "methods/jpeg.html", "papers/index.html", "papers/a-paper.html"),
        *("claims/index.html", "claims/a-paper--claim-3.html", "claims/a-paper--claim-4.html"),
        *("records/index.html", f"records/{finished.records()['jpeg']['run']}.html"),
    ]


def test_every_kind_of_page_fits_its_window(open_page, site: Path, finished: Place):
    page = open_page()
    for path in everything(finished):
        page.goto((site / path).as_uri())
        for width in (360, 768, 1280):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path


def test_axe_finds_nothing_on_any_kind_of_page(open_page, site: Path, finished: Place):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    # what it would load again to look into style sheets, the pages' policy forbids
    options = {"resultTypes": ["violations"], "preload": False}
    page = open_page()
    for path in everything(finished):
        page.goto((site / path).as_uri())
        for width, scheme in ((360, "light"), (1280, "dark")):
            page.set_viewport_size({"width": width, "height": 800})
            page.emulate_media(color_scheme=scheme)
            found = axe.Axe().run(page, options=options).response
            assert len(found["passes"]) > 10
            problems = [(each["id"], [node["html"] for node in each["nodes"]]) for each in found["violations"]]
            assert problems == [], f"{path}, {width} px, {scheme}"


def test_a_keyboard_reaches_and_works_all_controls(open_page):
    page = open_page(ACCURACY)
    seen = []
    for _ in range(60):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.textContent.trim() || document.activeElement.name"))
        if seen[-1] == "top-1 %":
            break
    assert seen[0] == "Skip to the content"
    assert {"Methods", "filter", "Show all", "method", "MMACs", "top-1 %"} <= set(seen)
    page.keyboard.press("Enter")
    assert page.locator("th[aria-sort=ascending]").inner_text().startswith("top-1 %")
    page.keyboard.press("Space")
    assert page.locator("th[aria-sort=descending]").inner_text().startswith("top-1 %")
    assert page.evaluate("document.activeElement.textContent.trim()") == "top-1 %", "the focus stays"


def test_without_scripts_tables_and_data_are_there(browser, site: Path):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((site / ACCURACY).as_uri())
    assert page.locator("tbody tr").count() == 2
    assert page.get_by_text("This table as CSV").is_visible()
    assert not page.locator("form").is_visible()
    assert page.locator("th button").count() == 0
    context.close()


SHOWN = {
    RECONSTRUCTION: (
        "Reconstruction",
        {
            "tokens": "tokens_per_image",
            "bits/px": "bits_per_pixel",
            "rFID": "rfid",
            "PSNR dB": "psnr",
            "SSIM": "ssim",
            "codes %": "codebook_use",
            "entropy": "codebook_entropy",
        },
    ),
    ACCURACY: (
        "Accuracy",
        {
            "left": "tokens_left",
            "MMACs": "macs",
            "top-1 %": "top1",
            "top-5": "top5",
            "difference": "top1_difference",
            "p": "top1_mcnemar_p",
        },
    ),
}


def test_site_table_and_mlflow_say_what_the_records_say(open_page, finished: Place):
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed")
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{finished.results / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tokenmark/small").experiment_id
    metrics = {run.data.tags["tokenmark.run"]: run.data.metrics for run in client.search_runs([experiment])}
    printed = " ".join(finished.call("show", "--results", finished.results).well().split())
    records = {record["run"]: record for record in finished.records().values()}
    seen = 0
    for path, (title, columns) in SHOWN.items():
        page = open_page(path, at=finished.results / "site")
        table = page.get_by_role("region", name=title).locator("table")
        headings = [text.strip() for text in table.locator("thead th").all_inner_texts()]
        assert headings == ["method", *columns]
        for row in table.locator("tbody tr").all():
            run = row.get_attribute("data-run")
            values = {value["name"]: value["value"] for value in records[run]["values"]}
            cells = row.locator("td").all()
            for cell, name in zip(cells, columns.values(), strict=True):
                number = cell.get_attribute("data-number")
                if number is None:
                    assert name not in values
                    assert cell.inner_text() == ""
                    continue
                assert float(number) == values[name] == metrics[run][name]
                seen += 1
            told = [row.locator("th a").inner_text(), *(cell.inner_text() for cell in cells)]
            assert " ".join(" ".join(told).split()) in printed
    assert seen == 5 + 7 + 6 + 6
    for run, record in records.items():
        page.goto((finished.results / "site" / "records" / f"{run}.html").as_uri())
        rows = page.get_by_role("region", name="Values").locator("tbody tr").all()
        told = {
            row.locator("th").inner_text(): float(row.locator("td").first.get_attribute("data-number")) for row in rows
        }
        assert told == {value["name"]: value["value"] for value in record["values"]}


def test_text_of_others_stays_text(open_page, place: Place):
    """A stranger's package puts markup into everything that it may name: title, paper, link, setting and warning."""
    source = plugins.reducer("evil", title=EVIL.replace('"', '\\"'), url="javascript:alert(1)")
    source = source.replace(
        "def build(",
        "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass S:\n    text: str = 'a'\ndef build(",
    )
    source = source.replace("    build=build,", "    build=build,\n    settings=S,")
    place.path = (plugins.install(place.folder / "site", "stranger", {"evil": source}),)
    line = plugins.job("evil").replace(" }", f", settings = {{ text = {json.dumps(EVIL)} }} }}")
    suite = write_suite(place.folder / "small.toml", line)
    act = "def act(): raise MemoryError()\nfaults.at_call('tokenmark.measures.accuracy', 'Accuracy.update', 1, act)"
    place.run(suite, "--page", before=act).well()
    [record] = place.records().values()
    assert record["spec"]["settings"] == {"text": EVIL}
    site = place.results / "site"
    for file in site.rglob("*.html"):
        assert EVIL not in file.read_text(encoding="utf-8")
    page = open_page(ACCURACY, at=site)
    assert page.title() == "Accuracy, protocol mini · Tokenmark"
    assert page.locator("main img, main script:not([type='application/json'])").count() == 0
    assert EVIL in page.locator("tbody th a").first.inner_text()
    page.locator("tbody th a").first.click()
    assert page.locator("main img, main script").count() == 0
    assert "batch halved to 10" in page.locator(".notice").first.inner_text()
    page.locator(".crumbs a").last.click()
    assert page.get_by_role("heading", level=1).inner_text().startswith("evil")
    assert EVIL in page.locator("dl").first.inner_text()
    assert page.locator("a[href^='javascript']").count() == 0
