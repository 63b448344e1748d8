import hashlib
import io
import json
import traceback
import urllib.parse
import zipfile
from collections.abc import Callable

import pytest
from bad_server import Request, serve

from segctl.data.download.cityscapes_site import PACKAGES, Account, open_site
from segctl.data.download.http import Patience, download
from segctl.errors import InputError, SegctlError

FAST = Patience(connect_s=2, stall_s=1, retries=1, back_off_s=0.001)
ACCOUNT = Account("ann", "s3cret&'$X")


def toy_zip(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("README", name * 20_000)
    return buffer.getvalue()


ZIPS = {name: toy_zip(name) for name in PACKAGES}
NUMBERS = {name: 3 + index for index, name in enumerate(PACKAGES)}


def official(missing: str = "", expires_after: int = 10**6) -> Callable[[Request], None]:
    """The site: a login is good for so many requests."""
    left = {"requests": 0}

    def answer(request: Request) -> None:
        path, _, query = request.path.partition("?")
        if path == "/login":
            fields = urllib.parse.parse_qs(request.body)
            if request.command == "POST" and fields == {
                "username": [ACCOUNT.username],
                "password": [ACCOUNT.password],
                "submit": ["Login"],
            }:
                left["requests"] = expires_after
                request.say(302, Location="/", Set_Cookie="session=abc; Path=/")
            else:
                request.page()
            return
        if request.headers.get("Cookie") != "session=abc" or left["requests"] < 1:
            request.say(302, Location="/login")
            return
        left["requests"] -= 1
        name = next((name for name, number in NUMBERS.items() if query == f"packageID={number}"), "")
        if path == "/downloads/" and query == "list":
            listed = [{"name": n, "packageID": i, "size": "11GB", "thirdparty": 0} for n, i in NUMBERS.items() if n != missing]
            request.say(200, json.dumps(listed).encode(), Content_Type="application/json")
        elif path == "/md5-sum/":
            request.say(200, f"{hashlib.md5(ZIPS[name]).hexdigest().upper()}  {name}".encode())
        else:
            request.file(ZIPS[name], upto=len(ZIPS[name]) // 2 if not request.headers.get("Range") else None)

    return answer


def fetch(site_url, folder, account=ACCOUNT):
    files, transfer = open_site(account, lambda name, done, total: None, site=site_url, patience=FAST)
    return download(files, folder, transfer)


def test_both_packages_come_by_number_and_md5(tmp_path):
    with serve(official()) as site:
        paths = fetch(site.url, tmp_path)
    assert {path.name: path.read_bytes() for path in paths} == ZIPS


def test_a_session_that_ends_on_the_way_is_renewed(tmp_path):
    with serve(official(expires_after=4)) as site:
        paths = fetch(site.url, tmp_path)
        assert [path for method, path, _ in site.seen if method == "POST"] == ["/login"] * 2
    assert {path.name: path.read_bytes() for path in paths} == ZIPS


def test_a_wrong_password_is_one_sentence_without_it(tmp_path):
    password = "wr" + "0ng"
    with serve(official()) as site, pytest.raises(InputError) as caught:
        fetch(site.url, tmp_path, Account("ann", password))
    assert caught.value.message == f"{site.url} does not accept this user name and password"
    assert caught.value.hint == "check CITYSCAPES_USERNAME and CITYSCAPES_PASSWORD, or give the zips with --source"
    assert password not in "".join(traceback.format_exception(caught.value))
    assert list(tmp_path.iterdir()) == []


def test_a_package_the_account_may_not_have_is_named(tmp_path):
    with serve(official(missing="gtFine_trainvaltest.zip")) as site, pytest.raises(SegctlError) as caught:
        fetch(site.url, tmp_path)
    assert caught.value.message == f"your account at {site.url} may not download 'gtFine_trainvaltest.zip'"


def test_a_login_that_answers_neither_way_is_said(tmp_path):
    with serve(lambda request: request.page(500)) as site, pytest.raises(SegctlError) as caught:
        fetch(site.url, tmp_path)
    assert caught.value.message == f"{site.url} responds to the login with 500"


def test_a_site_that_cannot_be_reached_is_one_sentence_without_the_password(tmp_path):
    with pytest.raises(SegctlError) as caught:
        fetch("http://127.0.0.1:1", tmp_path)
    assert str(caught.value) == "http://127.0.0.1:1 cannot be reached; try again later, or give the zips with --source"
    assert ACCOUNT.password not in "".join(traceback.format_exception(caught.value))


def test_a_list_that_is_no_list_is_one_sentence(tmp_path):
    def answer(request: Request) -> None:
        if request.path == "/login":
            request.say(302, Location="/")
        else:
            request.page()

    with serve(answer) as site, pytest.raises(SegctlError) as caught:
        fetch(site.url, tmp_path)
    assert caught.value.message == f"{site.url}/downloads/?list is not a list of packages"


def test_the_password_goes_to_no_other_host(tmp_path):
    with serve(lambda request: request.page()) as other:

        def answer(request: Request) -> None:
            request.say(307, Location=f"{other.url}/login")

        with serve(answer) as site, pytest.raises(SegctlError):
            fetch(site.url, tmp_path)
        assert other.seen == []


def test_an_account_hides_its_password():
    assert repr(ACCOUNT) == "Account(username='ann')"
