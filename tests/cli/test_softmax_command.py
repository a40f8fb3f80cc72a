"""`decodecli softmax` as typed, piped and misused."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys

import pytest

ESSAY = ("day=5.0", "space=2.2", "furniture=2.0", "heaven=4.5", "moon=3.0", "wood=2.7")


def test_the_italian_essays_numbers_come_out_unrounded(cli):
    found = json.loads(cli("softmax", *ESSAY, "--format", "json").succeeded().out)
    (column,) = found["temperatures"]
    values = {row["token"]: row["probability"] for row in column["tokens"]}
    expected = [0.512106, 0.031141, 0.025496, 0.310608, 0.069306, 0.051343]
    assert [round(values[word.split("=")[0]], 6) for word in ESSAY] == expected
    assert values["day"] != round(values["day"], 6)


@pytest.mark.parametrize("format", ["table", "json", "jsonl", "csv"])
def test_the_order_of_the_input_can_be_kept(cli, format):
    def order(*options):
        out = cli("softmax", *ESSAY, *options, "--format", format).succeeded().out
        return sorted((word.split("=")[0] for word in ESSAY), key=out.index)

    assert order("--sort", "given") == [word.split("=")[0] for word in ESSAY]
    assert (
        order()
        == order("--sort", "rank")
        == ["day", "heaven", "moon", "wood", "space", "furniture"]
    )
    cli("softmax", *ESSAY, "--sort", "up").refused(2, "--sort", "given")


def test_a_cumulative_plot_goes_by_rank_in_any_order(cli):
    plot = ("--plot", "-", "--plot-kind", "cumulative")
    out = [
        cli("softmax", *ESSAY, *plot, "--sort", sort).succeeded().out for sort in ("given", "rank")
    ]
    drawn = [text[text.rindex("entropy") :] for text in out]
    assert drawn[0] == drawn[1]


def test_a_table_shows_temperatures_limits_and_what_filters_removed(cli):
    out = cli(
        "softmax", "a=1", "b=2", "c=3", "-t", "0.5,2", "--top-k", "2", env={"COLUMNS": "100"}
    ).out
    head = out.splitlines()[0]
    assert "T=0.5" in head
    assert "T=2" in head
    assert "T→∞" in head
    assert "top_k" in out
    assert "entropy" in out


def test_top_nsigma_removes_the_same_at_every_temperature(cli):
    several = ("-t", "0,0.1,1,1e20", "--top-nsigma", "1", "--top-p", "0.5")
    report = json.loads(cli("softmax", *ESSAY, *several, "--format", "json").succeeded().out)
    assert report["order"] == ["top_nsigma", "temperature", "top_p"]
    for column in report["temperatures"]:
        removed = {t["token"] for t in column["tokens"] if t["removed_by"] == "top_nsigma"}
        assert removed == {"space", "furniture", "moon", "wood"}


def test_temperatures_may_be_repeated_or_separated_by_commas(cli):
    one = cli("softmax", "a=1", "b=2", "-t", "0.5,1", "-t", "2", "--format", "csv").succeeded().out
    rows = list(csv.DictReader(io.StringIO(one)))
    assert [float(row["temperature"]) for row in rows] == [0.5, 0.5, 1.0, 1.0, 2.0, 2.0]


def test_numbers_come_from_a_pipe_or_a_file(cli, tmp_path):
    text = b"token,logit\na,1\nb,2\n"
    path = tmp_path / "numbers.csv"
    path.write_bytes(text)
    typed = cli("softmax", "a=1", "b=2", "--format", "json").succeeded().raw
    assert cli("softmax", "--format", "json", stdin=text).succeeded().raw == typed
    assert cli("softmax", "--format", "json", "--file", path).succeeded().raw == typed
    assert cli("softmax", "--format", "json", stdin=b'{"a": 1, "b": 2}').succeeded().raw == typed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a"], "TOKEN=NUMBER"),
        (["a=x"], "not a number"),
        (["a=1", "a=2"], "given twice"),
        (["a=nan"], "nan"),
        (["a=inf"], "inf"),
        (["a=-inf", "b=-inf"], "probability 0"),
        (["a=0.5", "b=0.4", "--probs"], "sum to 0.9"),
        (["a=1", "--probs", "--energies"], "both"),
        (["a=1", "-t", "-1"], "--temperature"),
        (["a=1", "-t", "hot"], "--temperature"),
        (["a=1", "-t", "nan"], "--temperature"),
        (["a=1", "--target", "z"], "--target"),
        (["a=1", "--top-p", "0"], "--top-p"),
        (["a=1", "--format", "xml"], "--format"),
        (["a=1", "--file", "x.csv"], "both"),
        (["--file", "missing.csv"], "missing.csv"),
        (["a=1", "--plot", "picture.txt"], ".png"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(cli, words, said):
    cli("softmax", *words).refused(2, said)


def test_nothing_at_all_is_refused(cli):
    cli("softmax").refused(2, "no numbers")
    cli("softmax", stdin=b"").refused(2, "no numbers")
    cli("softmax", stdin=b"token,value\na,1\n").refused(2, "no column logit")
    cli("softmax", stdin=b"\xff\xfe").refused(1, "UTF-8")


def test_a_picture_is_written_and_the_terminal_drawn_on(cli, tmp_path):
    path = tmp_path / "bars.png"
    cli("softmax", *ESSAY, "--plot", path).succeeded()
    assert path.read_bytes().startswith(b"\x89PNG")
    drawn = cli("softmax", *ESSAY, "--plot", "-").succeeded().out
    assert drawn.count("█") > 10


def test_it_imports_neither_torch_nor_numpy():
    code = (
        "import sys; from decodecli.cli.app import app\n"
        "try: app(['softmax', 'a=1', 'b=2', '-t', '0.5,1'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'transformers', 'numpy') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
