"""The leaderboard in a browser: it works without a network, sorts, fits a phone, and says what the records say."""

import json
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import plugins
from tests.e2e.harness import Place, write_suite

api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

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
    """A page under watch: what it says to the console, and whom it asks for anything."""

    def __init__(self, browser: "api.Browser", file: Path, width: int, fragment: str = "") -> None:
        self.said: list[str] = []
        self.asked: list[str] = []
        self.context = browser.new_context(viewport={"width": width, "height": 800})
        self.page = self.context.new_page()
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        self.context.route("**/*", self._route)
        self.address = file.as_uri()
        self.page.goto(self.address + fragment)

    def _route(self, route: "api.Route") -> None:
        if route.request.url.partition("#")[0] == self.address:
            route.continue_()
        else:
            self.asked.append(route.request.url)
            route.abort()

    def close(self) -> None:
        self.context.close()
        assert self.said == []
        assert [url for url in self.asked if not url.startswith("data:")] == []


@pytest.fixture
def open_page(browser, finished: Place):
    opened = []

    def opening(width: int = 1280, fragment: str = "", file: Path | None = None):
        opened.append(Opened(browser, file or finished.results / "site" / "index.html", width, fragment))
        return opened[-1].page

    yield opening
    for each in opened:
        each.close()


def numbers(table: "api.Locator", column: int) -> list[float]:
    cells = table.locator(f"tbody tr td:nth-child({column + 1})").all()
    return [float(cell.get_attribute("data-number") or "nan") for cell in cells]


def runs(table: "api.Locator") -> list[str]:
    return [row.get_attribute("data-run") for row in table.locator("tbody tr").all()]


def test_headings_sort_their_column_both_ways(open_page):
    page = open_page()
    tables = page.locator("section table:has(thead button)").all()
    assert len(tables) == 2
    for table in tables:
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


def test_a_method_leads_to_its_record(open_page, finished: Place):
    page = open_page()
    run = finished.records()["tome"]["run"]
    entry = page.locator(f"details#run-{run}")
    assert not entry.evaluate("element => element.open")
    page.locator(f"tr[data-run='{run}'] a").first.click()
    page.wait_for_function("element => element.open", arg=entry.element_handle())
    assert entry.get_by_text("Token Merging").count() == 1
    link = entry.locator("a", has_text=f"{run}.json").get_attribute("href")
    record = (finished.results / "site" / link).resolve()
    assert json.loads(record.read_bytes()) == finished.records()["tome"]


def test_a_link_from_elsewhere_opens_the_record(open_page, finished: Place):
    run = finished.records()["jpeg"]["run"]
    page = open_page(fragment=f"#run-{run}")
    assert page.locator(f"details#run-{run}").evaluate("element => element.open")
    picture = page.locator(f"details#run-{run} img").first
    assert picture.evaluate("image => image.complete && image.naturalWidth > 100")
    assert "originals above" in picture.get_attribute("alt")


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_the_page_fits_its_window(open_page, width: int):
    page = open_page(width)
    page.evaluate("for (const entry of document.querySelectorAll('details')) entry.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("getComputedStyle(document.body).fontFamily") != ""
    assert page.locator("figure.plot svg text").count() > 0


SHOWN = {
    "Reconstruction": {
        "tokens": "tokens_per_image",
        "bits/px": "bits_per_pixel",
        "rFID": "rfid",
        "PSNR dB": "psnr",
        "SSIM": "ssim",
        "codes %": "codebook_use",
        "entropy": "codebook_entropy",
    },
    "Accuracy": {
        "left": "tokens_left",
        "MMACs": "macs",
        "top-1 %": "top1",
        "top-5": "top5",
        "difference": "top1_difference",
        "p": "top1_mcnemar_p",
    },
}


def test_page_table_and_mlflow_say_what_the_records_say(open_page, finished: Place):
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed")
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{finished.results / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tokenmark/small").experiment_id
    metrics = {run.data.tags["tokenmark.run"]: run.data.metrics for run in client.search_runs([experiment])}
    printed = " ".join(finished.call("show", "--results", finished.results).well().split())
    records = {record["run"]: record for record in finished.records().values()}
    page = open_page()
    seen = 0
    for title, columns in SHOWN.items():
        table = page.get_by_role("region", name=title).locator("table")
        headings = [text.strip() for text in table.locator("thead th").all_inner_texts()]
        assert headings == ["method", *columns]
        for row in table.locator("tbody tr").all():
            run = row.get_attribute("data-run")
            values = {value["name"]: value["value"] for value in records[run]["values"]}
            cells = row.locator("td").all()
            for cell, name in zip(cells[1:], columns.values(), strict=True):
                number = cell.get_attribute("data-number")
                if number is None:
                    assert name not in values
                    assert cell.inner_text() == ""
                    continue
                assert float(number) == values[name] == metrics[run][name]
                seen += 1
            assert " ".join(" ".join(cell.inner_text() for cell in cells).split()) in printed
    assert seen == 5 + 7 + 6 + 6
    for run, record in records.items():
        details = page.locator(f"details#run-{run}")
        shown = {
            row.locator("td").first.text_content(): float(row.locator("td").nth(1).get_attribute("data-number"))
            for row in details.locator("table tbody tr").all()
        }
        assert shown == {value["name"]: value["value"] for value in record["values"]}


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
    file = place.results / "site" / "index.html"
    assert EVIL not in file.read_text(encoding="utf-8")
    page = open_page(file=file)
    assert page.title() == "Tokenmark leaderboard"
    assert page.locator("main img, main script").count() == 0
    assert page.locator("a[href^='javascript']").count() == 0
    assert EVIL in page.locator("tbody a").first.inner_text()
    page.locator("details summary").first.click()
    assert "batch halved to 10" in page.locator("details dl").first.inner_text()
