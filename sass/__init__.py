"""SASS: one consistent set of maps from an archive of unlabeled remote-sensing scenes."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sass.reading import open_run as open

__version__ = "0.1.0"
__all__ = ["open"]


def __getattr__(name: str):
    """Import what reads a run when it is first asked for: that takes seconds."""
    if name == "open":
        from sass.reading import open_run

        return open_run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
