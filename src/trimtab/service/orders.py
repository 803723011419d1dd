"""What a client asked for, freed from the API it was asked in: prompts as ids, and how to answer."""

from __future__ import annotations

import msgspec

from trimtab.spec.wire import Sampling


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """`text` is what the client wrote, None where it sent ids.

    `goes_on`: the answer is read as what it adds to the prompt's text. A chat's is a message of its own.
    """

    ids: list[int]
    text: str | None = None
    goes_on: bool = True


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """`choices` answers to each prompt.

    `alternatives`: None = no log-probabilities, k = those of the tokens and of the k most probable ones at
    each place. `echo` puts the prompt before the answer. `max_tokens` 0 generates nothing.
    """

    prompts: tuple[Prompt, ...]
    sampling: Sampling
    choices: int = 1
    stops: tuple[str, ...] = ()
    alternatives: int | None = None
    echo: bool = False
    stream: bool = False
    include_usage: bool = False
    return_token_ids: bool = False
    deadline: float | None = None

    @property
    def needs_scores(self) -> bool:
        """Whether log-probabilities are wanted that generating does not give.

        At temperature 0 the most probable token is the one that was chosen.
        """
        if self.alternatives is None:
            return False
        greedy = self.sampling.temperature == 0 and self.alternatives == 1
        return self.echo or not (self.alternatives == 0 or greedy)
