"""Storage URLs: which are valid. Every mistake in one is reported before a bucket is contacted."""

from __future__ import annotations

import re

from hpsearch.errors import InputError, cut, did_you_mean

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/(.*)", re.DOTALL)
_PACKAGES = {"s3": "'hpsearch[s3]'", "gs": "'hpsearch[gcs]'", "gcs": "'hpsearch[gcs]'"}
_KNOWN = ["s3", "gs", "file"]
_OF_ONE_PROCESS = ("memory", "data", "http", "https", "local")
_EXAMPLES = "s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or file:///FOLDER"
_ENVIRONMENT = (
    "credentials come from the environment (for S3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE or the "
    "machine's role, AWS_ENDPOINT_URL)"
)


def is_url(storage: str) -> bool:
    """Whether $HPSEARCH_STORAGE names a bucket; else it is a local folder."""
    return _URL.match(storage) is not None


def checked(url: str) -> str:
    """The URL without a trailing slash. No message repeats it before it is known to hold no secret.

    Raises:
        InputError: it is no URL, its scheme is unknown or not installed, or it contains a secret.
    """
    scheme, _, rest = url.partition(":/")
    address = rest.removeprefix("/")
    if "@" in address.partition("/")[0] or "?" in address or "#" in address or "::" in url:
        raise InputError(f"HPSEARCH_STORAGE: a storage URL is {_EXAMPLES}, and nothing else: {_ENVIRONMENT}")
    if not rest.startswith("/"):
        raise InputError(f"HPSEARCH_STORAGE: expected {_EXAMPLES}, found {cut(url)!r}")
    _check_scheme(scheme)
    is_whole = address.startswith("/") and address.strip("/") if scheme == "file" else address.partition("/")[0]
    if not is_whole:
        raise InputError(f"HPSEARCH_STORAGE: expected {_EXAMPLES}, found {cut(url)!r}")
    return url.rstrip("/")


def _check_scheme(scheme: str) -> None:
    import fsspec

    try:
        if scheme in _OF_ONE_PROCESS:
            raise ValueError
        fsspec.get_filesystem_class(scheme)
    except ValueError:
        known = did_you_mean(scheme, _KNOWN)
        raise InputError(f"HPSEARCH_STORAGE: {cut(scheme)}:// URLs are not supported; {known}") from None
    except ImportError as missing:
        package = _PACKAGES.get(scheme)
        mend = f"pip install {package}" if package else str(missing)
        raise InputError(f"HPSEARCH_STORAGE: the library for {scheme}:// is not installed: {mend}") from None
