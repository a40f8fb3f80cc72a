"""The page of a run: exact at any temperature, inert whatever a token spells, usable with a keyboard."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import decodecli
from decodecli.analysis.next_token import next_token
from decodecli.analysis.run_curves import RunCurves, curve
from decodecli.decoding.decode import Decoding
from decodecli.decoding.prompt import prefill
from decodecli.errors import UsageError
from decodecli.records.run import Run
from decodecli.records.run_curves import BETAS
from decodecli.render.html.run_page import interactive_page
from decodecli.sampling.reference import entropy, log_softmax
from decodecli.settings import SamplingParams

PROMPT = "The capital of Japan is"
TEMPERATURES = np.geomspace(0.05, 10, 20).tolist()


def run_of(lm, count=6, **values):
    curves = RunCurves(lm.piece)
    params = SamplingParams(max_new_tokens=count, seed=3, **values)
    decoding = Decoding(prefill(lm, PROMPT), params, observers=[curves])
    steps = tuple(decoding)
    return Run(decoding.header, steps, decoding.summary(), curves=curves.steps)


def between(values, slopes, beta):
    """f and the entropy at `beta`, as the page's script has them."""
    k = min(max(int(np.searchsorted(BETAS, beta)) - 1, 0), len(BETAS) - 2)
    h = BETAS[k + 1] - BETAS[k]
    s = (beta - BETAS[k]) / h
    y0, y1, m0, m1 = values[k], values[k + 1], slopes[k] * h, slopes[k + 1] * h
    f = (2 * s**3 - 3 * s**2 + 1) * y0 + (s**3 - 2 * s**2 + s) * m0
    f += (3 * s**2 - 2 * s**3) * y1 + (s**3 - s**2) * m1
    slope = (6 * s**2 - 6 * s) * y0 + (3 * s**2 - 4 * s + 1) * m0
    slope += (6 * s - 6 * s**2) * y1 + (3 * s**2 - 2 * s) * m1
    return f, f - beta * slope / h


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 99), st.sampled_from([3, 100, 30_000]), st.floats(0.2, 12),
    st.floats(0.048, 11),
)  # fmt: skip
def test_between_the_points_the_partition_function_and_the_entropy_are_near_enough(
    seed, size, spread, temperature
):
    logits = np.random.default_rng(seed).normal(0, spread, size)
    f, nats = between(*curve(logits), 1 / temperature)
    logprobs = log_softmax(logits, temperature)
    assert f == pytest.approx(-logprobs.max(), abs=1e-3)
    assert nats == pytest.approx(entropy(logprobs), abs=1e-3)


def test_a_page_is_one_file_that_asks_for_nothing_and_is_small(lm):
    run = run_of(lm, 200, temperature=1.2, top_p=0.95)
    page = interactive_page(run)
    assert len(page.encode()) < 2_000_000
    assert not re.search(r"(src|href|url\()\s*=?\s*[\"']?(https?:|//)", page)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src &#39;sha256-{digest}&#39;" in page or f"'sha256-{digest}'" in page
    data = json.loads(re.findall(r'id="decodecli-data">(.*?)</script>', page, re.DOTALL)[0])
    assert len(data["steps"]) == len(run)
    for step, entry in zip(run, data["steps"], strict=True):
        assert [row["token"] for row in entry["rows"] if row.get("chosen")] == [entry["token"]]
        assert entry["rank"] == step.rank


def test_a_notebook_shows_the_page_in_a_frame_of_its_own(lm, tmp_path):
    run = decodecli.generate(lm, PROMPT, max_new_tokens=3, temperature=1.4, seed=2, page=True)
    (frame,) = re.findall(
        r'<iframe .* srcdoc="([^"]*)" sandbox="allow-scripts"', run._repr_html_(), re.S
    )
    assert html.unescape(frame) == interactive_page(run)
    run.save_html(str(tmp_path / "run.html"))
    assert (tmp_path / "run.html").read_text() == interactive_page(run)


def test_a_run_without_curves_shows_its_text_and_says_how_to_have_the_page(lm, tmp_path):
    run = decodecli.generate(lm, PROMPT, max_new_tokens=3, seed=2)
    assert "<iframe" not in run._repr_html_()
    with pytest.raises(UsageError, match="page=True"):
        run.save_html(str(tmp_path / "run.html"))
    assert not list(tmp_path.iterdir())


def test_a_run_draws_its_text(lm, tmp_path):
    pytest.importorskip("matplotlib", reason="drawing needs matplotlib")
    run = decodecli.generate(lm, PROMPT, max_new_tokens=3, seed=2)
    assert run.plot().get_axes()
    run.plot(str(tmp_path / "run.png"))
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UsageError, match="must end in"):
        run.plot(str(tmp_path / "run.docx"))


HOSTILE = [
    "</script>",
    "<img src=x onerror=alert(1)>",
    "'\"",
    "\u2028",
    "\u202eabc",
    "<!--",
    "&lt;",
]


def hostile(lm):
    run = run_of(lm, len(HOSTILE))
    steps, tokens = [], {}
    for step, word in zip(run.steps, HOSTILE, strict=True):
        steps.append(replace(step, token=word, text=word))
        rows = tuple(replace(row, token=word) for row in run.curves[step.index].tokens)
        tokens[step.index] = replace(run.curves[step.index], tokens=rows)
    header = replace(
        run.header, prompt="</script><b>", model=replace(run.header.model, name="<i>m")
    )
    return interactive_page(replace(run, header=header, steps=tuple(steps), curves=tokens))


