"""Set-up from a server's configuration, where a wrong setting must end the start with one line."""

from __future__ import annotations

from fapilog import bootstrap
from fapilog.errors import ConfigurationError
from fapilog.pipeline import route


def configure_or_exit() -> None:
    """
    Configure from the environment, unless that was done: the settings are validated before any worker exists.

    Raises:
        SystemExit: With the one line that says which setting is wrong.
    """
    if route.configured:
        return
    try:
        bootstrap.configure_logging()
    except ConfigurationError as error:
        raise SystemExit(f"fapilog: {error}") from None
