"""The Python interface: short forms, sequences, what is printed, what a notebook shows."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from chat_models import chat_tokenizer, save_chat_model

import decodecli
from decodecli.errors import UsageError
from decodecli.records.sweep import SweepResult
from decodecli.settings import SamplingParams

pytest.importorskip("pandas", reason="pandas is not installed")
GUIDE = Path(__file__).parents[1] / "docs" / "PYTHON.md"
HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e"


@pytest.fixture(scope="module")
def lm():
    return decodecli.load("builtin", device="cpu", dtype="float32", quantize="none")


@pytest.fixture(scope="module")
def run(lm):
    return decodecli.generate(lm, "Once upon a time", temperature=1.3, top_p=0.9, seed=3)


@pytest.fixture(scope="module")
def records(lm, run):
    """One of everything that is returned."""
    from decodecli.analysis.next_token import all_positions

    sweep = decodecli.sweep(lm, "Once", temperature=[0.2, 1.0], seeds=range(2), max_new_tokens=4)
    return [
        run,
        run[0],
        decodecli.next_token(lm, "The capital of Japan is", [0.4, 1.6], top_p=0.9),
        decodecli.softmax({"day": 5.0, "space": 2.2}, [0.5, 1.0]),
        decodecli.tokenize("日本 and more", lm),
        decodecli.embed(["king", "queen"], lm, nearest=3),
        all_positions(lm, "Once upon a time there was " * 20),
        sweep,
        sweep.summary,
    ]


def test_importing_the_package_imports_nothing_heavy():
    names = "decode, embed, generate, next_token, softmax, sweep, tokenize"
    code = (
        f"import sys, decodecli; from decodecli import {names}; "
        "print({'torch', 'transformers', 'numpy', 'rich', 'jinja2', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_every_example_of_the_guide_runs(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    assert len(blocks) >= 8
    session: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(GUIDE), "exec"), session)
    assert "did you mean temperature?" in capsys.readouterr().out


def test_keywords_are_settings_and_override_params(lm):
    params = SamplingParams(max_new_tokens=3, temperature=0.5, seed=4)
    by_params = decodecli.generate(lm, "Hi", params)
    by_keywords = decodecli.generate(lm, "Hi", max_new_tokens=3, temperature=0.5, seed=4)
    assert by_params.summary.token_ids == by_keywords.summary.token_ids
    both = decodecli.generate(lm, "Hi", params, seed=5)
    assert (both.header.seed, both.header.params["temperature"]) == (5, 0.5)


def test_a_name_loads_the_model():
    run = decodecli.generate("builtin", "Hi", temperature=0.7, seed=1, max_new_tokens=2)
    assert run.header.model.name == "builtin"
    assert len(decodecli.next_token("builtin", "Hi", rows=3).rows) == 3


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"temprature": 0.7}, "did you mean temperature?"),
        ({"topp": 0.7}, "did you mean top_p?"),
        ({"greedy": True}, "temperature=0"),
        ({"device": "cpu"}, "decodecli.load"),
        ({"temperature": "hot"}, "temperature"),
    ],
)
@pytest.mark.parametrize("name", ["generate", "decode"])
def test_a_wrong_keyword_is_one_error_at_once_that_says_what_to_do(lm, name, settings, hint):
    with pytest.raises(decodecli.DecodecliError, match=re.escape(hint)):
        getattr(decodecli, name)(lm, "Hi", **settings)


def test_a_prompt_goes_through_the_chat_template(tmp_path):
    folder = save_chat_model(tmp_path / "chatml", "chatml")
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    ids = chat_tokenizer("chatml").apply_chat_template(messages, add_generation_prompt=True)
    options = {"system": "Be brief.", "max_new_tokens": 2, "seed": 0}
    run = decodecli.generate(folder, "Hi", **options)
    assert list(run.header.prompt_ids) == ids["input_ids"]
    assert run.header.params["chat"] is True
    assert [s.token_id for s in decodecli.decode(folder, "Hi", **options)] == [
        s.token_id for s in run
    ]
    for wrong in ({"bos": True}, {"chat": False, "system": None, "allow_special": True}):
        with pytest.raises(UsageError):
            decodecli.generate(folder, "Hi", **{**options, **wrong})
    with pytest.raises(UsageError, match="token ids"):
        decodecli.generate(folder, [1, 2], chat=True)


def test_what_has_no_effect_is_refused(lm):
    with pytest.raises(decodecli.DecodecliError, match="max_new_tokens"):
        decodecli.next_token(lm, "Hi", max_new_tokens=4)
    with pytest.raises(decodecli.DecodecliError, match="repetition_penalty"):
        decodecli.softmax({"a": 1.0}, repetition_penalty=1.2)
    with pytest.raises(decodecli.DecodecliError, match="unknown keyword 'device'"):
        decodecli.sweep(lm, "Hi", device=["cpu"])


def test_params_that_are_none_of_ours_are_refused(lm):
    with pytest.raises(decodecli.DecodecliError, match="SamplingParams"):
        decodecli.generate(lm, "Hi", {"temperature": 0.7})  # type: ignore[arg-type]


def test_a_run_is_a_sequence_of_its_steps(run):
    assert len(run) == len(run.steps) == run.summary.new_tokens
    assert run[3] is run.steps[3]
    assert run[-1] is run.steps[-1]
    assert run[2:4] == run.steps[2:4]
    assert [step.index for step in run] == list(range(len(run)))
    assert run
    with pytest.raises(IndexError):
        run[len(run)]


def test_closing_a_decoding_early_is_quiet(lm):
    steps = decodecli.decode(lm, "Hi", seed=0)
    next(steps)
    steps.close()


def test_a_sweep_is_every_setting_with_every_prompt_and_seed(lm):
    found = decodecli.sweep(
        lm, ["Once", "Two"], temperature=[0.2, 1.0], top_k=5, seeds=range(3), max_new_tokens=4
    )
    assert len(found) == 2 * 2 * 3
    assert found[0].params["top_k"] == 5
    assert list(found.summary.axes) == ["temperature"]
    alone = decodecli.generate(lm, "Two", temperature=1.0, top_k=5, seed=2, max_new_tokens=4)
    texts = {(c.prompt, c.params["temperature"], c.params["seed"]): c.text for c in found}
    assert texts["Two", 1.0, 2] == alone.text


def test_printed_is_a_short_table_and_never_a_wall(records):
    for record in records:
        printed = str(record).split("\n")
        assert 2 <= len(printed) <= 30, type(record)
        assert max(map(len, printed)) <= 120
        assert "\x1b" not in str(record)
        assert len(repr(record)) < 200
    sweep = next(record for record in records if isinstance(record, SweepResult))
    assert len(repr(sweep[0])) < 200


def test_a_long_run_prints_its_first_steps_and_says_how_many_more(run):
    assert len(run) > 10
    assert f"… {len(run) - 10} more steps" in str(run)
    assert "temperature 1.3 → top_p 0.9" in str(run)


def test_everything_is_a_data_frame(records):
    for record in records:
        assert len(record.to_pandas()) == len(record.flat()) > 0


def test_without_pandas_the_error_says_so(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        run.to_pandas()


class Tags(HTMLParser):
    """The tags that are open, checked for being closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.count: dict[str, int] = {}
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.count[tag] = self.count.get(tag, 0) + 1

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data


