"""Whether a server of metrics can be had."""

import ssl
import urllib.error
import urllib.request

REACH_SECONDS = 5.0


class NotSentError(Exception):
    """The tracker cannot be had, or it did not take all; `passing` when another try may have one."""

    def __init__(self, reason: object, *, passing: bool = False) -> None:
        super().__init__((str(reason).splitlines() or [type(reason).__name__])[0])
        self.passing = passing


def unreachable(url: str) -> str | None:
    """Why no server answers at `url`, None when one does; libraries themselves try for minutes."""
    try:
        urllib.request.urlopen(url, timeout=REACH_SECONDS).close()
    except urllib.error.HTTPError:
        return None  # An answer, whatever it says.
    except urllib.error.URLError as error:
        return None if isinstance(error.reason, ssl.SSLError) else f"{url}: {error.reason}"
    except (OSError, ValueError) as error:
        return f"{url}: {error}"
    return None
