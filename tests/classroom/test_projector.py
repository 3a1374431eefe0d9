"""The projector app's server answers this machine's user alone, with one kernel; all by real requests to one server."""

import http.client
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from conftest import kernels_of

PAGES = ["/", "/voila/static/voila.js", "/voila/labextensions/x", "/login", "/api/kernels/0-0-0-0-0", "/voila/files/x.png"]


@pytest.fixture(scope="module")
def ask(served):
    """A request -> (status, headers, body). Nothing is followed, nothing kept."""

    def ask(path, method="GET", data=None, **headers):
        connection = http.client.HTTPConnection(urlsplit(served[0]).netloc, timeout=120)
        try:
            connection.request(method, path, data, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, answer.headers, b"" if answer.status == 101 else answer.read()
        finally:
            connection.close()

    return ask


@pytest.fixture(scope="module")
def entered(served, ask):
    """A page opened by its address with the token: its path there, its kernel, the cookies that it was given."""
    path = "/?" + urlsplit(served[0]).query
    status, headers, page = ask(path)
    assert status == 200
    return path, json.loads(re.search(rb'"kernelId": ("[^"]+")', page)[1]), headers.get_all("Set-Cookie")


def socket_of(kernel, **headers):
    key = dict(Upgrade="websocket", Connection="Upgrade", Sec_WebSocket_Version="13", Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==")
    return f"/api/kernels/{kernel}/channels", key | headers


def cookies(given):
    return "; ".join(cookie.split(";")[0] for cookie in given)


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "192.168.0.7", "0.0.0.0", "xlocalhost", ""])
def test_under_another_name_nothing_is_served_whoever_asks(ask, served, entered, host):
    port = urlsplit(served[0]).port
    path, kernel, given = entered
    for name in (host, f"{host}:{port}"):
        assert {ask(page, Host=name, Cookie=cookies(given))[0] for page in (path, *PAGES)} == {404}
        where, headers = socket_of(kernel, Host=name, Origin=f"http://{name}", Cookie=cookies(given))
        assert ask(where, **headers)[0] == 404


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "LOCALHOST"])
def test_under_its_own_names_the_page_asks_for_the_token(ask, served, host):
    headers = {"Host": f"{host}:{urlsplit(served[0]).port}"}
    assert ask("/voila/static/voila.js", **headers)[0] == 200
    status, answer, _ = ask("/", **headers)
    assert (status, urlsplit(answer["Location"]).path) == (302, "/login")


def test_without_the_token_nothing_starts_and_nothing_ends(ask, served, entered):
    _, kernel, _ = entered
    before = kernels_of(served[1])
    for headers in ({}, {"Cookie": "username-x=1"}, {"Authorization": "token known to others"}):
        for path in ("/", "/?token=", "/?token=known%20to%20others", "/?token=0"):
            assert ask(path, **headers)[0] == 302
        where, upgrade = socket_of(kernel, **headers)
        for path in (f"/api/kernels/{kernel}", where):
            assert ask(path, **upgrade)[0] == 403
        for method, path in (("DELETE", f"/api/kernels/{kernel}"), ("POST", f"/voila/api/shutdown/{kernel}")):
            assert ask(path, method, **headers)[0] == 403
    assert kernels_of(served[1]) == before
    assert len(before) == 1


def test_a_cookie_opens_what_it_was_given_for_but_another_site_cannot_use_it(ask, served, entered):
    _, kernel, given = entered
    cookie, own = cookies(given), f"http://127.0.0.1:{urlsplit(served[0]).port}"
    assert all("SameSite=Strict" in one for one in given)
    assert [one for one in given if "HttpOnly" in one] == [one for one in given if not one.startswith("_xsrf")]
    assert ask(f"/api/kernels/{kernel}", Cookie=cookie)[0] == 200
    for origin, status in ((own, 101), ("http://evil.example", 403), ("http://localhost:8888", 403), ("null", 403)):
        where, headers = socket_of(kernel, Origin=origin, Cookie=cookie)
        assert ask(where, **headers)[0] == status
    for data in (None, "_xsrf=2%7C0%7C0%7C0"):
        assert ask(f"/voila/api/shutdown/{kernel}", "POST", data, Cookie=cookie, Origin=own)[0] == 403
    assert ask(f"/api/kernels/{kernel}", Cookie=cookie)[0] == 200


def test_the_page_says_what_it_may_load_and_that_nobody_may_frame_it(ask, entered):
    for path in (entered[0], "/login", "/api/kernels/0-0-0-0-0"):
        policy = dict(part.split(" ", 1) for part in ask(path)[1]["Content-Security-Policy"].split("; "))
        assert policy["frame-ancestors"] == policy["object-src"] == policy["base-uri"] == "'none'"
        assert {source for sources in policy.values() for source in sources.split()} <= {
            "'self'", "'none'", "'unsafe-inline'", "'unsafe-eval'", "data:", "blob:"
        }  # fmt: skip


def test_of_many_pages_at_once_one_has_a_kernel(ask, served, entered):
    path, *_ = entered
    with ThreadPoolExecutor() as pool:
        asked = [pool.submit(ask, path) for _ in range(4)]
        while not all(answer.done() for answer in asked):
            assert len(kernels_of(served[1])) <= 1
            time.sleep(0.05)
    assert [answer.result()[0] for answer in asked] == [200] * 4
    assert len(kernels_of(served[1])) == 1


def test_a_page_hides_its_token_and_says_when_its_kernel_or_its_server_is_gone(served, browser, page):
    def opened(page):
        page.goto(served[0])
        expect(page.get_by_label("prompt")).to_be_visible()
        assert urlsplit(page.url).query == ""
        expect(page.locator("#lost")).to_have_text("")

    opened(page)
    page.context.set_offline(True)
    expect(page.get_by_role("alert")).to_contain_text("Run sdteach demo again")
    page.context.set_offline(False)
    expect(page.locator("#lost")).to_have_text("")
    other = browser.new_page()
    other.set_default_timeout(60_000)
    opened(other)
    expect(page.get_by_role("alert")).to_contain_text("lost its model")
    for kernel in served[1].children(recursive=True):
        if kernel.pid in kernels_of(served[1]):
            kernel.kill()
    expect(other.get_by_role("alert")).to_contain_text("lost its model")
    other.close()
    page.reload()
    expect(page.get_by_label("prompt")).to_be_visible()
    expect(page.locator("#lost")).to_have_text("")
