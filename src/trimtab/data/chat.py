"""Chats as training text: the shape of a message, and the plain template for tokenizers that bring none."""

from __future__ import annotations

import msgspec

from trimtab.spec.errors import DataError

# Written beside a tokenizer that we train, so that the service renders chats exactly as training did.
PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


class Message(msgspec.Struct, frozen=True):
    role: str
    content: str


def check_messages(value: object, *, where: str) -> tuple[Message, ...]:
    """A list of `{"role": …, "content": …}` → messages. Raises `DataError` naming the place."""
    try:
        messages = msgspec.convert(value, tuple[Message, ...])
    except msgspec.ValidationError as error:
        raise DataError(
            f"the chat is malformed: {error}.",
            where=where,
            remedy='Each message is {"role": "user", "content": "text"}.',
        ) from error
    if not messages:
        raise DataError("the chat has no message.", where=where)
    return messages


def render_plain(messages: tuple[Message, ...]) -> str:
    """What `PLAIN_TEMPLATE` gives, without a template engine."""
    return "".join(f"{message.role}: {message.content}\n" for message in messages)
