"""An engine stepped in the test's own process, with the words of `bare_gateway.Gateway`."""

import numpy as np

from trimtab.engines.scoring import finish
from trimtab.spec.wire import Sampling, Submit


class DirectEngine:
    def __init__(self, engine):
        self.engine = engine
        self.capabilities = engine.capabilities

    def generate(self, id_, prompt, **sampling):
        submit = Submit(id=id_, kind="generate", sampling=Sampling(**sampling))
        self.engine.submit(submit, np.asarray(prompt, np.int32))

    def answers(self, *ids):
        """id → (tokens, log-probabilities, finish) once the engine has nothing left to do."""
        found = {id_: ([], [], None) for id_ in ids}
        while self.engine.has_work:
            for event in self.engine.step():
                tokens, logprobs, finish = found[event.id]
                assert finish is None
                found[event.id] = ([*tokens, *event.tokens], [*logprobs, *event.logprobs], event.finish)
        return found

    def score(self, tokens, top=0):
        return finish(self.engine.score(np.asarray(tokens, np.int32), top))
