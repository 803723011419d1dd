"""From OpenAI's requests to an order: prompts tokenized, lengths checked against the model's context."""

from __future__ import annotations

from trimtab.service import limits
from trimtab.service.errors import ContextLengthError, UnsupportedError
from trimtab.service.model import Model
from trimtab.service.openai_requests import ChatRequest, CompletionRequest
from trimtab.service.orders import Order, Prompt
from trimtab.spec.errors import UsageError
from trimtab.spec.wire import Sampling

_SEED_MASK = 2**63 - 1


async def completion_order(request: CompletionRequest, model: Model, deadline: float | None) -> Order:
    """`deadline` is in seconds from now."""
    choices = request.n or 1
    if request.best_of not in (None, choices):
        raise UnsupportedError(
            "'best_of' other than 'n' is not served.", where="best_of", remedy="Leave 'best_of' out."
        )
    prompts = await _prompts(request.prompt, choices, model)
    order = Order(
        prompts=prompts,
        sampling=_sampling(request, model, prompts, request.max_tokens, limits.DEFAULT_COMPLETION_TOKENS),
        choices=choices,
        stops=_stops(request.stop),
        alternatives=request.logprobs,
        echo=bool(request.echo),
        stream=bool(request.stream),
        include_usage=_include_usage(request),
        return_token_ids=bool(request.return_token_ids),
        deadline=deadline,
    )
    return _servable(order, "logprobs")


async def chat_order(request: ChatRequest, model: Model, deadline: float | None) -> Order:
    """`deadline` is in seconds from now."""
    if request.max_tokens is not None and request.max_completion_tokens is not None:
        raise UsageError("'max_tokens' and 'max_completion_tokens' are the same thing.", where="max_tokens")
    wanted = request.max_tokens if request.max_completion_tokens is None else request.max_completion_tokens
    if wanted == 0:
        raise UsageError("'max_tokens' must be at least 1.", where="max_tokens")
    if request.top_logprobs is not None and not request.logprobs:
        raise UsageError("'top_logprobs' needs 'logprobs': true.", where="top_logprobs")
    prompts = (await _chat_prompt(request, model),)
    order = Order(
        prompts=prompts,
        sampling=_sampling(request, model, prompts, wanted, None),
        choices=request.n or 1,
        stops=_stops(request.stop),
        alternatives=(request.top_logprobs or 0) if request.logprobs else None,
        stream=bool(request.stream),
        include_usage=_include_usage(request),
        return_token_ids=bool(request.return_token_ids),
        deadline=deadline,
    )
    return _servable(order, "top_logprobs")


async def _chat_prompt(request: ChatRequest, model: Model) -> Prompt:
    template = model.template
    if template is None:
        raise UsageError(
            f"The model {model.name!r} has no chat template.",
            where="messages",
            remedy="Use /v1/completions, or put a chat_template.jinja into the model's folder.",
        )
    messages = [message.plain() for message in request.messages]
    text = await template.render(messages)
    # The template writes the special tokens itself.
    (ids,) = await model.encode([text], add_special_tokens=False)
    return Prompt(ids=ids, text=text)


async def _prompts(
    asked: str | list[str | int | list[int]], choices: int, model: Model
) -> tuple[Prompt, ...]:
    """Text, ids, or a list of either."""
    if isinstance(asked, str):
        asked = [asked]
    if all(isinstance(each, int) for each in asked):
        return (Prompt(ids=asked),)  # pyrefly: ignore[bad-argument-type]
    if len(asked) > limits.MAX_PROMPTS or len(asked) * choices > limits.MAX_SEQUENCES:
        raise UsageError(
            f"{len(asked)} prompts with {choices} choices each are too many at once.",
            where="prompt",
            remedy=f"Send at most {limits.MAX_PROMPTS}, for {limits.MAX_SEQUENCES} answers in all.",
        )
    texts = [each for each in asked if isinstance(each, str)]
    if len(texts) == len(asked):
        encoded = await model.encode(texts)
        return tuple(Prompt(ids=ids, text=text) for ids, text in zip(encoded, texts, strict=True))
    lists = [each for each in asked if isinstance(each, list)]
    if len(lists) == len(asked):
        return tuple(Prompt(ids=ids) for ids in lists)
    raise UsageError("'prompt' mixes texts, ids and lists.", where="prompt", remedy="Send one kind.")


def _sampling(
    request: CompletionRequest | ChatRequest,
    model: Model,
    prompts: tuple[Prompt, ...],
    wanted: int | None,
    default: int | None,
) -> Sampling:
    """Checks every prompt and the asked-for length against the context; `default` None = whatever fits."""
    capabilities = model.loaded()
    longest = max(len(prompt.ids) for prompt in prompts)
    for prompt in prompts:
        if not prompt.ids:
            raise UsageError("The prompt is empty.", where="prompt", remedy="Send at least one token.")
        if max(prompt.ids) >= capabilities.vocabulary_size:
            raise UsageError(
                f"The model's token ids end at {capabilities.vocabulary_size - 1}.",
                where="prompt",
                remedy="Send ids of this model's own tokenizer.",
            )
    room = capabilities.context_length - longest
    if room < (0 if wanted == 0 else 1) or (wanted is not None and wanted > room):
        raise ContextLengthError(
            f"The prompt has {longest} tokens"
            + (f" and {wanted} more are asked for" if wanted else "")
            + f"; the model's context holds {capabilities.context_length}.",
            where="prompt" if room < 1 else "max_tokens",
            remedy="Send a shorter prompt." if room < 1 else f"Ask for at most {room} tokens.",
        )
    if wanted is None:
        wanted = room if default is None else min(default, room)
    return Sampling(
        max_tokens=wanted,
        temperature=1.0 if request.temperature is None else request.temperature,
        top_p=1.0 if request.top_p is None else request.top_p,
        seed=None if request.seed is None else request.seed & _SEED_MASK,
        logprobs=request.logprobs is not None and request.logprobs is not False,
        ignore_eos=bool(request.ignore_eos),
    )


def _stops(stop: str | list[str] | None) -> tuple[str, ...]:
    return (stop,) if isinstance(stop, str) else tuple(stop or ())


def _include_usage(request: CompletionRequest | ChatRequest) -> bool:
    if request.stream_options is None:
        return False
    if not request.stream:
        raise UsageError("'stream_options' needs 'stream': true.", where="stream_options")
    return bool(request.stream_options.include_usage)


def _servable(order: Order, parameter: str) -> Order:
    if order.stream and order.needs_scores:
        raise UnsupportedError(
            "Alternatives, and log-probabilities of the prompt, are not served as a stream.",
            where=parameter,
            remedy="Ask with 'stream': false, or for the log-probabilities of the answer's own tokens only.",
        )
    return order
