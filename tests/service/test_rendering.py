"""One model's chat template holds nobody else: not another model's chats, not short ones, not the loop."""

import asyncio
import time

import pytest

from trimtab.service import limits
from trimtab.service.rendering import Rendering
from trimtab.spec.errors import EngineError, OverloadedError, UsageError
from trimtab.text.templates import ChatTemplate

# Burns where it is told to, for as long as it is let.
BURNS = (
    "{% if messages[0].content[:4] == 'burn' %}"
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}{% endif %}ok"
)
SHORT, LONG = (
    [{"role": "user", "content": "hi"}],
    [{"role": "user", "content": "burn" + "x" * limits.LONG_CHAT_BYTES}],
)
BURN = [{"role": "user", "content": "burn"}]


@pytest.fixture
def make():
    made = []

    def start(source=BURNS):
        template = ChatTemplate(source, {})
        template.check()
        made.append(Rendering(template))
        return made[-1]

    yield start
    for each in made:
        each.close()


def test_a_slow_template_holds_no_other_model_and_not_the_loop(make):
    slow, quick = make(), make()

    async def run():
        burning = [asyncio.create_task(slow.render(BURN)) for _ in range(3)]
        await asyncio.sleep(0.1)
        worst = 0.0
        for _ in range(20):
            begun = time.monotonic()
            assert await quick.render(SHORT) == "ok"
            assert await asyncio.to_thread(lambda: 1) == 1  # the default executor is free
            worst = max(worst, time.monotonic() - begun)
        assert worst < 1.0
        assert not all(each.done() for each in burning)
        for each in burning:
            with pytest.raises(UsageError, match="too long"):
                await each

    asyncio.run(run())


def test_long_chats_do_not_hold_short_ones(make):
    rendering = make()

    async def run():
        burning = asyncio.create_task(rendering.render(LONG))
        await asyncio.sleep(0.2)
        assert await rendering.render(SHORT) == "ok"
        assert not burning.done()
        with pytest.raises(UsageError, match="too long"):
            await burning

    asyncio.run(run())


def test_more_than_may_wait_are_refused_at_once(make, monkeypatch):
    monkeypatch.setattr(limits, "MAX_WAITING_CHATS", 2)
    rendering = make()

    async def run():
        waiting = [asyncio.create_task(rendering.render(BURN)) for _ in range(2)]
        await asyncio.sleep(0)
        begun = time.monotonic()
        with pytest.raises(OverloadedError) as caught:
            await rendering.render(SHORT)
        assert time.monotonic() - begun < 0.2
        assert caught.value.status == 429
        await asyncio.gather(*waiting, return_exceptions=True)
        assert await rendering.render(SHORT) == "ok"

    asyncio.run(run())


def test_nobody_waits_for_ever(make, monkeypatch):
    monkeypatch.setattr(limits, "RENDER_WAIT_SECONDS", 0.2)
    rendering = make()

    async def run():
        first = asyncio.create_task(rendering.render(BURN))
        await asyncio.sleep(0.05)
        with pytest.raises(OverloadedError, match="too busy"):
            await rendering.render(SHORT)
        await asyncio.gather(first, return_exceptions=True)

    asyncio.run(run())


def test_a_client_that_leaves_gives_up_its_place(make):
    rendering = make()

    async def run():
        first = asyncio.create_task(rendering.render(BURN))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(rendering.render(BURN))
        await asyncio.sleep(0.05)
        second.cancel()
        begun = time.monotonic()
        await asyncio.gather(first, return_exceptions=True)
        assert await rendering.render(SHORT) == "ok"
        assert second.cancelled()
        assert time.monotonic() - begun < 8

    asyncio.run(run())


def test_closing_waits_for_nothing(make):
    rendering = make()

    async def run():
        waiting = [asyncio.create_task(rendering.render(BURN)) for _ in range(3)]
        await asyncio.sleep(0.1)
        begun = time.monotonic()
        rendering.close()
        assert time.monotonic() - begun < 1.0
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(each, EngineError | asyncio.CancelledError) for each in answers), answers

    asyncio.run(run())
