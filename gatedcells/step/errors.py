"""What a user can mend."""


class StepError(Exception):
    """Something that was asked for cannot be shown; the message says what and why."""
