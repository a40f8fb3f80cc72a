"""Vectors of words: the mathematics against scipy and scikit-learn, the words as they are meant."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import tokenizer_families as families
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_samples, silhouette_score

from decodecli.analysis.embedding import (
    checkpoint_tokenizer,
    cosine,
    embed,
    plane,
    scan,
    silhouettes,
)
from decodecli.analysis.word_vectors import (
    items_from,
    join_signs,
    parse_word,
    read_groups,
    word_ids,
    written_with_spaces,
)
from decodecli.errors import LoadError, UsageError
from decodecli.models.checkpoint import Checkpoint, find_checkpoint
from decodecli.models.embedding_weights import find_embeddings
from decodecli.models.tokenizer import Tokenizer
from decodecli.settings import LoadParams

WORDS = {"animals": ["cat", "dog"], "countries": ["Japan", "France"]}


@st.composite
def matrices(draw, fewest=2):
    """Random vectors, `(n, d)`, of any scale and offset."""
    n, d = draw(st.integers(fewest, 24)), draw(st.integers(2, 40))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = 10.0 ** draw(st.integers(-3, 3))
    return scale * (random.standard_normal((n, d)) + draw(st.sampled_from([0.0, 1.0, 10.0])))


@given(matrices())
@settings(deadline=None, max_examples=60)
def test_the_plane_is_scikit_learns_up_to_the_axes_signs(vectors):
    ours = plane(vectors)
    theirs = PCA(n_components=2, svd_solver="full").fit(vectors)
    scale = np.abs(vectors).max()
    assert ours.ratio == pytest.approx(theirs.explained_variance_ratio_, abs=1e-9)
    assert ours.variance == pytest.approx(theirs.explained_variance_, rel=1e-6, abs=1e-9 * scale)
    found, wanted = np.array(ours.coordinates), theirs.transform(vectors)
    for axis in range(2 if len(vectors) > 2 else 1):
        sign = 1 if found[:, axis] @ wanted[:, axis] > 0 else -1
        assert found[:, axis] == pytest.approx(sign * wanted[:, axis], abs=1e-6 * scale)
    assert ours.kept == pytest.approx(sum(ours.ratio))


def test_the_planes_signs_do_not_depend_on_the_direction_of_the_data():
    vectors = np.random.default_rng(3).standard_normal((6, 5))
    for axis in np.array(plane(vectors).coordinates).T:
        assert axis[np.abs(axis).argmax()] > 0


@given(matrices())
@settings(deadline=None, max_examples=60)
def test_cosines_are_scipys(vectors):
    assert cosine(vectors) == pytest.approx(1 - cdist(vectors, vectors, "cosine"), abs=1e-12)


def test_a_vector_without_length_has_no_cosine():
    found = cosine(np.array([[1.0, 0.0], [0.0, 0.0]]))
    assert found[0, 0] == 1
    assert np.isnan(found[0, 1])
    assert np.isnan(found[1, 1])


@given(matrices(fewest=4), st.data())
@settings(deadline=None, max_examples=60)
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_silhouettes_are_scikit_learns(metric, vectors, data):
    n = len(vectors)
    labels = data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n))
    distances = cdist(vectors, vectors, metric)
    np.fill_diagonal(distances, 0)
    if not 2 <= len(set(labels)) < n:
        with pytest.raises(UsageError, match="two groups"):
            silhouettes(distances, labels)
        return
    found = silhouettes(distances, labels)
    wanted = silhouette_samples(distances, labels, metric="precomputed")
    assert found == pytest.approx(wanted, abs=1e-9)
    score = silhouette_score(distances, labels, metric="precomputed")
    assert found.mean() == pytest.approx(score, abs=1e-9)


def test_equal_vectors_make_a_plane_without_variance():
    found = plane(np.ones((4, 3)))
    assert found.ratio == (0.0, 0.0)
    assert found.distances is None


def test_a_plane_needs_two_vectors():
    with pytest.raises(UsageError, match="two words"):
        plane(np.ones((1, 3)))


def test_a_words_vector_is_the_mean_of_its_tokens_rows(tiny_folder):
    import torch
    from safetensors.torch import load_file

    report, vectors = embed(["cat", "dog", "cat - dog"], str(tiny_folder))
    table = load_file(tiny_folder / "model.safetensors")["model.embed_tokens.weight"]
    for word, vector in zip(report.words[:2], vectors, strict=False):
        mean = table[list(word.token_ids)].to(torch.float64).mean(dim=0).numpy()
        assert vector == pytest.approx(mean, abs=1e-12)
        assert word.norm == pytest.approx(np.linalg.norm(mean))
    assert vectors[2] == pytest.approx(vectors[0] - vectors[1])
    norms = table.double().norm(dim=1)
    wanted = [float(f) for f in (norms.mean(), norms.std(correction=0), norms.min(), norms.max())]
    assert list(report.matrix.norms.values()) == pytest.approx(wanted, rel=1e-5)
    assert report.matrix.longest[0] == int(norms.argmax())


def test_the_nearest_tokens_are_those_that_comparing_with_every_row_finds(tiny_folder):
    from safetensors.numpy import load_file

    report, vectors = embed(["cat", "Japan - cat + dog"], str(tiny_folder), nearest=7)
    table = load_file(tiny_folder / "model.safetensors")["model.embed_tokens.weight"]
    for word, vector, found in zip(report.words, vectors, report.nearest, strict=True):
        cosines = 1 - cdist(vector[None], table.astype(np.float64), "cosine")[0]
        cosines[list(word.token_ids)] = -2
        best = np.argsort(-cosines)[:7]
        assert [near.token_id for near in found] == list(best)
        assert [near.cosine for near in found] == pytest.approx(cosines[best], abs=1e-6)
        assert [near.rank for near in found] == list(range(1, 8))


def test_asking_for_more_neighbours_than_there_are_lists_them_all(tiny_folder):
    report, _ = embed(["cat"], str(tiny_folder), nearest=10**6)
    found = [near.token_id for near in report.nearest[0]]
    assert len(set(found)) == len(found)
    without = set(range(report.matrix.rows)) - set(found)
    assert without == {0, *report.words[0].token_ids}, "its own, and the padding row of zeros"


def test_one_pass_gives_norms_and_products(tiny_folder):
    checkpoint = find_checkpoint(LoadParams(str(tiny_folder)))
    matrix = find_embeddings(checkpoint, 10).input
    vectors = np.random.default_rng(0).standard_normal((3, matrix.columns))
    norms, dots = scan(matrix, vectors)
    table = matrix.read(range(matrix.rows)).astype(np.float64)
    assert norms == pytest.approx(np.linalg.norm(table, axis=1), rel=1e-5)
    assert dots == pytest.approx(vectors @ table.T, abs=1e-4)


def test_the_report_is_strict_json_and_a_data_frame(tiny_folder):
    report, _ = embed(WORDS, str(tiny_folder), nearest=2)
    found = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert found["pca"]["kept"] == pytest.approx(sum(found["pca"]["explained_variance_ratio"]))
    assert set(found["silhouette"]["groups"]) == set(WORDS)
    assert len(report.to_pandas()) == 8
    plain, _ = embed(WORDS, str(tiny_folder))
    frame = plain.to_pandas()
    assert list(frame["group"]) == ["animals", "animals", "countries", "countries"]
    assert frame["cosine cat"][0] == pytest.approx(1)
    assert "<table>" in plain._repr_html_()


def test_groups_of_one_word_each_have_no_silhouette(tiny_folder):
    assert embed({"a": ["cat"], "b": ["dog"]}, str(tiny_folder))[0].separation is None
    assert embed({"a": ["cat", "dog"]}, str(tiny_folder))[0].separation is None


def test_nothing_heavy_is_imported():
    import subprocess

    code = (
        "import sys\nfrom decodecli.analysis.embedding import embed\n"
        "embed(['cat', 'dog'], nearest=3)\n"
        "print([name for name in ('torch', 'transformers', 'safetensors') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.decode().strip() == "[]"


@pytest.fixture
def family(tmp_path):
    """`family(kind)`: one of the tokenizer families, from its folder."""

    def make(kind: str) -> Tokenizer:
        families.make(kind).save_pretrained(tmp_path / kind)
        return checkpoint_tokenizer(Checkpoint(kind, tmp_path / kind, None, {}, 0))

    return make


@pytest.mark.parametrize("kind", families.KINDS)
def test_a_words_tokens_are_those_it_has_inside_a_text(family, kind):
    tokenizer = family(kind)
    for word in ("the", "little", "capital", "family"):
        inside = tuple(tokenizer.backend.encode(f"a {word}", add_special_tokens=False).ids)
        ids = word_ids(tokenizer, word)
        assert inside[-len(ids) :] == ids
        assert word_ids(tokenizer, " " + word) == ids == word_ids(tokenizer, word, space=True)


@pytest.mark.parametrize("kind", ["byte_fallback", "byte_level"])
def test_without_a_space_the_word_is_glued_on(family, kind):
    tokenizer = family(kind)
    pieces = [
        tokenizer.piece(token_id) or "" for token_id in word_ids(tokenizer, "the", space=False)
    ]
    assert "".join(pieces) == "the"
    pieces = [tokenizer.piece(token_id) or "" for token_id in word_ids(tokenizer, "the")]
    assert "".join(pieces) in ("▁the", "Ġthe")


def test_japanese_words_get_no_space_of_their_own(family):
    tokenizer = family("byte_level_added")
    assert [tokenizer.piece(token_id) for token_id in word_ids(tokenizer, "日本")] == ["日本"]
    assert len(word_ids(tokenizer, "日本", space=True)) in (1, 2)
    tokenizer = family("byte_fallback")
    assert [tokenizer.piece(i) for i in word_ids(tokenizer, "日")] == ["<0xE6>", "<0x97>", "<0xA5>"]


def test_scripts_with_and_without_spaces():
    assert all(map(written_with_spaces, ("cat", "Москва", "3", "한국", "été")))
    assert not any(map(written_with_spaces, ("日本", "ひと", "カナ", "ｶﾅ", "々", "ไทย", ",", "")))


def test_a_word_of_unknown_tokens_alone_is_refused(family):
    tokenizer = family("wordpiece")
    with pytest.raises(UsageError, match="not in the vocabulary"):
        word_ids(tokenizer, "☃")
    tokenizer = family("metaspace_unigram")
    with pytest.raises(UsageError, match="not in the vocabulary"):
        word_ids(tokenizer, "☃", space=False)


def test_an_added_token_is_itself(family):
    tokenizer = family("byte_level_added")
    assert [tokenizer.piece(token_id) for token_id in word_ids(tokenizer, "<|eot_id|>")] == [
        "<|eot_id|>"
    ]


def test_a_bare_sentencepiece_model_is_a_vocabulary_too(tmp_path):
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(families.TEXTS), model_prefix=str(tmp_path / "tokenizer"),
        vocab_size=400, model_type="bpe", byte_fallback=True, minloglevel=2,
    )  # fmt: skip
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    tokenizer = checkpoint_tokenizer(Checkpoint("it", tmp_path, None, {}, 0))
    pieces = [tokenizer.piece(token_id) or "" for token_id in word_ids(tokenizer, "little")]
    assert "".join(pieces) == "▁little"
    assert tokenizer.size >= 400


def test_a_damaged_tokenizer_is_told(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(LoadError, match="cannot be used"):
        checkpoint_tokenizer(Checkpoint("x", tmp_path, None, {}, 0))


def test_expressions_are_words_with_signs_between_spaces():
    item = parse_word("king - man + woman")
    assert item.terms == ((1, "king"), (-1, "man"), (1, "woman"))
    assert item.kind == "expression"
    assert parse_word("king − man").terms == ((1, "king"), (-1, "man"))
    assert parse_word("New York - York").terms == ((1, "New York"), (-1, "York"))
    assert parse_word("well-known").terms == ((1, "well-known"),)


@pytest.mark.parametrize("text", ["king -", "- king", "king - + man", "+", "-", "a + - b"])
def test_a_sign_without_a_word_is_refused(text):
    with pytest.raises(UsageError, match="expression"):
        parse_word(text)


def test_an_expression_may_be_typed_without_quotes():
    typed = ["cat", "king", "-", "man", "+", "woman", "dog"]
    assert join_signs(typed) == ["cat", "king - man + woman", "dog"]


@pytest.mark.parametrize(
    ("words", "said"), [(["a", "a"], "twice"), ([""], "empty"), ([" "], "empty")]
)
def test_empty_and_repeated_words_are_refused(words, said):
    with pytest.raises(UsageError, match=said):
        items_from(words)
    with pytest.raises(UsageError, match="in one"):
        items_from(groups={"one": words})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("animals = cat", "not valid TOML"),
        ("animals = 'cat'", "not a list of words"),
        ("animals = [1, 2]", "not a list of words"),
        ("[animals]\nx = ['cat']", "not a list of words"),
        ("animals = []", "empty"),
        ("", "no groups"),
    ],
)
def test_a_malformed_group_file_is_refused(text, said):
    with pytest.raises(UsageError, match=said):
        read_groups(text, "groups.toml")


def test_the_shipped_groups_are_five_of_four():
    from decodecli.config import configs_folder

    path = configs_folder() / "embed" / "notebook.toml"
    groups = read_groups(path.read_text(encoding="utf-8"), path.name)
    assert [len(words) for words in groups.values()] == [4] * 5
