from hypothesis import given
from hypothesis import strategies as st

from trimtab.parallel.mesh import Grid
from trimtab.parallel.ranks import Ranks
from trimtab.parallel.strategies.zero import rows_of
from trimtab.spec.layout import Layout

sizes = st.sampled_from([1, 2, 3])
layouts = st.builds(Layout, data=sizes, shard=sizes, context=sizes, tensor=sizes, pipeline=sizes)


def grids(layout):
    return [Grid(layout=layout, ranks=Ranks(rank=rank, world=layout.world)) for rank in range(layout.world)]


@given(layouts)
def test_every_rank_has_a_place_of_its_own(layout):
    places = {(g.share, g.context_index, g.index("tensor"), g.index("pipeline")) for g in grids(layout)}
    assert len(places) == layout.world
    assert {place[0] for place in places} == set(range(layout.data * layout.shard))


@given(layouts)
def test_ranks_of_one_stream_compute_the_same_activations(layout):
    streams = {}
    for grid in grids(layout):
        streams.setdefault(grid.stream, set()).add((grid.share, grid.context_index))
    assert len(streams) == layout.data * layout.shard * layout.context
    assert all(len(alike) == 1 for alike in streams.values())


@given(layouts)
def test_neighbours_share_layers_first(layout):
    """Tensor is the innermost axis, pipeline the outermost."""
    for rank, grid in enumerate(grids(layout)):
        assert grid.index("tensor") == rank % layout.tensor
        assert grid.index("pipeline") == rank // (layout.world // layout.pipeline)


@given(st.integers(0, 40), st.integers(1, 7))
def test_rows_are_all_taken_once(count, replicas):
    taken = [i for index in range(replicas) for i in range(count)[rows_of(count, index, replicas)]]
    assert taken == list(range(count))