def test_what_a_token_spells_stays_a_text(lm):
    page = hostile(lm)
    assert page.count("<script") == page.count("</script>") == 2
    assert "<img" not in page
    assert "<b>" not in page
    assert "<i>m" not in page
    assert "\u2028" not in page
    assert "\u202e" not in page


def browse(page, script, tmp_path, *options):
    """The document after `script` has run in it, in a browser without a screen."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no browser")
    page = re.sub(r"<meta http-equiv[^>]*>", "", page)
    page = page.replace("</body>", f"<script>{script}</script></body>")
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", *options]
    return subprocess.run(
        [*command, f"file://{tmp_path}/page.html"],
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    ).stdout


def answer(dom):
    return json.loads(
        html.unescape(re.findall(r"<pre id=\"answer\">(.*?)</pre>", dom, re.DOTALL)[0])
    )


SAY = "const say = value => { const pre = element('pre', {id: 'answer'}, JSON.stringify(value)); " \
      "document.body.append(pre); };"  # fmt: skip


@pytest.mark.browser
def test_its_numbers_are_those_of_inspect_logits_at_twenty_temperatures(lm, tmp_path):
    run = run_of(lm, 4, temperature=1.3)
    script = (
        SAY
        + f"""
      say(data.steps.map(step => {json.dumps(TEMPERATURES)}.map(temperature => {{
        const now = distribution(step, {{temperature, top_p: 1, top_k: 0, min_p: 0}});
        return {{entropy: now.entropy, tempered: now.tempered.slice(0, 10)}};
      }})));"""
    )
    found = answer(browse(interactive_page(run), script, tmp_path))
    ids = list(run.header.prompt_ids)
    for step, entries in zip(run, found, strict=True):
        report = next_token(lm, ids, TEMPERATURES, rows=10)[0]
        for number, entry in enumerate(entries):
            expected = [row.probability[number] for row in report.rows[:10]]
            assert entry["tempered"] == pytest.approx(expected, abs=1e-3)
            assert entry["entropy"] == pytest.approx(report.spreads[number].entropy, abs=1e-3)
        ids.append(step.token_id)


@pytest.mark.browser
@pytest.mark.parametrize(
    "values",
    [{"top_k": 5}, {"top_p": 0.8}, {"min_p": 0.05}, {"top_k": 20, "top_p": 0.7, "min_p": 0.02}],
)
def test_filters_keep_what_generate_keeps_or_say_that_they_do_not_know(lm, tmp_path, values):
    run = run_of(lm, 8, temperature=1.2, **values)
    script = (
        SAY
        + """
      const settings = {temperature: data.temperature, top_p: data.top_p, top_k: data.top_k,
                        min_p: data.min_p};
      say(data.steps.map(step => { const now = distribution(step, settings);
        return {count: now.count, known: now.known, final: now.final.slice(0, 10)}; }));"""
    )
    found = answer(browse(interactive_page(run), script, tmp_path))
    assert any(entry["known"] for entry in found)
    for step, entry in zip(run, found, strict=True):
        if not entry["known"]:
            assert step.kept > 60
            continue
        assert entry["count"] == step.kept
        final = [
            math.exp(c.final_logprob) if c.final_logprob is not None else 0 for c in step.candidates
        ]
        assert entry["final"][: min(10, len(final))] == pytest.approx(final[:10], abs=1e-3)


@pytest.mark.browser
def test_tokens_are_chosen_by_keys_and_clicks_and_sliders_redraw(lm, tmp_path):
    run = run_of(lm, 6, temperature=1.2)
    script = (
        SAY
        + """
      const tokens = [...document.querySelectorAll('.token')], title = document.getElementById('step');
      const seen = [title.textContent];
      tokens[0].focus();
      tokens[0].dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight', bubbles: true}));
      seen.push(title.textContent);
      tokens[4].click();
      seen.push(title.textContent);
      const slider = document.querySelector('input[name=temperature]');
      const before = document.querySelector('#decodecli-run td:nth-child(5)').textContent;
      slider.value = Math.log(0.1);
      slider.dispatchEvent(new Event('input'));
      const after = document.querySelector('#decodecli-run td:nth-child(5)').textContent;
      say({seen, before, after, focus: document.activeElement === tokens[1],
           hidden: document.querySelector('.static').hidden,
           stops: tokens.filter(node => node.tabIndex === 0).length});"""
    )
    found = answer(browse(interactive_page(run), script, tmp_path))
    assert [words.split()[0] for words in found["seen"]] == ["#1", "#2", "#5"]
    assert found["before"] != found["after"]
    assert found["focus"]
    assert found["hidden"]
    assert found["stops"] == 1


@pytest.mark.browser
def test_hostile_tokens_are_inert_in_a_browser(lm, tmp_path):
    dom = browse(hostile(lm), SAY + "say(document.querySelectorAll('img, b').length);", tmp_path)
    assert answer(dom) == 0


@pytest.mark.browser
@pytest.mark.parametrize("width", [380, 1400])
def test_nothing_is_wider_than_the_window(lm, tmp_path, width):
    run = run_of(lm, 12, temperature=1.5)
    script = (
        SAY + "say(document.documentElement.scrollWidth - document.documentElement.clientWidth);"
    )
    page = interactive_page(run)
    dom = browse(page, script, tmp_path, f"--window-size={width},900")
    assert answer(dom) <= 0
