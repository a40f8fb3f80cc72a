"""A text in its colours as a picture: all of it, nothing cut off, in the colours of the scale."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import made_up
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from decodecli.errors import UsageError, WriteError
from decodecli.render.escaping import model_title
from decodecli.render.html.notebook import Page, Span, text_spans
from decodecli.render.plots import distribution as plots
from decodecli.render.plots import text as text_picture
from decodecli.render.theme import LEVELS, SCALE, hex_colour

TOKENS = [(" To", -0.01, 1), ("kyo", -0.001, 1), (" and", -2.0, 3), (" sud", -3.5, 9)]
TOKENS += [("denly", -0.1, 1), (" whales", -9.0, 812), (".\n", -0.5, 1), ("東京は", -6.0, 300)]


@pytest.fixture(autouse=True)
def _no_warnings() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def shown(tokens: Any = TOKENS, **header: Any) -> Page:
    return text_picture.run_text_page(made_up.header(**header), tokens)


def figure(page: Page) -> Any:
    with plots.style():
        made = text_picture.text_figure(page)
        made.draw_without_rendering()
    return made


def words(made: Any) -> list[str]:
    return [text.get_text() for text in made.axes[0].texts]


def test_settings_prompt_text_and_legend_are_all_there() -> None:
    text = "".join(words(figure(shown()))).replace(" ", "")
    header = made_up.header()
    assert f"seed {header.seed}".replace(" ", "") in text
    assert header.prompt.replace(" ", "") in text
    assert "Tokyoandsuddenlywhales." in text
    assert "probabilityatT=1" in text
    assert all(name in text for name in LEVELS)


@pytest.mark.parametrize("count", [1, 30, 300, 1500])
def test_nothing_is_cut_off_and_nothing_overlaps(count: int) -> None:
    tokens = [(f" word{k % 7}", -float(k % 9), 1) for k in range(count)] + [("x" * 300, -3.0, 2)]
    made = figure(shown(tokens))
    width, height = made.get_size_inches() * made.dpi
    boxes = [text.get_window_extent() for text in made.axes[0].texts]
    for box in boxes:
        assert box.x0 >= 0
        assert box.x1 <= width
        assert box.y0 >= 0
        assert box.y1 <= height
    rows: dict[float, list[Any]] = {}
    for text, box in zip(made.axes[0].texts, boxes, strict=True):
        rows.setdefault(text.get_position()[1], []).append(box)
    for row in rows.values():
        row.sort(key=lambda box: box.x0)
        for one, other in pairwise(row):
            assert one.x1 <= other.x0 + 3, "letters of neighbours touch at most"


def test_a_short_text_is_large_and_fits_a_slide() -> None:
    made = figure(shown())
    sizes = {text.get_fontsize() for text in made.axes[0].texts}
    assert max(sizes) >= 24
    assert min(sizes) >= 12
    assert made.get_size_inches()[1] <= 6.75


def test_a_text_beyond_all_measure_says_what_is_missing() -> None:
    page = Page(header=("model",), spans=tuple(Span(f"line {k}\n", 3) for k in range(2000)))
    made = figure(page)
    assert made.get_size_inches()[1] <= 61
    assert any(re.match(r"… [\d,]+ more characters", word) for word in words(made))


def test_each_token_has_its_step_of_the_scale() -> None:
    made = figure(shown([(" sure", -0.01, 1), (" rare", -8.0, 99)]))
    page_colours = {text.get_text(): to_hex(text.get_color()) for text in made.axes[0].texts}
    assert page_colours["rare"] == hex_colour(SCALE[0].ink)
    assert page_colours["sure"] == "#1b1f23"
    fills = [to_hex(p.get_facecolor()) for p in made.axes[0].patches if isinstance(p, Rectangle)]
    assert fills.count(hex_colour(SCALE[0].fill)) == 3, "a space, a word, and the legend"
    assert to_hex(made.get_facecolor()) == "#ffffff", "readable on a black slide too"


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf", ".html"])
def test_every_format_is_written_and_the_same_twice(tmp_path: Path, suffix: str) -> None:
    files = [tmp_path / f"{name}{suffix}" for name in "ab"]
    for file in files:
        text_picture.check_text_plot(str(file))
        text_picture.draw_page(shown(), str(file))
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].stat().st_size > 1000


def test_a_page_is_escaped_and_fetches_nothing(tmp_path: Path) -> None:
    tokens = [("<script>alert(1)</script>\x1b", -1.0, 1)]
    text_picture.draw_page(shown(tokens, prompt="<b>"), str(tmp_path / "text.html"))
    html = (tmp_path / "text.html").read_text("utf-8")
    assert "<script" not in html
    assert "<b>" not in html
    assert "\x1b" not in html
    assert "default-src 'none'" in html
    assert not re.search(r"(src|href)=", html)


@pytest.mark.parametrize("name", ["text.gif", "text", "text.txt", "-"])
def test_other_suffixes_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"\.png, \.svg, \.pdf or \.html"):
        text_picture.check_text_plot(name)


def test_a_folder_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="there is no folder"):
        text_picture.check_text_plot(str(tmp_path / "none" / "text.png"))


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("/home/me/models/tiny/", "tiny"),
        ("./tiny", "tiny"),
        ("runs/models/tiny", "tiny"),
        (r"C:\models\tiny", "tiny"),
        ("mistralai/Mistral-7B-v0.1", "mistralai/Mistral-7B-v0.1"),
        ("builtin", "builtin"),
        ("/", "/"),
    ],
)
def test_a_title_names_the_model_and_not_its_path(name: str, title: str) -> None:
    assert model_title(name) == title


def test_a_picture_of_a_local_model_has_no_path_in_it() -> None:
    spans = list(text_spans(TOKENS))
    assert spans[0].title == "99.0% at T=1, rank 1"
    header = made_up.header()
    header = replace(header, model=replace(header.model, name="/home/me/models/tiny"))
    page = text_picture.run_text_page(header, TOKENS)
    assert page.header[0].startswith("tiny ")
