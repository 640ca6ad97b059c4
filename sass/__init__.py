"""SASS: one consistent set of maps from an archive of unlabeled remote-sensing scenes."""

__version__ = "0.1.0"
