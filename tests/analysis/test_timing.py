"""The arithmetic of measuring, on clocks that go as they are told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.decoding import overhead
from decodecli.analysis.timing import Samples, Speed, Stopwatch, alternate


class Clock:
    """A clock that only work moves: `clock.work(seconds)`."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def work(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Iterator[Clock]:
    return Clock()


def test_median_quartiles_and_range_are_those_of_the_values():
    samples = Samples((5.0, 1.0, 4.0, 2.0, 3.0))
    assert samples.median == 3
    assert samples.quartiles == (2, 4)
    assert samples.as_dict() == {
        "median": 3.0, "quartiles": [2.0, 4.0], "range": [1.0, 5.0],
        "values": [5.0, 1.0, 4.0, 2.0, 3.0],
    }  # fmt: skip


def test_a_single_repetition_is_its_own_spread():
    assert Samples((7.0,)).quartiles == (7, 7)


def test_without_a_repetition_there_are_no_samples():
    with pytest.raises(ValueError, match="no repetition"):
        Samples(())


def test_the_sides_take_turns_and_swap_the_order_every_time():
    calls: list[str] = []

    def side(name: str, value: float):
        def measure() -> float:
            calls.append(name)
            return value

        return measure

    found = alternate({"a": side("a", 1), "b": side("b", 2), "c": side("c", 3)}, 3, warm_up=False)
    assert "".join(calls) == "abccbaabc"
    assert found["b"].values == (2, 2, 2)
    assert list(found) == ["a", "b", "c"]


def test_the_warm_up_is_measured_and_forgotten():
    values = iter([100.0, 1.0, 2.0])
    assert alternate({"a": lambda: next(values)}, 2)["a"].values == (1, 2)


def test_a_stopwatch_waits_for_the_device_before_and_after(clock):
    queued = [3.0]  # work of somebody else that the device has not finished

    def settle() -> None:
        while queued:
            clock.work(queued.pop())

    def run() -> None:
        queued.append(0.5)  # returns at once, the device works on

    assert Stopwatch(clock, settle).seconds(run) == 0.5


def test_seconds_per_call_are_a_mean_over_calls_in_a_row(clock):
    durations = iter([1.0, 2.0, 3.0])
    assert Stopwatch(clock).per_call(lambda: clock.work(next(durations)), 3) == 2


def test_speed_leaves_out_what_comes_before_the_first_tokens(clock):
    def run(tokens: int) -> None:
        clock.work(7 + 0.25 * tokens)

    speed = Speed(Stopwatch(clock), short=4, long=24)
    assert speed.tokens_per_second(run) == pytest.approx(4)
    assert overhead(speed, run) == pytest.approx(7)


def test_a_long_run_that_took_less_than_a_short_one_is_measured_again(clock):
    durations = iter([5.0, 4.0, 1.0, 3.0])
    speed = Speed(Stopwatch(clock), short=2, long=10)
    assert speed.tokens_per_second(lambda _: clock.work(next(durations))) == 4


def test_after_three_of_those_the_long_run_counts_whole(clock):
    durations = iter([5.0, 4.0] * 3)
    speed = Speed(Stopwatch(clock), short=2, long=10)
    assert speed.tokens_per_second(lambda _: clock.work(next(durations))) == 2.5
