"""The errors this package raises on purpose."""


class SassError(Exception):
    """Something asked for cannot be done: the message names the value, the consequence and the remedy."""


class ConfigError(SassError):
    """The configuration holds a wrong key, type or value."""


class SceneError(SassError):
    """One scene cannot be processed. The scene is set aside and named; the others go on."""
