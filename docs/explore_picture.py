"""The picture of `explore`'s screen: a few keys pressed in a terminal of 100 columns."""

from __future__ import annotations

import asyncio
from pathlib import Path

import decodecli
from decodecli import SamplingParams
from decodecli.decoding.prompt import prefill
from decodecli.explore.app import Explorer
from decodecli.explore.engine import ModelSource
from decodecli.explore.session import Session

PROMPT = "The capital of Japan is"
KEYS = ("down", "enter", "space", "space", "space", "home")
SETTINGS = SamplingParams(temperature=1.4, top_p=0.95)


def draw_explore(picture: Path) -> None:
    """Write `picture`, an .svg."""
    lm = decodecli.load("builtin", device="cpu", dtype="float32", quantize="none")
    prefix = prefill(lm, PROMPT)
    app = Explorer(ModelSource(prefix), Session(lm.info, prefix.text, prefix.ids, SETTINGS))

    async def press() -> None:
        async with app.run_test(size=(100, 26)) as pilot:
            for key in KEYS:
                await pilot.press(key)
                await pilot.pause(0.5)
            app.save_screenshot(picture.name, str(picture.parent))

    asyncio.run(press())
