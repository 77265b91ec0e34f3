"""What a user of the forecaster can get wrong, said in one line."""


class ForecastError(Exception):
    """Bad input: the message names the file, the row where there is one, and what was expected. The
    command line prints it alone and exits with status 2."""
