"""Downloads Cityscapes from its own site, with the person's own account.

The protocol is that of the official tool: one cookie session; the login form responds with 302 to a right password and with 200
to a wrong one; packages have numbers, by which their MD5 and file are requested. The account is sent to that host alone, in the
body of the login request, which follows no redirect; it stays in memory.
"""

from dataclasses import dataclass, field

import requests

from segctl.data.download.catalog import RemoteFile
from segctl.data.download.http import Patience, Transfer, TransferProgress, new_session
from segctl.errors import InputError, SegctlError

SITE = "https://www.cityscapes-dataset.com"
PACKAGES = {"leftImg8bit_trainvaltest.zip": 11_592_327_197, "gtFine_trainvaltest.zip": 252_567_705}
"""What training needs, with sizes as last seen, which may change: packages have been reissued."""


@dataclass(frozen=True)
class Account:
    """A person's account. Its repr hides the password, so no traceback or log can show it."""

    username: str
    password: str = field(repr=False)


def open_site(
    account: Account, progress: TransferProgress, *, site: str = SITE, patience: Patience | None = None
) -> tuple[tuple[RemoteFile, ...], Transfer]:
    """Log in and list the packages. Returns the files and how to transfer them. Raises InputError for a refused account."""
    patience = patience or Patience()
    site = site.rstrip("/")
    session = new_session()

    def login() -> None:
        session.cookies.clear()
        _login(session, account, site, patience)

    login()
    numbers = _numbers(session, f"{site}/downloads/?list", patience)
    files = []
    for name in PACKAGES:
        if name not in numbers:
            raise SegctlError(
                f"your account at {site} may not download '{name}'", "ask for access there, or give the zips with --source"
            )
        words = _ask(session, f"{site}/md5-sum/?packageID={numbers[name]}", patience).text.split()
        url = f"{site}/file-handling/?packageID={numbers[name]}"
        files.append(RemoteFile(name, "zip", (url,), None, ("md5", words[0].lower() if words else "")))
    return tuple(files), Transfer(session, progress, patience, login)


def _login(session: requests.Session, account: Account, site: str, patience: Patience) -> None:
    form = {"username": account.username, "password": account.password, "submit": "Login"}
    waits = (patience.connect_s, patience.stall_s)
    try:
        session.get(f"{site}/login", timeout=waits, allow_redirects=False)
        answer = session.post(f"{site}/login", data=form, allow_redirects=False, timeout=waits)
    except requests.RequestException:
        raise SegctlError(f"{site} cannot be reached", "try again later, or give the zips with --source") from None
    if answer.status_code == 200:
        raise InputError(
            f"{site} does not accept this user name and password",
            "check CITYSCAPES_USERNAME and CITYSCAPES_PASSWORD, or give the zips with --source",
        )
    if answer.status_code != 302:
        raise SegctlError(
            f"{site} responds to the login with {answer.status_code}", "try again later, or give the zips with --source"
        )


def _numbers(session: requests.Session, url: str, patience: Patience) -> dict[str, int]:
    """The number of every package that the account may download, by name."""
    try:
        return {entry["name"]: entry["packageID"] for entry in _ask(session, url, patience).json()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SegctlError(f"{url} is not a list of packages", "try again later, or give the zips with --source") from error


def _ask(session: requests.Session, url: str, patience: Patience) -> requests.Response:
    try:
        answer = session.get(url, timeout=(patience.connect_s, patience.stall_s))
        answer.raise_for_status()
    except requests.RequestException as error:
        raise SegctlError(f"{url} does not respond", "try again later, or give the zips with --source") from error
    return answer
