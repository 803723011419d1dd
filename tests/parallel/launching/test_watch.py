"""Who hangs, from beats alone. Real stopped processes are in test_failures.py."""

import errno
import json
import os
from pathlib import Path

import pytest

from trimtab.parallel.launching import watch as module
from trimtab.parallel.launching.pulse import Beat, Pulse, beat_path, read_beat
from trimtab.parallel.launching.watch import Watch, hung, straggler
from trimtab.spec.errors import RankLostError


def beat(rank, count=1, **changes):
    settings = {"phase": "training", "step": 5, "collectives": 40, "host": f"h{rank}", "pid": 100 + rank}
    return Beat(rank=rank, count=count, **settings | changes)


@pytest.fixture
def world(tmp_path, monkeypatch):
    """`.say(beat…)`, `.pass_seconds(n)`, and `.watch` over two ranks with a limit of 10 s."""

    class World:
        now = 0.0
        watch = Watch(tmp_path, 2, hang_seconds=10.0)

        def say(self, *beats):
            for one in beats:
                beat_path(tmp_path, one.rank).write_text(
                    json.dumps({f: getattr(one, f) for f in Beat.__struct_fields__})
                )

        def pass_seconds(self, seconds):
            self.now += seconds

    made = World()
    monkeypatch.setattr(module.time, "monotonic", lambda: made.now)
    return made


def test_a_rank_whose_beats_end_is_named_with_what_the_others_wait_in(world):
    for second in range(10):
        world.say(beat(0, second, waits_in="all_reduce #42 of Float [7]", collectives=42), beat(1, 1))
        world.watch.look()
        world.pass_seconds(1)
    world.say(beat(0, 99, waits_in="all_reduce #42 of Float [7]", collectives=42))
    world.pass_seconds(1)
    with pytest.raises(RankLostError, match=r"rank 1 of 2 hangs: .* training at step 5") as caught:
        world.watch.look()
    assert "Rank 0 waits for it in all_reduce #42 of Float [7]" in caught.value.message
    assert caught.value.where == "process 101 on h1"


def test_ranks_that_beat_may_take_their_time_over_a_step(world):
    for second in range(90):
        world.say(beat(0, second), beat(1, second))
        world.watch.look()
        world.pass_seconds(1)
    world.say(beat(0, 1000, waits_in="barrier #9"), beat(1, 1000))
    world.pass_seconds(20)
    with pytest.raises(RankLostError, match="rank 1 of 2 hangs"):
        world.watch.look()


def test_loading_libraries_may_stop_the_beats_a_while(world):
    world.say(beat(0, phase="starting"), beat(1, phase="loading"))
    world.watch.look()
    world.pass_seconds(60)
    world.watch.look()
    world.pass_seconds(60)
    with pytest.raises(RankLostError, match="starting at step"):
        world.watch.look()


def test_one_may_save_while_the_others_wait(world):
    for second in range(300):
        world.say(beat(0, second, phase="saving"), beat(1, second, waits_in="barrier #9"))
        world.watch.look()
        world.pass_seconds(1)


def test_a_restarted_rank_is_a_new_one(world):
    world.say(beat(0, 50), beat(1, 50))
    world.watch.look()
    world.pass_seconds(9)
    world.say(beat(0, 51), beat(1, 1, pid=7))
    world.watch.look()
    world.pass_seconds(9)
    world.say(beat(0, 60))
    world.watch.look()


def test_who_waits_in_no_collective_holds_up_the_rest():
    waiting = beat(0, waits_in="all_reduce #42", collectives=42)
    assert straggler([waiting, beat(1)]).rank == 1
    assert straggler([waiting, beat(1, waits_in="barrier #41", collectives=41)]).rank == 1
    text = hung(beat(1, waits_in="barrier #41"), [waiting, beat(1)], 12.3).message
    assert text.startswith("rank 1 of 2 hangs: nothing from it for 12 s, training in barrier #41 at step 5.")


def test_a_pulse_tells_where_its_process_is(tmp_path):
    pulse = Pulse(tmp_path, 3)
    assert read_beat(tmp_path, 3) is None
    pulse.at("training", 17)
    pulse.beat()
    pulse.beat()
    found = read_beat(tmp_path, 3)
    assert (found.rank, found.pid, found.count, found.phase, found.step) == (
        3,
        os.getpid(),
        2,
        "training",
        17,
    )


def test_a_full_disk_does_not_make_a_rank_seem_dead(tmp_path, monkeypatch):
    pulse = Pulse(tmp_path, 0)
    pulse.at("training", 17)
    pulse.beat()
    full = OSError(errno.ENOSPC, "no space left")

    def no_room(*_):
        raise full

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", no_room)
        pulse.at("training", 1018)
        pulse.beat()
    found = read_beat(tmp_path, 0)
    assert (found.count, found.step) == (2, 1018)
