"""Errors caused by bad input. Scripts print one line and exit with code 2."""

from __future__ import annotations


class UserError(ValueError):
    """Bad input. The message is one line that names the thing and the remedy."""


class ProcessGoneError(UserError):
    """Another process of the same work is gone. It may be the first, which says what is wrong for all."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type's name where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]


class OptionError(UserError):
    """A value that an option of the package cannot take, as in `steps: 5000: want 1 to 1000`.

    The command line shows the same with its dashes, `--steps 5000: want 1 to 1000`.
    """

    def __init__(self, name: str, value: object, problem: str) -> None:
        super().__init__(f"{name}: {problem}" if value is None else f"{name}: {value}: {problem}")
        self.name, self.value, self.problem = name, value, problem

    def as_flag(self) -> str:
        """The message with the option written as on the command line."""
        flag = f"--{self.name.replace('_', '-')}"
        return f"{flag}: {self.problem}" if self.value is None else f"{flag} {self.value}: {self.problem}"
