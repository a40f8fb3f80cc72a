"""The page of a sweep: it stands alone, holds what it should, and nothing in it is taken for HTML."""

from __future__ import annotations

import base64
import hashlib
import html
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from sweep_inputs import HOSTILE, WORDS, record, records, summary

from decodecli.records.metrics import METRICS
from decodecli.records.sweep import Estimate
from decodecli.render.html.sweep_report import TOKENS, chosen, report_html
from decodecli.render.plots.sweep_data import METRIC
from decodecli.render.theme import LEVELS

AXES = {"temperature": (0.2, 1.0, 1.8)}
VOID = {"meta", "img", "br", "input"}


class Page(HTMLParser):
    """The elements of a page, and that each is closed."""

    def __init__(self, text):
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.setdefault(self.open[-1] if self.open else "", []).append(data)

    def all(self, tag, **wanted):
        return [a for t, a in self.elements if t == tag and wanted.items() <= a.items()]


@pytest.fixture(scope="module")
def plain():
    return report_html(summary(AXES), records(), toml="temperature = [0.2, 1.0, 1.8]\n")


def test_the_page_is_well_formed_and_asks_the_network_for_nothing(plain):
    page = Page(plain)
    assert plain.startswith("<!doctype html>")
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "base"), tag
        for name in ("src", "href", "action", "data"):
            assert attributes.get(name, "data:").startswith("data:")
    assert "http" not in re.sub(r"http-equiv", "", plain)
    (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    (script,) = page.texts["script"]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy["content"]
    assert "default-src 'none'" in policy["content"]


def test_every_number_is_in_the_table_and_sorts_by_its_full_value(plain):
    rows = re.findall(r"<tr>(<td.*?)</tr>", plain)
    sweep = summary(AXES)
    assert len(rows) == len(sweep.settings)
    for row, setting in zip(rows, sweep.settings, strict=True):
        values = [float(v) for v in re.findall(r'data-v="([^"]*)"', row)]
        assert values == [
            setting.setting["temperature"],
            setting.cells,
            *(found.value for found in setting.numbers.values()),
        ]
        for name, found in setting.numbers.items():
            assert f">{METRIC[name].text(found.value)}<small>" in row


def test_a_number_that_is_the_same_everywhere_is_told_once():
    sweep = summary(AXES)
    for setting in sweep.settings:
        setting.numbers["repetition_rate"] = Estimate(0.0, 0.0, 0.4, 5)
    text = report_html(sweep, records())
    assert "The same at every setting: repetition 0.0%" in text
    assert ">repetition<" not in text
    assert text.count("<th ") == 2 + len(METRICS) - 1


def test_headings_are_buttons_with_a_scope(plain):
    page = Page(plain)
    assert len(page.all("th", scope="col")) == len(page.all("th")) == len(page.all("button"))
    assert page.all("html", lang="en")


def test_nothing_from_outside_is_taken_for_html_or_reaches_the_page_raw():
    cells = records((0.2, 1.0), seeds=2, prompts=HOSTILE, vocabulary=HOSTILE)
    cells += [record(999, words=(), error="<b>\x1b[2J", prompt_id="<img src=x onerror=alert(1)>")]
    axes = {"temperature": (0.2, 1.0), "stop": (HOSTILE, ("</script>",))}
    sweep = summary(axes, tasks=HOSTILE, name='"><script>alert(1)</script>')
    for cell in cells:
        cell.params["stop"] = list(HOSTILE)
    text = report_html(sweep, cells, toml="</pre><script>alert(1)</script>\x1b[2J")
    page = Page(text)
    assert len(page.all("script")) == 1
    assert not page.all("b", **{"onerror": "alert(1)"})
    assert not page.all("img")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text)
    assert html.escape("<script>alert(1)</script>") in text
    text.encode("utf-8")


def test_every_token_has_its_colour_and_its_probability(plain):
    page = Page(plain)
    tokens = [a for a in page.all("span") if "title" in a]
    shown = {(cell.params["temperature"], cell.token_ids) for cell in records()}
    assert len(tokens) == sum(len(ids) for _, ids in shown)
    assert {a["class"] for a in tokens} <= {f"p{k}" for k in range(len(LEVELS))}
    found = Page(report_html(summary(AXES), [record(words=(" x",), logprobs=(-7.0,))]))
    (token,) = [a for a in found.all("span") if "title" in a]
    assert token == {"class": "p0", "title": "0.09%"}


def test_texts_are_whole_and_marked_where_they_part():
    one = record(0, words=(" a", " b", " c"), temperature=0.2)
    two = record(1, words=(" a", " x"), temperature=1.0)
    text = report_html(summary(AXES), [one, two])
    first, second = re.findall(r"<p class=text>(.*?)</p>", text)
    assert re.sub("<[^>]*>", "", first) == " a b c"
    assert re.sub("<[^>]*>", "", second) == " a▸ x"
    assert "first 1 alike" in text


def test_newlines_stay_and_joined_tokens_are_the_text():
    cell = record(words=("a\n", "\tb", "日本"))
    text = report_html(summary(AXES), [cell])
    (shown,) = re.findall(r"<p class=text>(.*?)</p>", text, re.DOTALL)
    assert html.unescape(re.sub("<[^>]*>", "", shown)) == cell.text


def test_each_setting_shows_its_first_cells_and_the_page_says_how_many_there_are():
    cells = records(AXES["temperature"], seeds=20, prompts=("one", "two"))
    sweep = summary(AXES, finished=len(cells))
    kept = chosen(sweep, reversed(cells), 12)
    assert [cell.index for cell in kept] == [0, 1, 2, 3, 20, 21, 22, 23, 40, 41, 42, 43]
    text = report_html(sweep, cells, most=12)
    assert len(re.findall("<article", text)) == 12
    assert "12 of 120 texts" in text


