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

MAX_PROMPTS = 64
MAX_CHOICES = 8
MAX_SEQUENCES = 64
MAX_PROMPT_TOKENS = 2**18
MAX_MESSAGES = 256
MAX_CONTENT_PARTS = 64
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

# Chats longer than this (as JSON) are rendered apart from the others.
LONG_CHAT_BYTES = 2**14
# For each lane of a model's chat template: how many may wait, and how long.
MAX_WAITING_CHATS = 64
RENDER_WAIT_SECONDS = 10.0
# After the answers have ended or were cut: the service is gone within this time, whatever still runs.
END_SECONDS = 20.0
# The same for a gateway whose starter is dead: nobody waits for its answers.
ORPHAN_SECONDS = 5.0
