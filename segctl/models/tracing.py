"""Whether a network is being traced for an exported file, which must take images of any size.

A tracer records what was done for one size. So while it runs, the network chooses nothing by the size it sees: it always resizes
and pads, even where nothing changes, and averages bins by products of matrices that are computed from the size.
"""

from collections.abc import Iterator
from contextlib import contextmanager

_tracing = False


def tracing() -> bool:
    """Whether the code that asks is being traced for any size."""
    return _tracing


@contextmanager
def traced_for_any_size() -> Iterator[None]:
    """Trace networks inside this block."""
    global _tracing
    _tracing = True
    try:
        yield
    finally:
        _tracing = False
