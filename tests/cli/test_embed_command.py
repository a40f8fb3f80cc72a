"""`decodecli embed` as typed, piped and misused."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest

GROUPS = 'animals = ["cat", "dog"]\ncountries = ["Japan", "France", "日本"]\n'
NOTEBOOK = (
    "king queen prince princess baseball soccer tennis basketball man boy woman lady "
    "dog cat cow fish table idea character sea"
)


@pytest.fixture
def groups(tmp_path):
    path = tmp_path / "groups.toml"
    path.write_text(GROUPS, encoding="utf-8")
    return path


def test_words_show_the_matrix_their_cosines_and_what_the_plane_keeps(cli, tiny_folder):
    out = cli("embed", "cat", "dog", "Japan", "-m", tiny_folder, env={"COLUMNS": "80"}).out
    assert "model.embed_tokens.weight" in out
    assert "× 32 · float32" in out
    assert "mean" in out
    assert "cosine similarity" in out
    assert "of the variance" in out
    assert max(map(len, out.splitlines())) <= 80


def test_groups_are_read_from_a_file_or_a_pipe(cli, groups):
    found = json.loads(cli("embed", "--file", groups, "--format", "json").succeeded().out)
    assert [word["group"] for word in found["words"]] == ["animals"] * 2 + ["countries"] * 3
    assert set(found["silhouette"]["groups"]) == {"animals", "countries"}
    assert len(found["cosine"]) == 5
    assert found["cosine"][0][1] == pytest.approx(found["cosine"][1][0])
    piped = cli("embed", "--file", "-", "--format", "json", stdin=GROUPS.encode())
    assert json.loads(piped.succeeded().out) == found


def test_the_groups_that_ship_have_a_name(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notebook").mkdir()  # as `sweep --grid notebook --out notebook` makes it
    found = json.loads(cli("embed", "-f", "notebook", "--format", "json").succeeded().out)
    assert " ".join(word["word"] for word in found["words"]) == NOTEBOOK
    assert len(found["silhouette"]["groups"]) == 5
    found = json.loads(cli("embed", "-f", "categories", "--format", "json").succeeded().out)
    assert {word["group"] for word in found["words"]} >= {"countries", "colours"}
    (tmp_path / "notebook").rmdir()
    (tmp_path / "notebook").write_text('pets = ["cat", "dog"]', encoding="utf-8")
    found = json.loads(cli("embed", "-f", "notebook", "--format", "json").succeeded().out)
    assert len(found["words"]) == 2


def test_it_is_noticed_that_most_words_take_several_tokens(cli):
    err = cli("embed", "metabolism", "synthesizer", "cat").succeeded().err
    assert "2 of 3 words take several tokens" in err
    assert "several tokens" not in cli("embed", "metabolism", "dog", "cat").succeeded().err
    assert cli("embed", "metabolism", "synthesizer", "--quiet").succeeded().err == ""


def test_rows_and_expressions_stand_beside_words(cli, tiny_folder):
    words = ("cat", "dog", "-", "cat", "+", "Japan", "--row", "5", "--row", "0")
    result = cli("embed", *words, "-m", tiny_folder, "--nearest", "3", "--format", "json")
    found = json.loads(result.succeeded().out)
    assert [(w["word"], w["kind"]) for w in found["words"]] == [
        ("cat", "word"),
        ("dog - cat + Japan", "expression"),
        ("#5", "row"),
        ("#0", "row"),
    ]
    assert found["words"][2]["tokens"][0]["token_id"] == 5
    assert [len(near["tokens"]) for near in found["nearest"]] == [3, 3, 3, 0]
    assert "zero" in result.err, "the padding row has no direction"


def test_the_space_before_a_word_can_be_chosen(cli):
    def tokens(*options):
        result = cli("embed", "cat", *options, "--format", "json").succeeded()
        return [token["token"] for token in json.loads(result.out)["words"][0]["tokens"]]

    assert tokens()[0].startswith("▁")
    assert tokens("--space") == tokens()
    assert not tokens("--no-space")[0].startswith("▁")


def test_input_and_output_embeddings_are_two_matrices_unless_tied(cli, tiny_folder):
    def matrix(model, *options):
        result = cli("embed", "cat", "-m", model, *options, "--format", "json").succeeded()
        return json.loads(result.out)["matrix"]

    assert matrix(tiny_folder)["name"] == "model.embed_tokens.weight"
    assert matrix(tiny_folder, "--output-embeddings")["name"] == "lm_head.weight"
    tied = matrix("builtin", "--output-embeddings")
    assert (tied["kind"], tied["tied"], tied["name"]) == (
        "output",
        True,
        "model.embed_tokens.weight",
    )
    assert "tied: input and output are one" in cli("embed", "cat").succeeded().out


def test_csv_and_jsonl_have_a_record_a_word_or_a_neighbour(cli, groups):
    out = cli("embed", "--file", groups, "--format", "csv").succeeded().out
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["word"] for row in rows] == ["cat", "dog", "Japan", "France", "日本"]
    assert float(rows[1]["cosine cat"]) == pytest.approx(float(rows[0]["cosine dog"]))
    near = cli("embed", "cat", "--nearest", "4", "--format", "jsonl").succeeded().records
    assert [record["rank"] for record in near] == [1, 2, 3, 4]


def test_arrays_are_saved(cli, groups, tmp_path):
    path = tmp_path / "vectors.npz"
    out = cli("embed", "--file", groups, "--save", path, "--format", "json").succeeded().out
    found, saved = json.loads(out), np.load(path)
    assert saved["vectors"].shape == (5, found["matrix"]["columns"])
    assert list(saved["words"]) == [word["word"] for word in found["words"]]
    assert saved["cosine"] == pytest.approx(np.array(found["cosine"]), abs=1e-6)
    assert saved["plane"] == pytest.approx(np.array(found["pca"]["coordinates"]))
    assert json.loads(str(saved["about"]))["matrix"] == found["matrix"]
    norms = np.linalg.norm(saved["vectors"], axis=1)
    assert norms == pytest.approx([word["norm"] for word in found["words"]], rel=1e-5)


def test_a_picture_is_written_and_the_terminal_drawn_on(cli, groups, tmp_path):
    for suffix, start in ((".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")):
        path = tmp_path / f"words{suffix}"
        cli("embed", "--file", groups, "--plot", path, "--quiet").succeeded()
        assert path.read_bytes().startswith(start)
    drawn = cli("embed", "--file", groups, "--plot", "-").succeeded().out
    assert "● animals  ■ countries" in drawn


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no words"),
        ([""], "empty word"),
        (["cat", "cat"], "given twice"),
        (["--row", "5", "--row", "5"], "given twice"),
        (["king", "-"], "expression"),
        (["king - + man"], "expression"),
        (["cat", "--row", "999999"], "out of range"),
        (["--row", "-1"], "out of range"),
        (["cat", "--file", "notebook"], "both"),
        (["--file", "missing.toml"], "missing.toml"),
        (["cat", "--plot", "x.png"], "two words"),
        (["cat", "dog", "--plot", "x.txt"], ".png"),
        (["cat", "dog", "--plot", "x.png", "--plot-kind", "pie"], "--plot-kind"),
        (["cat", "--save", "x.csv"], ".npz"),
        (["cat", "--save", "/nowhere/at/all/x.npz"], "no folder"),
        (["cat", "--format", "xml"], "--format"),
        (["cat", "--nearest", "-1"], "--nearest"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(cli, words, said):
    cli("embed", *words).refused(2, said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("animals = cat", "valid TOML"),
        ("animals = 3", "list of words"),
        ("animals = ['cat', 3]", "list of words"),
        ("animals = []", "empty"),
        ("animals = ['']", "empty word"),
        ("a = ['cat']\nb = ['cat']", "in a and in b"),
        ("", "no groups"),
    ],
)
def test_a_malformed_group_file_is_refused_in_one_line(cli, tmp_path, text, said):
    path = tmp_path / "groups.toml"
    path.write_text(text)
    cli("embed", "--file", path).refused(2, said)


def test_words_and_files_that_are_not_utf_8_are_refused(cli, tmp_path):
    cli("embed", "cat", "\udcff").refused(1, "not UTF-8")
    path = tmp_path / "groups.toml"
    path.write_bytes(b"a = ['\xff']")
    cli("embed", "--file", path).refused(1, "not UTF-8")


def test_a_word_of_the_unknown_token_alone_is_refused(cli, copied, edit_json):
    import tokenizer_families

    folder = copied()
    tokenizer_families.make("wordpiece").save_pretrained(folder)
    cli("embed", "☃", "-m", folder).refused(2, "not in the vocabulary")


def test_a_model_that_cannot_be_read_is_told_in_one_line(cli, copied, tmp_path, edit_json):
    cli("embed", "cat", "-m", tmp_path / "nothing").refused(1, "nothing")
    folder = copied("small")
    edit_json(folder / "config.json", hidden_size=64)
    cli("embed", "cat", "-m", folder).refused(1, "hidden size 64")
    (folder / "tokenizer.json").unlink()
    cli("embed", "cat", "-m", folder).refused(1, "no tokenizer")
    folder = copied("pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    result = cli("embed", "cat", "-m", folder).refused(1, "pickled", "convert")
    assert "--allow-pickle" not in result.err


def test_it_starts_without_torch(shell):
    script = "decodecli embed cat dog > /dev/null && python -X importtime -m decodecli embed cat"
    result = shell(f"{script} 2>&1 >/dev/null | grep -cE '\\| +(torch|transformers)$' || true")
    assert result.out.strip() == "0"


def test_the_built_in_model_keeps_the_notebooks_groups_apart(cli):
    found = json.loads(cli("embed", "--file", "notebook", "--format", "json").succeeded().out)
    assert found["silhouette"]["mean"] > 0
    assert [len(word["tokens"]) for word in found["words"]] == [1] * 20
