"""Every bound of the service in one place: what one request may ask for, and how long a client may take."""

from __future__ import annotations

MAX_BODY_BYTES = 2**20
MAX_HEADER_BYTES = 16 * 2**10
MAX_HEADERS = 64
# After a refusal the rest of the body is read and dropped, so that the client gets to see the answer.
MAX_DRAIN_BYTES = 64 * 2**20

HEADERS_SECONDS = 10.0
BODY_SECONDS = 30.0
IDLE_SECONDS = 15
# A client that does not read: its connection is cut when the socket stays full for so long.
STALLED_READER_SECONDS = 30.0
MAX_CONNECTIONS = 1024

# The answers that one request may ask for, and how many of them are under way at once.
MAX_CHOICES = 8
MAX_SEQUENCES = 2048
MAX_AT_ONCE = 64
MAX_PROMPT_TOKENS = 2**18
# More than a body can hold: its own bound is the one that is met.
MAX_MESSAGES = 2**16
MAX_CONTENT_PARTS = 2**16
MAX_TOOL_CALLS = 256
MAX_DEPTH = 64
MAX_STOPS = 8
MAX_STOP_LENGTH = 256
MAX_LOGPROBS = 5
MAX_TOP_LOGPROBS = 20
MAX_WORD = 256
MAX_TOKENS = 2**20

# Texts longer than this many characters are tokenized in a thread: the loop must not stand still.
LONG_TEXT = 4096

DEFAULT_COMPLETION_TOKENS = 16
# How long a worker may show neither progress nor CPU time before it counts as dead.
DEAD_SECONDS = 5.0
# While a build is made or loaded, a worker may wait for a disk or for its builder.
LOAD_DEAD_SECONDS = 120.0
# At the end: for running answers, then for a worker to leave.
DRAIN_SECONDS = 600.0
WORKER_DRAIN_SECONDS = 10.0

# What the answers of one request may come to: tokens in all, and log-probabilities that are told of.
MAX_ANSWER_TOKENS = 2**21
MAX_TOLD = 2**20
# Work on more than this is done in a thread.
LONG_BODY_BYTES = 2**16
MANY_MESSAGES = 1024
MANY_TOKENS = 2048
# While an answer runs, so much of what the client sends ahead is kept; with more, the connection ends after the answer.
MAX_PIPELINED_BYTES = 64 * 2**10
# Of one body: chunk sizes, their extensions and trailers. A byte a chunk costs a thousand times what the byte does.
MAX_FRAMING_BYTES = 32 * 2**10
# Empty lines before a request. The standard wants one to be overlooked.
MAX_BLANK_BYTES = 64
# After a refusal that ends a connection: so long the client may go on sending and still gets to see the answer.
LINGER_SECONDS = 5.0
# Of all requests whose body is on its way, by what they announce. Who began first makes room for who comes.
MAX_BODIES_BYTES = 64 * 2**20
# Long texts that one model reads at once, and those that may wait for it. Each text costs as much as some
# characters beside its own.
TEXT_THREADS = 2
HUGE_TEXT = 2**17
MAX_TEXTS_WAITING = 64
TEXT_OVERHEAD = 16
# Chats longer than this (as JSON) are rendered apart from the others.
LONG_CHAT_BYTES = 2**14
# For each lane of a model's chat template: how many may wait, and how long.
MAX_WAITING_CHATS = 64
RENDER_WAIT_SECONDS = 10.0
# After the answers have ended or were cut: the service is gone within this time, whatever still runs.
END_SECONDS = 20.0
# The same for a gateway whose starter is dead: nobody waits for its answers.
ORPHAN_SECONDS = 5.0
