"""An endpoint has one name, and no file and no other endpoint has it too."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.endpoint import (
    URL_CHARACTERS_MAX,
    endpoint_of,
    endpoint_pointer,
    endpoint_sha256,
    is_endpoint_pointer,
    is_endpoint_url,
)
from registry.errors import MalformedError

URL = "https://models.example/v2/models/digits"
POINTER = "endpoint+https://models.example/v2/models/digits"


@pytest.mark.parametrize(
    "url",
    [
        URL,
        "https://models.example:8443/v2/models/digits",
        "https://models.example/team/a/v2/models/digits/versions/2",
        "https://203.0.113.7/v2/models/d",
        "http://127.0.0.1:8080/v2/models/d",
        "http://localhost:443/v2/models/llama:7b@fp8",
        f"https://{'a' * 63}.example/v2/models/d",
        f"https://models.example/v2/models/{'d' * (URL_CHARACTERS_MAX - 33)}",
    ],
)
def test_a_models_url_has_this_spelling(url: str):
    assert is_endpoint_url(url)
    assert endpoint_of(endpoint_pointer(url), endpoint_sha256(url)) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://models.example",
        "https://models.example/",
        "https://models.example/v1/predict",
        "https://models.example/v2/models/",
        f"{URL}/",
        f"{URL}/infer",
        f"{URL}/versions/",
        f"{URL}?key=1",
        f"{URL}#1",
        f"{URL}\n",
        "https://models.example/v2/models/%64igits",
        "https://models.example/v2/models/di gits",
        "https://models.example/v2/models/dígits",
        "https://models.example/v2/models/..",
        "https://models.example/./v2/models/digits",
        "https://models.example/a/../v2/models/digits",
        "https://models.example//v2/models/digits",
        "https://Models.example/v2/models/digits",
        "HTTPS://models.example/v2/models/digits",
        "https://models.example:443/v2/models/digits",
        "http://models.example:80/v2/models/digits",
        "https://models.example:0443/v2/models/digits",
        "https://models.example:65536/v2/models/digits",
        "https://models.example:/v2/models/digits",
        "https://models.example./v2/models/digits",
        "https://-models.example/v2/models/digits",
        "https://.example/v2/models/digits",
        "https://user@models.example/v2/models/digits",
        "https://user:word@models.example/v2/models/digits",
        "https://[::1]/v2/models/digits",
        f"https://{'a' * 64}.example/v2/models/d",
        f"https://{'a.' * 126}ab/v2/models/d",
        f"https://models.example/v2/models/{'d' * (URL_CHARACTERS_MAX - 32)}",
        "ftp://models.example/v2/models/digits",
    ],
)
def test_every_other_spelling_is_refused(url: str):
    assert not is_endpoint_url(url)
    with pytest.raises(ValueError, match="spelling"):
        endpoint_pointer(url)
    with pytest.raises(MalformedError):
        endpoint_of(f"endpoint+{url}", endpoint_sha256(url))


def test_the_hash_is_of_the_url_behind_a_domain_of_its_own():
    assert endpoint_sha256(URL) == hashlib.sha256(b"wmreg/v1/endpoint\x00" + URL.encode()).digest()
    assert endpoint_sha256(URL).hex() == "a6f3d41d43b1876a7d959ca392af551840cb512b8a99a1bfc704dcde0b4749c8"


def test_a_hash_of_another_endpoint_or_of_a_file_is_refused():
    for sha256 in (endpoint_sha256(URL + "2"), hashlib.sha256(URL.encode()).digest(), bytes(32)):
        with pytest.raises(MalformedError) as caught:
            endpoint_of(POINTER, sha256)
        assert caught.value.code == "hash_mismatch"


@pytest.mark.parametrize("pointer", [URL, f"blob:sha256:{'00' * 32}", "file:///m", "", " endpoint+https://a"])
def test_a_pointer_to_a_file_is_none_to_an_endpoint(pointer: str):
    assert not is_endpoint_pointer(pointer)
    assert endpoint_of(pointer, endpoint_sha256(URL)) is None


@given(st.text(max_size=60))
def test_whatever_stands_behind_the_word_is_a_url_or_refused(text: str):
    try:
        assert endpoint_of(f"endpoint+{text}", endpoint_sha256(text)) == text
    except MalformedError:
        assert not is_endpoint_url(text)
