"""Which hubs are asked, and who is shown the token."""

import pytest
from loopback import LoopbackHub

from groundup.errors import UserError
from groundup.hub import resolve_model
from groundup.hub.endpoints import MIRRORS, OFFICIAL, endpoints, split_list_for_libraries

MODEL = {"config.json": b"{}", "model.safetensors": b"\x02\0\0\0\0\0\0\0{}"}
CLOSED = "http://127.0.0.1:9"


@pytest.fixture
def mirror():
    with LoopbackHub() as hub:
        hub.add_model("org/tiny", MODEL)
        yield hub


def order(monkeypatch, endpoint, mirrors):
    for name, value in (("HF_ENDPOINT", endpoint), ("GROUNDUP_MIRRORS", mirrors)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    return [endpoint.url for endpoint in endpoints()]


def test_the_order(monkeypatch):
    monkeypatch.delenv("GROUNDUP_ENDPOINTS", raising=False)
    assert order(monkeypatch, None, None) == [*MIRRORS]
    assert order(monkeypatch, "https://a.org/", None) == ["https://a.org", *MIRRORS]
    assert order(monkeypatch, MIRRORS[1], None) == [MIRRORS[1], OFFICIAL]
    assert order(monkeypatch, None, "none") == [OFFICIAL]
    assert order(monkeypatch, "https://a.org", "none") == ["https://a.org"]
    assert order(monkeypatch, "https://a.org, https://b.org", "https://c.org") == [
        "https://a.org",
        "https://b.org",
        "https://c.org",
    ]


def test_the_first_that_the_user_named_is_trusted_alone(monkeypatch):
    order(monkeypatch, "https://a.org,https://b.org", "https://c.org")
    assert [endpoint.url for endpoint in endpoints() if endpoint.token is None] == ["https://a.org"]
    order(monkeypatch, None, None)
    assert [endpoint.url for endpoint in endpoints() if endpoint.token is None] == [OFFICIAL]
    order(monkeypatch, "https://a.org", None)
    assert [endpoint.url for endpoint in endpoints() if endpoint.token is None] == ["https://a.org"]


def test_what_is_no_address(monkeypatch):
    with pytest.raises(UserError, match="HF_ENDPOINT is not the address") as caught:
        order(monkeypatch, "hf-mirror.com", None)
    assert "https://hf-mirror.com" in caught.value.fix


def test_a_wrong_address_is_an_error_even_where_a_copy_would_do(loopback_hub, online):
    loopback_hub.add_model("org/tiny", MODEL)
    resolve_model("org/tiny")
    online.setenv("HF_ENDPOINT", "hf-mirror.com")
    with pytest.raises(UserError, match="HF_ENDPOINT is not the address"):
        resolve_model("org/tiny")


def test_a_list_is_hidden_from_libraries(monkeypatch):
    monkeypatch.setenv("GROUNDUP_ENDPOINTS", "")
    monkeypatch.setenv("HF_ENDPOINT", "https://a.org/, https://b.org")
    monkeypatch.setenv("GROUNDUP_MIRRORS", "none")
    split_list_for_libraries()
    import os

    assert os.environ["HF_ENDPOINT"] == "https://a.org"
    assert [endpoint.url for endpoint in endpoints()] == ["https://a.org", "https://b.org"]
    monkeypatch.setenv("HF_ENDPOINT", "https://c.org")  # changed since
    assert [endpoint.url for endpoint in endpoints()] == ["https://c.org"]


def test_a_mirror_helps_where_the_hub_cannot_be_reached(online, mirror, capsys):
    online.setenv("GROUNDUP_MIRRORS", mirror.url)
    resolve_model("org/tiny")
    assert f"{mirror.url} is asked in its place" in capsys.readouterr().err


def test_the_token_goes_to_no_mirror(loopback_hub, online, mirror):
    online.setenv("HF_TOKEN", "hf_secret")
    online.setenv("GROUNDUP_MIRRORS", mirror.url)
    loopback_hub.fail("", status=503, times=99)
    resolve_model("org/tiny")
    assert {request.headers.get("Authorization") for request in loopback_hub.requests} == {"Bearer hf_secret"}
    assert mirror.requests
    assert not [request for request in mirror.requests if "Authorization" in request.headers]


def test_a_mirror_goes_on_where_the_hub_broke_off(loopback_hub, online, mirror):
    online.setenv("HF_TOKEN", "hf_secret")
    online.setenv("GROUNDUP_MIRRORS", mirror.url)
    weights = bytes(range(200)) * 1000
    for hub in (loopback_hub, mirror):
        hub.add_model("org/tiny", MODEL | {"model.safetensors": weights})
    loopback_hub.fail("model.safetensors", cut_bytes=70_000)
    loopback_hub.fail("model.safetensors", status=500, times=99)
    assert (resolve_model("org/tiny").path / "model.safetensors").read_bytes() == weights
    assert mirror.requests[-1].headers["Range"] == "bytes=70000-"
    assert not [request for request in mirror.requests if "Authorization" in request.headers]


def test_a_mirror_is_not_asked_for_what_the_hub_does_not_have(loopback_hub, online, mirror):
    online.setenv("GROUNDUP_MIRRORS", mirror.url)
    with pytest.raises(UserError, match="There is no model org/tiny"):
        resolve_model("org/tiny")
    assert not mirror.requests


def test_a_name_on_no_endpoint(loopback_hub, online, mirror):
    online.setenv("HF_ENDPOINT", f"{loopback_hub.url},{mirror.url}")
    with pytest.raises(UserError) as caught:
        resolve_model("org/tinny")
    assert f"on the hubs {loopback_hub.url}, {mirror.url}" in caught.value.what
    online.setenv("HF_ENDPOINT", f"{loopback_hub.url},{CLOSED}")
    with pytest.raises(UserError) as caught:
        resolve_model("org/tinny")
    assert f"{loopback_hub.url}: it answered 40" in caught.value.why
    assert f"{CLOSED}: " in caught.value.why


def test_a_proxy_is_used_for_downloads(loopback_hub, online, mirror):
    from huggingface_hub import close_session

    online.setenv("HF_ENDPOINT", "http://hub.invalid")
    online.setenv("HTTP_PROXY", mirror.url)
    close_session()
    resolve_model("org/tiny")
    assert all(request.proxied for request in mirror.requests)
    online.setenv("HTTP_PROXY", CLOSED)
    close_session()
    with pytest.raises(UserError, match="cannot be reached .through the proxy of HTTP_PROXY") as caught:
        resolve_model("org/other")
    assert "proxy" in caught.value.fix
    close_session()