def test_values_of_lists_find_their_setting_whatever_form_they_have():
    sweep = summary({"stop": (("a",), ("b",)), "bos": (True, False)})
    cells = [
        record(k, params={"stop": list(stop), "bos": bos})
        for k, (stop, bos) in enumerate([(("a",), True), (("b",), False)])
    ]
    assert chosen(sweep, cells, 400) == cells


def test_a_very_long_text_is_cut_and_says_so():
    cell = record(words=WORDS * 100)
    text = report_html(summary(AXES), [cell])
    assert f"{len(cell.segments) - TOKENS} tokens more" in text


def test_pictures_are_taken_in_and_described(tmp_path):
    (tmp_path / "metrics.png").write_bytes(b"\x89PNG picture")
    (tmp_path / "quality-diversity.svg").write_text("<svg><script>alert(1)</script></svg>")
    (tmp_path / "x.pdf").write_bytes(b"%PDF")
    text = report_html(summary(AXES), [], sorted(tmp_path.iterdir()))
    images = Page(text).all("img")
    kinds = [image["src"].split(";")[0] for image in images]
    assert kinds == ["data:image/png", "data:image/svg+xml"]
    assert base64.b64decode(images[0]["src"].split(",")[1]) == b"\x89PNG picture"
    assert all("temperature (0.2, 1, 1.8)" in image["alt"] for image in images)
    assert "<figcaption>The numbers over temperature, with 95 % intervals</figcaption>" in text
    assert "Quality against diversity: a point a setting, labelled by temperature" in text


def test_what_is_constant_and_the_prompts_stand_at_the_top():
    constant = {"max_new_tokens": 20, "top_k": 40, "bos": None}
    cells = [*records(prompts=("one", "two")), record(99, prompt_id="<b>", prompt="x\x1b<i>")]
    top = report_html(summary(AXES, constant=constant), cells).partition("<h2>")[0]
    assert "Constant: top_k 40 · up to 20 tokens · BOS auto" in top
    assert re.findall("<li><b>(.*?)</b> (.*?)</li>", top) == [
        ("one", "The capital of Japan is"),
        ("two", "The capital of Japan is"),
        ("&lt;b&gt;", "x␛&lt;i&gt;"),
    ]
    alone = report_html(summary(AXES), records()).partition("<h2>")[0]
    assert "Prompt: <q>The capital of Japan is</q>" in alone


def test_a_text_that_another_seed_gave_is_not_shown_again():
    cells = [record(k, temperature=0.2, seed=k % 3) for k in range(3)]
    cells += [record(3 + k, temperature=1.0, seed=k, words=(f" {k}",)) for k in range(3)]
    text = report_html(summary(AXES), cells)
    assert len(re.findall("<p class=text>", text)) == 4
    assert text.count("the same text as with seed 0") == 2


def test_numbers_of_many_digits_are_shown_in_few():
    sweep = summary({"temperature": (0.17782794100389, 0.31622776601684)})
    cells = records((0.17782794100389, 0.31622776601684), seeds=1)
    text = report_html(sweep, cells)
    assert len(re.findall("<h4>T 0.178</h4>", text)) == 1
    assert ">0.178<" in text
    assert "0.17782794" not in text


def test_a_sweep_without_anything_has_a_page_too():
    Page(report_html(summary({}, settings=(), finished=0), []))


@pytest.mark.browser
def test_a_heading_sorts_in_a_browser(plain, tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no browser")
    page = re.sub(r"<meta http-equiv[^>]*>", "", plain)
    click = "<script>document.querySelectorAll('th button')[2].click()</script></body>"
    (tmp_path / "page.html").write_text(page.replace("</body>", click), encoding="utf-8")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    shown = subprocess.run(
        [*command, f"file://{tmp_path}/page.html"],
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    ).stdout
    rows = re.findall(r"<tr>(<td.*?)</tr>", shown, re.DOTALL)
    values = [float(re.findall(r'data-v="([^"]*)"', row)[2]) for row in rows]
    assert len(values) == 3
    assert values == sorted(values)
    assert values != [float(v) for v in re.findall(r'data-v="(-[^"]*)"', plain)]


@pytest.mark.browser
@pytest.mark.parametrize(
    ("words", "rows", "texts"),
    [("T 1", 1, 3), ("t 0.2", 1, 3), ("seed 1", 0, 3), ("no such", 0, 0), ("", 6, 9)],
)
def test_a_word_filters_rows_and_texts_in_a_browser(words, rows, texts, tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no browser")
    axes = {"temperature": (0.2, 1.0, 1.8, 2.2, 2.4, 2.6)}
    page = report_html(summary(axes), records((0.2, 1.0, 1.8)))
    page = re.sub(r"<meta http-equiv[^>]*>", "", page)
    typed = (
        "<script>for (const field of document.querySelectorAll('input')) {"
        f"field.value = {words!r}; field.dispatchEvent(new Event('input')); }}</script></body>"
    )
    (tmp_path / "page.html").write_text(page.replace("</body>", typed), encoding="utf-8")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    shown = subprocess.run(
        [*command, f"file://{tmp_path}/page.html"],
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    ).stdout
    assert len(re.findall("<tr><td", shown)) == rows
    assert len(re.findall(r"<article(?: class=.again.)?>", shown)) == texts
