"""From OpenAI's requests to an order: prompts tokenized, lengths checked against the model's context."""

from __future__ import annotations

import msgspec

from trimtab.service import limits
from trimtab.service.errors import ContextLengthError, UnsupportedError
from trimtab.service.model import Model
from trimtab.service.openai_messages import for_template, refuse_left_out
from trimtab.service.openai_requests import ChatRequest, CompletionRequest
from trimtab.service.orders import Order, Prompt
from trimtab.service.prompts import readable
from trimtab.service.turns import apart
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
    order = Order(
        prompts=await _prompts(request.prompt, choices, model),
        sampling=sampling_of(request),
        choices=choices,
        stops=_stops(request.stop),
        alternatives=request.logprobs,
        echo=bool(request.echo),
        stream=bool(request.stream),
        include_usage=_include_usage(request),
        return_token_ids=bool(request.return_token_ids),
        deadline=deadline,
    )
    order = bounded(order, model, request.max_tokens, limits.DEFAULT_COMPLETION_TOKENS)
    return await _read_prompts(_servable(order, "logprobs"), model)


async def chat_order(request: ChatRequest, model: Model, deadline: float | None) -> Order:
    """`deadline` is in seconds from now."""
    wanted = request.max_tokens if request.max_completion_tokens is None else request.max_completion_tokens
    if request.max_tokens not in (None, wanted):
        raise UsageError("'max_tokens' and 'max_completion_tokens' are the same thing.", where="max_tokens")
    if wanted == 0:
        raise UsageError("'max_tokens' must be at least 1.", where="max_tokens")
    if request.top_logprobs and not request.logprobs:
        raise UsageError("'top_logprobs' needs 'logprobs': true.", where="top_logprobs")
    order = Order(
        prompts=(await _chat_prompt(request, model),),
        sampling=sampling_of(request),
        choices=request.n or 1,
        stops=_stops(request.stop),
        alternatives=(request.top_logprobs or 0) if request.logprobs else None,
        stream=bool(request.stream),
        include_usage=_include_usage(request),
        return_token_ids=bool(request.return_token_ids),
        deadline=deadline,
    )
    return _servable(bounded(order, model, wanted, None), "top_logprobs")


async def _chat_prompt(request: ChatRequest, model: Model) -> Prompt:
    template = model.template
    if template is None:
        raise UsageError(
            f"The model {model.name!r} has no chat template.",
            where="messages",
            remedy="Use /v1/completions, or put a chat_template.jinja into the model's folder.",
        )
    many = len(request.messages) > limits.MANY_MESSAGES
    messages = await apart(lambda: for_template(request.messages), if_=many)
    marked = await model.encoding.mark(messages)
    shown = marked or messages
    text = await template.render(shown)
    await apart(lambda: refuse_left_out(shown, text), if_=many)
    if marked:
        return Prompt(ids=await model.encoding.encode_marked(text), goes_on=False)
    # The template writes the special tokens itself.
    (ids,) = await model.encode([text], add_special_tokens=False)
    return Prompt(ids=ids, goes_on=False)


async def _prompts(
    asked: str | list[str | int | list[int]], choices: int, model: Model
) -> tuple[Prompt, ...]:
    """Text, ids, or a list of either."""
    if isinstance(asked, str):
        asked = [asked]
    if all(isinstance(each, int) for each in asked):
        return (Prompt(ids=asked),)  # pyrefly: ignore[bad-argument-type]
    if len(asked) * choices > limits.MAX_SEQUENCES:
        raise UsageError(
            f"{len(asked)} prompts with {choices} choices each are too many at once.",
            where="prompt",
            remedy=f"Ask for at most {limits.MAX_SEQUENCES} answers in all.",
        )
    texts = [each for each in asked if isinstance(each, str)]
    if len(texts) == len(asked):
        encoded = await model.encode(texts)
        return tuple(Prompt(ids=ids, text=text) for ids, text in zip(encoded, texts, strict=True))
    lists = [each for each in asked if isinstance(each, list)]
    if len(lists) == len(asked):
        return tuple(Prompt(ids=ids) for ids in lists)
    raise UsageError("'prompt' mixes texts, ids and lists.", where="prompt", remedy="Send one kind.")


