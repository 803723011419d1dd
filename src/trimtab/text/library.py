"""Faults of the Rust `tokenizers` library as ours. It raises nothing narrower than Exception, and panics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from trimtab.spec.errors import TrimtabError


@contextmanager
def faults_as(make: Callable[[str], TrimtabError]) -> Iterator[None]:
    """What is raised inside becomes `make(its text)`. A panic of Rust code is a BaseException of its own."""
    try:
        yield
    except TrimtabError:
        raise
    except Exception as error:
        raise make(str(error)) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise make(str(error)) from None
