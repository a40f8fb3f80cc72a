"""`generate --plot` and `inspect-logits --all-positions --plot`."""

from __future__ import annotations

import pytest

pytest.importorskip("matplotlib")


@pytest.fixture(autouse=True)
def _here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def test_generate_draws_its_text_beside_everything_else(cli, tmp_path) -> None:
    done = cli("generate", "Once upon", "--seed", "0", "-n", "4", "--plot", "text.html").succeeded()
    html = (tmp_path / "text.html").read_text("utf-8")
    assert done.out.strip().split(" ")[0] in html
    assert "seed 0" in html
    assert "probability at T=1" in html


def test_several_samples_are_several_pictures(cli, tmp_path) -> None:
    cli(
        "generate", "Hi", "--seed", "5", "--num-samples", "2", "-n", "2", "--plot", "t.svg"
    ).succeeded()
    assert sorted(path.name for path in tmp_path.glob("t*.svg")) == ["t-1.svg", "t-2.svg"]


def test_all_positions_are_drawn_too(cli, tmp_path) -> None:
    cli("inspect-logits", "Once upon a time", "--all-positions", "--plot", "t.png").succeeded()
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "command", [["generate", "Hi"], ["inspect-logits", "Hi", "--all-positions"]]
)
def test_a_file_that_cannot_be_drawn_is_refused_before_anything_is_done(cli, command) -> None:
    cli(*command, "--plot", "t.gif").refused(2, ".png, .svg, .pdf or .html")
    cli(*command, "--plot", "none/t.png").refused(1, "no folder none")


def test_kinds_of_plots_are_of_one_distribution(cli) -> None:
    done = cli("inspect-logits", "Hi", "--all-positions", "--plot", "t.png", "--plot-kind", "bars")
    done.refused(2, "--plot-kind")


def test_a_picture_and_a_trace_are_two_files(cli) -> None:
    done = cli("generate", "Hi", "--plot", "a.html", "--trace", "./a.html")
    done.refused(2, "--plot a.html and --trace ./a.html would be one file")


def test_a_page_of_its_steps_is_written_for_each_sample(cli, tmp_path):
    page = tmp_path / "page.html"
    result = cli("generate", "Once", "-n", "3", "--html", str(page)).succeeded()
    assert f"the page is in {page}" in " ".join(result.err.split())
    assert "decodecli-data" in page.read_text()
    cli("generate", "Once", "-n", "2", "--num-samples", "2", "--html", str(page)).succeeded()
    assert (tmp_path / "page-1.html").is_file()
    assert (tmp_path / "page-2.html").is_file()
    cli("generate", "Once", "--html", "page.txt").refused(2, "must end in .html")
    cli("generate", "Once", "--html", str(tmp_path / "no" / "a.html")).refused(1, "no folder")
    cli("generate", "Once", "--num-beams", "2", "--html", str(page)).refused(2, "--html shows one")