def parsed(html: str) -> Tags:
    tags = Tags()
    tags.feed(html)
    assert tags.open == []
    return tags


def test_a_notebook_shows_settings_legend_text_and_a_folded_table_a_step(run):
    html = run._repr_html_()
    tags = parsed(html)
    assert "builtin" in tags.text
    assert "seed 3 · temperature 1.3 → top_p 0.9" in tags.text
    assert "probability at T=1 <1% <5% <20% ≥20%" in tags.text
    assert tags.count["details"] == len(run)
    assert tags.count["tr"] == sum(1 + len(step.candidates) for step in run)
    assert "␣" in tags.text
    assert ">top_p</td>" in html
    assert 'class="chosen"' in html
    assert re.search(r'<i style="width:[0-9.]+em">', html)


def test_every_record_is_sound_html(records):
    for record in records:
        parsed(record._repr_html_())


def test_nothing_from_outside_is_markup(lm):
    shown = [
        decodecli.generate(lm, HOSTILE, seed=0, max_new_tokens=3),
        decodecli.tokenize(HOSTILE, lm),
        decodecli.softmax({HOSTILE: 1.0, "b": 2.0}),
        decodecli.next_token(lm, HOSTILE),
    ]
    for record in shown:
        html = record._repr_html_()
        assert "<script" not in html
        assert "\x1b" not in html + str(record)
        assert "\u202e" not in html + str(record)
        parsed(html)


def test_a_step_beyond_the_end_is_told(run):
    with pytest.raises(IndexError, match=f"this run has {len(run)} steps, 0 to {len(run) - 1}"):
        run[99]
    with pytest.raises(IndexError, match="got -99"):
        run[-99]


def test_a_prompt_of_several_texts_is_told(lm):
    with pytest.raises(decodecli.DecodecliError, match="neither a text nor token ids"):
        decodecli.next_token(lm, ["A", "B"])


@pytest.mark.parametrize(
    ("temperature", "heading"), [(0.7, "T=0.7"), (1.0, None), (1.45, "T=1.45")]
)
def test_a_printed_step_says_its_temperature(lm, temperature, heading):
    printed = str(decodecli.generate(lm, "Once", temperature=temperature, seed=1)[3])
    assert (heading in printed) if heading else ("T=1 " in printed and " T " not in printed)


def test_words_of_a_loaded_model_carry_its_name(lm):
    assert decodecli.embed(["cat", "dog"], lm).model == "builtin"
