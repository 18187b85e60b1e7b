"""The one exception a user is meant to read."""


class CatuvacError(Exception):
    """Bad input: one line that says what is wrong and what to do. Commands print it and exit with code 2."""
