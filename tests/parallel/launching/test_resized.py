"""The part of the Ray adapter that needs no Ray."""

import msgspec

from trimtab.parallel.launching.on_ray import _resized
from trimtab.spec.layout import Layout


def test_fewer_workers_are_fewer_replicas_of_the_same_batch():
    job = {"layout": msgspec.to_builtins(Layout(data=4, zero=1)), "batch": 8}
    assert _resized(job, 4) == job
    assert _resized(job, 3) == {"layout": msgspec.to_builtins(Layout(data=3, zero=1)), "batch": 8}
    assert _resized({"layout": None}, 3) == {"layout": None}