async def _read_prompts(order: Order, model: Model) -> Order:
    """The order with the text of its prompts, and where their tokens begin in it, as far as it must tell them."""
    if not order.echo or all(prompt.text and not order.needs_starts for prompt in order.prompts):
        return order

    def read() -> tuple[Prompt, ...]:
        return tuple(readable(prompt, model, starts=order.needs_starts) for prompt in order.prompts)

    much = sum(len(prompt.ids) for prompt in order.prompts) > limits.MANY_TOKENS
    prompts = await apart(read, if_=much)
    return msgspec.structs.replace(order, prompts=prompts)


def sampling_of(request: CompletionRequest | ChatRequest) -> Sampling:
    """The length is set later, by `bounded`."""
    # The smallest nucleus holds the most probable token alone.
    greedy = request.top_p == 0
    temperature = 1.0 if request.temperature is None else request.temperature
    return Sampling(
        max_tokens=0,
        temperature=0.0 if greedy else temperature,
        top_p=1.0 if greedy or request.top_p is None else request.top_p,
        seed=None if request.seed is None else request.seed & _SEED_MASK,
        logprobs=request.logprobs is not None and request.logprobs is not False,
        ignore_eos=bool(request.ignore_eos),
    )


def bounded(order: Order, model: Model, wanted: int | None, default: int | None) -> Order:
    """With its length. Checks every prompt and the asked-for length; `default` None = whatever fits."""
    capabilities = model.loaded()
    longest = max(len(prompt.ids) for prompt in order.prompts)
    for prompt in order.prompts:
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
    affordable = _affordable(order)
    if affordable < (1 if wanted is None else wanted):
        raise UsageError(
            "All answers together, with the log-probabilities of their tokens and alternatives, are too much.",
            where="max_tokens" if affordable > 0 else "prompt",
            remedy=(
                f"Ask for at most {affordable} tokens an answer" if affordable > 0 else "Send fewer prompts"
            )
            + ", for fewer answers, or for fewer alternatives.",
        )
    if wanted is None:
        wanted = min(room, affordable, room if default is None else default)
    return msgspec.structs.replace(order, sampling=msgspec.structs.replace(order.sampling, max_tokens=wanted))


def _affordable(order: Order) -> int:
    """How many tokens each answer may have; negative where the prompts alone are too much."""
    answers = len(order.prompts) * order.choices
    tokens = limits.MAX_ANSWER_TOKENS // answers
    if order.alternatives is None:
        return tokens
    told = limits.MAX_TOLD // (1 + order.alternatives)
    if order.echo:
        told -= sum(len(prompt.ids) for prompt in order.prompts) * order.choices
    return min(tokens, told // answers)


def _stops(stop: str | list[str] | None) -> tuple[str, ...]:
    return (stop,) if isinstance(stop, str) else tuple(stop or ())


def _include_usage(request: CompletionRequest | ChatRequest) -> bool:
    options = request.stream_options
    if options is not None and options.continuous_usage_stats:
        raise UnsupportedError(
            "The usage so far is not told while an answer is streamed.",
            where="stream_options.continuous_usage_stats",
            remedy="Use 'include_usage'.",
        )
    if options is None or not options.include_usage:
        return False
    if not request.stream:
        raise UsageError("'stream_options' needs 'stream': true.", where="stream_options")
    return True


def _servable(order: Order, parameter: str) -> Order:
    if order.stream and order.needs_scores:
        raise UnsupportedError(
            "Alternatives, and log-probabilities of the prompt, are not served as a stream.",
            where=parameter,
            remedy="Ask with 'stream': false, or for the log-probabilities of the answer's own tokens only.",
        )
    return order
