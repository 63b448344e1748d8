"""Asking whether the hub is there: on this machine only."""

import socket
import threading

import pytest
from huggingface_hub import constants

from segctl.models.external.hub import cached_weights, hub_address, why_unreachable


def answering(reply: bytes) -> str:
    """The address of a server that gives one reply."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = server.accept()
        with connection, server:
            connection.recv(4096)
            connection.sendall(reply)

    threading.Thread(target=serve, daemon=True).start()
    return f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.mark.parametrize("status", ["200 OK", "302 Found", "404 Not Found"])
def test_a_server_that_answers_is_reachable(status):
    assert why_unreachable(answering(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())) == ""


def test_a_broken_server_is_not():
    address = answering(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
    assert why_unreachable(address) == f"{address} answers with an error (503)"


def test_nobody_there():
    assert why_unreachable("http://127.0.0.1:9") == "http://127.0.0.1:9 does not answer"


def test_offline_by_order(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert why_unreachable("http://127.0.0.1:9") == "HF_HUB_OFFLINE is set"


def test_address_follows_the_hub_s_own_setting(monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://mirror.example")
    assert hub_address() == "http://mirror.example"


def test_nothing_is_cached_in_an_empty_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert cached_weights("timm/resnet18d.ra2_in1k") is None
