"""One model's chat template holds nobody else: not another model's chats, not short ones, not the loop."""

import asyncio
import time

import pytest

from trimtab.service import limits
from trimtab.service.rendering import Rendering
from trimtab.spec.errors import EngineError, OverloadedError, UsageError
from trimtab.text import templates
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
def make(monkeypatch):
    """What burns does so until it is closed, so that nothing here hangs on how fast the machine is."""
    monkeypatch.setattr(templates, "RENDER_CPU_SECONDS", 600.0)
    monkeypatch.setattr(templates, "RENDER_SECONDS", 600.0)
    monkeypatch.setattr(limits, "RENDER_WAIT_SECONDS", 600.0)
    made = []

    def start(source=BURNS):
        template = ChatTemplate(source, {})
        template.check()
        made.append(Rendering(template))
        return made[-1]

    yield start
    for each in made:
        each.close()


async def closed(rendering, *burning):
    assert not any(each.done() for each in burning)
    rendering.close()
    answers = await asyncio.gather(*burning, return_exceptions=True)
    assert all(isinstance(each, EngineError | asyncio.CancelledError) for each in answers), answers


def test_a_slow_template_holds_no_other_model_and_not_the_loop(make):
    slow, quick = make(), make()

    async def run():
        burning = [asyncio.create_task(slow.render(BURN)) for _ in range(40)]
        await asyncio.sleep(0.1)
        for _ in range(20):
            assert await quick.render(SHORT) == "ok"
            assert await asyncio.to_thread(lambda: 1) == 1  # the default executor is free
        await closed(slow, *burning)

    asyncio.run(run())


def test_long_chats_do_not_hold_short_ones(make):
    rendering = make()

    async def run():
        burning = asyncio.create_task(rendering.render(LONG))
        await asyncio.sleep(0.1)
        assert await rendering.render(SHORT) == "ok"
        await closed(rendering, burning)

    asyncio.run(run())


def test_more_than_may_wait_are_refused_at_once(make, monkeypatch):
    monkeypatch.setattr(limits, "MAX_WAITING_CHATS", 2)
    rendering = make()

    async def run():
        waiting = [asyncio.create_task(rendering.render(BURN)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError) as caught:
            await rendering.render(SHORT)
        assert caught.value.status == 429
        await closed(rendering, *waiting)

    asyncio.run(run())


def test_nobody_waits_for_ever(make, monkeypatch):
    monkeypatch.setattr(limits, "RENDER_WAIT_SECONDS", 0.2)
    rendering = make()

    async def run():
        first = asyncio.create_task(rendering.render(BURN))
        await asyncio.sleep(0.05)
        with pytest.raises(OverloadedError, match="too busy"):
            await rendering.render(SHORT)
        with pytest.raises(OverloadedError, match="too busy"):
            await first

    asyncio.run(run())


def test_a_client_that_leaves_gives_up_its_place(make, monkeypatch):
    rendering = make()
    monkeypatch.setattr(limits, "MAX_WAITING_CHATS", 2)
    monkeypatch.setattr(templates, "RENDER_CPU_SECONDS", 1.0)

    async def run():
        first = asyncio.create_task(rendering.render(BURN))
        second = asyncio.create_task(rendering.render(BURN))
        await asyncio.sleep(0.05)
        second.cancel()
        await asyncio.wait({second})
        assert await rendering.render(SHORT) == "ok"  # where the second would be refused a place, or burn
        with pytest.raises(UsageError, match="too long"):
            await first

    asyncio.run(run())


def test_closing_waits_for_nothing(make):
    rendering = make()

    async def run():
        waiting = [asyncio.create_task(rendering.render(BURN)) for _ in range(3)]
        await asyncio.sleep(0.1)
        begun = time.monotonic()
        rendering.close()
        assert time.monotonic() - begun < 5.0
        await closed(rendering, *(each for each in waiting if not each.done()))

    asyncio.run(run())
