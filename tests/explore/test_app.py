"""Every key and click of `explore`, on a model, on a slow one and on typed numbers."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager

import numpy as np
import pytest
from textual import events

import decodecli
from decodecli import SamplingParams
from decodecli.decoding.prompt import prefill
from decodecli.errors import WriteError
from decodecli.explore.app import Explorer
from decodecli.explore.dialogs import Tree
from decodecli.explore.engine import ModelSource, NumbersSource
from decodecli.explore.session import Branch, Session
from decodecli.explore.widgets import Candidates, Slider

PROMPT = "The capital of Japan is"
SIZES = [(80, 24), (200, 60)]


def app_of(lm, prompt=PROMPT, params=None, **options):
    def read(text):
        prefix = prefill(lm, text)
        session = Session(lm.info, prefix.text, prefix.ids, params or SamplingParams(), [Branch()])
        return ModelSource(prefix), session

    return Explorer(*read(prompt), reopen=read, **options)


def numbers_app(*pairs):
    return Explorer(NumbersSource(pairs), Session(None, "", (), SamplingParams()))


@asynccontextmanager
async def opened(app, size=(80, 24)):
    async with app.run_test(size=size) as pilot:
        yield Person(app, pilot)


class Person:
    """Presses keys, and waits until what they ask for is there."""

    def __init__(self, app, pilot):
        self.app, self.pilot = app, pilot

    async def press(self, *keys):
        for key in keys:
            await self.pilot.press(key)
            await self.settle()

    async def settle(self):
        for _ in range(200):
            await self.pilot.pause()
            if self.app.walk.distribution is not None and not self.app.walk.pending:
                return
            await asyncio.sleep(0.005)
        raise AssertionError("the model did not answer")

    @property
    def ids(self):
        return self.app.walk.session.branch.ids

    @property
    def screen(self):
        lines = self.app.screen._compositor.render_strips()
        return "\n".join(strip.text.rstrip() for strip in lines)


def run(scenario):
    asyncio.run(scenario())


@pytest.mark.parametrize("size", SIZES)
def test_space_draws_what_generate_draws(lm, size):
    async def scenario():
        async with opened(app_of(lm), size) as person:
            await person.press(*["space"] * 6)
            expected = decodecli.generate(lm, PROMPT, seed=0, max_new_tokens=6)
            assert person.ids == expected.summary.token_ids[: len(person.ids)]
            assert expected.text.split()[0] in person.screen

    run(scenario)


@pytest.mark.parametrize("size", SIZES)
def test_enter_takes_the_highlighted_token_and_backspace_takes_it_away(lm, size):
    async def scenario():
        async with opened(app_of(lm), size) as person:
            order = person.app.walk.distribution.order.tolist()
            await person.press("down", "down", "up", "down", "enter")
            assert person.ids == (order[2],)
            assert person.app.walk.session.branch.choices[0].how == "taken"
            await person.press("backspace", "backspace")
            assert person.ids == ()

    run(scenario)


def test_page_keys_go_through_all_tokens(lm):
    async def scenario():
        async with opened(app_of(lm)) as person:
            page = person.app.query_one(Candidates).page
            await person.press("pagedown", "pagedown", "pageup")
            assert person.app.query_one(Candidates).highlight == page
            for _ in range(3):
                person.app.action_highlight(10**6)
            await person.settle()
            assert person.app.query_one(Candidates).highlight == lm.info.vocab_size - 1
            assert "6,656" in person.screen or f"{lm.info.vocab_size}" in person.screen

    run(scenario)


def test_g_takes_the_most_probable_token_whatever_the_temperature(lm):
    async def scenario():
        async with opened(app_of(lm, params=SamplingParams(temperature=5.0))) as person:
            await person.press(*"ggg")
            expected = decodecli.generate(lm, PROMPT, temperature=0, max_new_tokens=3)
            assert person.ids == expected.summary.token_ids

    run(scenario)


def test_r_draws_the_last_token_again_by_another_seed(lm):
    async def scenario():
        hot = SamplingParams(temperature=3.0)
        async with opened(app_of(lm, params=hot)) as person:
            await person.press("r")
            assert "nothing to draw again" in person.screen
            await person.press("space", "space")
            stem = person.ids[:1]
            drawn = set()
            for seed in range(1, 6):
                await person.press("r")
                assert person.ids[:1] == stem
                assert len(person.ids) == 2
                assert person.app.walk.session.branch.choices[-1].seed == seed
                drawn.add(person.ids[1])
            assert len(drawn) > 1

    run(scenario)


def test_a_runs_until_it_is_pressed_again(lm):
    async def scenario():
        async with opened(app_of(lm, "Once upon a time,")) as person:
            person.app._speed = 5
            await person.pilot.press("a")
            while len(person.ids) < 5:
                await asyncio.sleep(0.01)
            await person.press("a")
            count = len(person.ids)
            await asyncio.sleep(0.05)
            await person.settle()
            assert len(person.ids) == count

    run(scenario)


def test_plus_and_minus_change_the_speed(lm):
    async def scenario():
        async with opened(app_of(lm, "Once upon a time,")) as person:
            await person.pilot.press("minus", "minus", "a")
            assert "1 tokens a second" in person.screen
            await person.pilot.press("plus")
            await person.pilot.pause()
            assert "2 tokens a second" in person.screen

    run(scenario)


def test_b_opens_a_branch_and_brackets_move_among_branches(lm):
    async def scenario():
        async with opened(app_of(lm, params=SamplingParams(temperature=3.0))) as person:
            await person.press("space", "space")
            first = person.ids
            await person.press("b", "space")
            assert person.ids[:2] == first
            assert len(person.ids) == 3
            second = person.ids
            assert "branch 2 of 2" in person.screen
            await person.press("left_square_bracket")
            assert person.ids == first
            await person.press("right_square_bracket")
            assert person.ids == second

    run(scenario)


def test_v_shows_the_tree_and_enter_goes_to_a_branch(lm):
    async def scenario():
        async with opened(app_of(lm), (80, 24)) as person:
            await person.press("g", "b", "space", "left_square_bracket", "v")
            assert "branch 2: 2 tokens" in person.screen
            assert "nats" in person.screen
            tree = person.app.screen.query_one("Tree")
            leaf = next(node for node in walk(tree.root) if node.data == 1)
            tree.move_cursor(leaf)
            await person.press("enter")
            assert not isinstance(person.app.screen, Tree)
            assert person.app.walk.session.current == 1

    def walk(node):
        yield node
        for child in node.children:
            yield from walk(child)

    run(scenario)


@pytest.mark.parametrize("back", ["comma", "shift+left"])
@pytest.mark.parametrize("forth", ["full_stop", "shift+right"])
def test_another_token_in_the_place_of_an_earlier_one_makes_a_branch(lm, back, forth):
    async def scenario():
        async with opened(app_of(lm)) as person:
            await person.press(*"gggg")
            before = person.ids
            await person.press(back, back, back, forth)
            assert person.app.walk.present == before[2]
            other = person.app.walk.distribution.order.tolist()[1]
            await person.press("down", "enter")
            assert person.ids == (*before[:2], other)
            assert person.app.walk.session.branches[0].ids == before

    run(scenario)


def test_the_token_that_is_there_already_makes_no_branch(lm):
    async def scenario():
        async with opened(app_of(lm)) as person:
            await person.press("g", "g", "home", "enter", "enter")
            assert len(person.app.walk.session.branches) == 1
            assert person.app.walk.cursor is None
            await person.press("home", "end")
            assert person.app.walk.cursor is None

    run(scenario)


def test_a_click_on_a_token_goes_there_and_on_a_row_highlights(lm):
    async def scenario():
        async with opened(app_of(lm)) as person:
            await person.press("g", "g", "g")
            await person.pilot.click("#tokens", offset=(len(PROMPT) + 1, 0))
            await person.settle()
            assert person.app.walk.length == 0
            await person.pilot.click("#candidates", offset=(5, 3))
            await person.settle()
            assert person.app.walk.highlight == 2
            await person.pilot.click("#candidates", offset=(5, 3), times=2)
            await person.settle()
            assert len(person.app.walk.session.branches) == 2

    run(scenario)


@pytest.mark.parametrize("size", SIZES)
def test_slash_finds_a_token_anywhere_in_the_vocabulary(lm, size):
    async def scenario():
        async with opened(app_of(lm), size) as person:
            await person.pilot.press("slash", *"osaka")
            await person.settle()
            assert "␣Osaka" in person.screen
            await person.press("enter", "enter")
            assert lm.codec.decode(person.ids).strip() == "Osaka"
            await person.pilot.press("slash", *"zzzzzz")
            await person.settle()
            assert "no token is spelt like that" in person.screen
            await person.press("escape")
            assert "no token" not in person.screen

    run(scenario)


def test_tab_and_arrows_move_the_sliders(lm):
    async def scenario():
        async with opened(app_of(lm)) as person:
            logits = person.app.walk.distribution.logits
            await person.press("right", "tab", *["left"] * 6, "shift+tab", "right")
            params = person.app.walk.session.params
            assert params.temperature == pytest.approx(1.1)
            assert params.top_p < 1
            assert person.app.walk.distribution.logits is logits  # no new forward pass
            assert "top_p" in person.screen

    run(scenario)


def test_sliders_can_be_dragged(lm):
    async def scenario():
        async with opened(app_of(lm), (200, 60)) as person:
            slider = person.app.query(Slider).first()
            await person.pilot.mouse_down(slider, offset=(30, 0))
            await person.pilot.mouse_up(slider, offset=(30, 0))
            await person.settle()
            assert person.app.walk.session.params.temperature != 1.0
            await person.pilot.mouse_down(slider, offset=(21, 0))
            await person.pilot.mouse_up(slider, offset=(21, 0))
            await person.settle()
            assert person.app.walk.session.params.greedy

    run(scenario)


def test_every_stop_of_every_slider_is_a_valid_setting():
    from decodecli.explore.widgets import SETTINGS

    for setting in SETTINGS:
        assert getattr(SamplingParams, setting.name) in setting.stops
        for stop in setting.stops:
            value = int(stop) if setting.name == "top_k" else stop
            assert getattr(SamplingParams(**{setting.name: value}), setting.name) == stop


def test_a_guessing_round_hides_the_table_reveals_it_and_keeps_score(lm):
    async def scenario():
        async with opened(app_of(lm)) as person:
            await person.press("w")
            assert "which token comes next?" in person.screen
            assert "␣Tokyo" not in person.screen
            await person.pilot.press(*"tokyo", "enter")
            await person.settle()
            assert "number 1" in person.screen
            assert "1 of 1 right" in person.screen
            await person.press("w")
            await person.pilot.press(*"kyoto", "enter")
            await person.settle()
            assert "1 of 2 right" in person.screen
            await person.press("w")
            await person.pilot.press(*"qqqqqq", "enter")
            await person.settle()
            assert "no token is spelt" in person.screen
            assert "␣Tokyo" in person.screen

    run(scenario)


def test_e_edits_the_prompt(lm):
    async def scenario():
        async with opened(app_of(lm)) as person:
            await person.press("e")
            for _ in range(len(" Japan is")):
                await person.pilot.press("backspace")
            await person.pilot.press("space", *"Italy", "space", *"is", "enter")
            for _ in range(100):
                await person.pilot.pause(0.01)
                if person.app.walk.session.prompt != PROMPT:
                    break
            await person.settle()
            assert person.app.walk.session.prompt == "The capital of Italy is"
            assert "␣Rome" in person.screen

    run(scenario)


def test_s_saves_under_a_name_that_is_asked_for(lm, tmp_path):
    written = []

    def save(source, session, name):
        written.append(name)
        session.save(str(tmp_path / name))
        return f"saved {name}"

    async def scenario():
        async with opened(app_of(lm, save=save)) as person:
            await person.press("g")
            assert "not saved" in person.screen
            await person.press("s", "enter")
            assert "saved session.json" in person.screen
            assert "not saved" not in person.screen
            await person.press("g", "s")
            assert written == ["session.json", "session.json"]

    run(scenario)


def test_what_cannot_be_written_is_told_and_loses_nothing(lm):
    def save(source, session, name):
        raise WriteError(f"cannot write {name}: no space left", "free some")

    async def scenario():
        async with opened(app_of(lm, save=save, path="x.json")) as person:
            await person.press("g", "s")
            assert "cannot write x.json" in person.screen
            assert len(person.ids) == 1
            assert not person.app.walk.session.saved

    run(scenario)


def test_q_asks_when_something_is_unsaved(lm):
    async def scenario():
        app = app_of(lm)
        async with opened(app) as person:
            await person.press("g", "q")
            assert "not saved" in person.screen
            await person.press("escape")
            assert app.is_running
            await person.press("q")
            await person.pilot.press("d")
        assert not app.ended_by
        async with opened(app_of(lm)) as person:
            await person.pilot.press("q")

    run(scenario)


def test_question_mark_shows_the_keys(lm):
    async def scenario():
        async with opened(app_of(lm)) as person:
            await person.press("question_mark")
            for word in ("draw a token", "the tree of all", "Temperature 0 is greedy", "guess"):
                assert word in person.screen
            await person.press("escape")
            assert "the tree of all" not in person.screen

    run(scenario)


def test_keys_answer_at_once_while_a_slow_model_computes(lm):
    """Eight tokens a second: a key is answered within 100 ms, and draws that were asked for come."""

    async def scenario():
        app = app_of(lm, "Once upon a time,")
        logits = app.walk.source.logits
        app.walk.source.logits = lambda ids: (time.sleep(0.125), logits(ids))[1]
        async with opened(app) as person:
            await person.pilot.press("space", "space", "space")
            longest = 0.0
            for _ in range(6):
                before, start = app.walk.session.params, time.perf_counter()
                app.post_message(events.Key("right", None))
                while app.walk.session.params == before:
                    await asyncio.sleep(0.001)
                longest = max(longest, time.perf_counter() - start)
            assert app.walk.session.params.temperature == pytest.approx(1.3)
            for _ in range(100):
                await asyncio.sleep(0.02)
                if len(person.ids) == 3:
                    break
            assert len(person.ids) == 3
            # A forward pass takes 125 ms; a key that waited for one would too.
            assert longest < 0.1

    run(scenario)


def test_undo_while_the_model_computes_drops_what_was_asked_for(lm):
    async def scenario():
        app = app_of(lm, "Once upon a time,")
        logits = app.walk.source.logits
        app.walk.source.logits = lambda ids: (time.sleep(0.05), logits(ids))[1]
        async with opened(app) as person:
            await person.pilot.press("space", "space", "space", "space", "backspace")
            left = person.ids
            await asyncio.sleep(0.3)
            await person.settle()
            assert person.ids == left

    run(scenario)


def test_typed_numbers_need_no_model():
    async def scenario():
        async with opened(numbers_app(("day", 5.0), ("night", 4.5), ("space", 2.2))) as person:
            report = decodecli.softmax({"day": 5.0, "night": 4.5, "space": 2.2})
            assert f"{100 * report.rows[0].probability[0]:.1f}%" in person.screen
            await person.press("g", "down", "enter", "e")
            assert "no prompt to edit" in person.screen
            assert person.ids == (0, 1)
            assert "day night" in person.screen

    run(scenario)


def test_forty_columns_have_a_layout_and_fewer_a_message(lm):
    async def scenario():
        async with opened(app_of(lm), (40, 20)) as person:
            assert "␣Tokyo" in person.screen
            assert "temperature" in person.screen
            assert all(len(line) <= 40 for line in person.screen.splitlines())
            await person.pilot.resize_terminal(30, 20)
            await person.pilot.pause()
            assert "explore needs 36 columns" in person.screen

    run(scenario)


def test_the_end_of_a_text_is_told(lm):
    async def scenario():
        async with opened(app_of(lm)) as person:
            eos = next(iter(lm.eos_ids))
            person.app.walk.add(eos, "taken")
            person.app._look()
            await person.settle()
            await person.press("space")
            assert "the text has ended here" in person.screen
            assert person.ids == (eos,)

    run(scenario)


HOSTILE = ["[bold]", "[/INST]", "\x1b[31m", "\u202eabc", "</script>", "'\"", "\u2028", "\x07"]


def test_hostile_tokens_cannot_steer_the_screen():
    async def scenario():
        pairs = [(name, 5.0 - k) for k, name in enumerate(HOSTILE)]
        async with opened(numbers_app(*pairs)) as person:
            for _ in HOSTILE:
                await person.press("enter", "down")
            for name in ("[bold]", "[/INST]", "</script>"):
                assert name in person.screen
            for character in "\x1b\u202e\u2028\x07":
                assert character not in person.screen

    run(scenario)


def test_the_curve_is_the_entropy_over_temperature(lm):
    from decodecli.sampling.one_position import CURVE

    async def scenario():
        async with opened(app_of(lm)) as person:
            for _ in range(50):
                await person.pilot.pause(0.01)
                if person.app.view._curve[1]:
                    break
            places = [0, 20, 40]
            report = decodecli.next_token(lm, PROMPT, [CURVE[k] for k in places])
            expected = [spread.entropy for spread in report.spreads]
            assert np.allclose([person.app.view._curve[1][k] for k in places], expected, atol=1e-6)

    run(scenario)
