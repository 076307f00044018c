"""Promises: `wmreg serve-model` says where it serves, serves it, and ends at once and well when it is told to."""

import json
import os
import signal
import ssl
import subprocess
import sys
import urllib.request

import pytest
from certificates import Authority

from client.command import run
from wm.architectures import Architecture, build
from wm.weights import save_weights

KIND = ["--arch", "squeezenet1_1", "--classes", "10", "--input", "3x32x32"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "suspect.safetensors"
    save_weights(build(Architecture("squeezenet1_1", {"num_classes": 10}), seed=1), path)
    return str(path)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "--evidence, or --arch"),
        (["--arch", "resnet18"], "--evidence, or --arch"),
        ([*KIND, "--name", "a/b"], "--name a/b"),
        ([*KIND, "--certificate", "{weights}"], "both or neither"),
        ([*KIND, "--port", "65536"], "--port"),
        ([*KIND, "--std", "0,0,0"], "--std"),
        ([*KIND, "--evidence", "."], "not with --evidence"),
    ],
)
def test_options_that_cannot_be_used_are_named_before_anything_is_served(weights, options, told, capsys):
    assert run(["serve-model", weights, *(option.format(weights=weights) for option in options)]) == 2
    assert told in capsys.readouterr().err


def told(url, context, body=None):
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(url, data, timeout=20, context=context) as answer:  # noqa: S310 -- of our own server
        return json.load(answer)


@pytest.mark.slow
@pytest.mark.parametrize("is_https", [False, True])
def test_it_serves_until_sigterm(weights, tmp_path, is_https):
    options, context = [], None
    if is_https:
        authority, certificate, key = Authority(tmp_path / "ca.pem"), tmp_path / "cert.pem", tmp_path / "key.pem"
        authority.issue(certificate, key)
        options = ["--certificate", str(certificate), "--key", str(key)]
        context = ssl.create_default_context(cafile=authority.path)
    words = ["serve-model", weights, *KIND, "--port", "0", "--json", *options]
    with subprocess.Popen(
        [sys.executable, "-m", "client.command", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    ) as process:
        try:
            url = process.stderr.readline().removeprefix("serving ").strip()
            assert url.startswith("https://127.0.0.1:" if is_https else "http://127.0.0.1:")
            assert url.endswith("/v2/models/suspect")
            assert told(url, context)["inputs"][0]["shape"] == [-1, 3, 32, 32]
            data = {"name": "pixels", "datatype": "UINT8", "shape": [2, 3, 32, 32], "data": [9] * 6144}
            answer = told(f"{url}/infer", context, {"inputs": [data]})
            assert answer["outputs"][1]["shape"] == [2, 10]
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=20)
        finally:
            process.kill()
    assert (process.returncode, err) == (0, "")
    assert json.loads(out) == {"url": url, "requests": 1, "pictures": 2}
