"""The base of all errors that speak to the user."""


class UserError(ValueError):
    """A mistake in what was asked for, or a limit that was met: the message says what is wrong and names the fix.

    Commands print it as it is, without a traceback, and end with `exit_status`: 2 where the recipe or the call must
    change, 1 where the machine or the data must.
    """

    exit_status = 1

    def __str__(self) -> str:
        """The message; what a name in it would do to the terminal is shown as an escape."""
        text = super().__str__()
        return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


class UsageError(UserError):
    """The call must change: what it names is not there, or cannot be asked for."""

    exit_status = 2
