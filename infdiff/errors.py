"""What a user did that cannot work. Scripts print it as one line and exit with code 2."""


class UserError(ValueError):
    """Bad input or settings: the message names the thing and the remedy, in one line."""
