"""The error that leaves something out."""


class LeftOutError(Exception):
    """A part or a measurement is left out; the message says why and what would bring it in."""
