"""crossentropy explore, run as a person runs it."""

import http.client
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from explore.test_page import Reader

from crossentropy import explore

COMMAND = Path(sys.executable).with_name("crossentropy")
A = [[2.0, 1.0, 0.1], [0.1, 2.0, 1.9]]


def run(*arguments, cwd):
    return subprocess.run([COMMAND, "explore", *arguments], cwd=cwd, capture_output=True, text=True)


def state(*arguments, cwd):
    """The state in the page that the command writes."""
    done = run(*arguments, "-o", "page.html", cwd=cwd)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert done.stderr == "wrote page.html: open it in a browser\n"
    return Reader((cwd / "page.html").read_text(encoding="utf-8")).state()


class Served:
    """The command as it serves its page."""

    def __init__(self, *arguments, **environment):
        self.process = subprocess.Popen(
            [COMMAND, "explore", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment},
        )  # fmt: skip
        self.address = self.process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", self.address), self.process.stderr.read()
        self.port = int(self.address[:-1].rsplit(":")[-1])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def ask(self, method="GET", path="/", **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.putrequest(method, path, skip_host="Host" in headers)
        for name, value in headers.items():
            if value is not None:
                connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        found = response.status, response.read(), response.headers
        connection.close()
        return found

    def interrupt(self, number=signal.SIGINT):
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=10)
        return self.process.returncode, out, err


@pytest.fixture(scope="module")
def served():
    with Served("--no-browser") as running:
        yield running


def test_worked_example(tmp_path):
    assert state(cwd=tmp_path)["names"] == ["cat", "dog", "bird"]
    assert (tmp_path / "page.html").stat().st_size == pytest.approx(len(explore.page().encode()), abs=100)


def test_numbers_reach_the_page(tmp_path):
    given = ["--logits", "3 1 0 -1", "--targets", "0.7 0.1 0.1 0.1", "--names", "a<b,c,d,é", "--temperature", "2"]
    found = state(*given, "--label-smoothing", "0.1", "--reduction", "sum", cwd=tmp_path)
    assert found == {
        "logits": [[3, 1, 0, -1]], "targets": [[0.7, 0.1, 0.1, 0.1]], "names": ["a<b", "c", "d", "é"],
        "temperature": 2, "label_smoothing": 0.1, "reduction": "sum", "rate": 1, "trace": [], "row": 0, "entry": [0, 0],
    }  # fmt: skip
    logits = np.random.default_rng(0).standard_normal((8, 10)).astype(np.float32)
    np.save(tmp_path / "logits.npy", logits)
    np.save(tmp_path / "targets.npy", np.arange(8))
    found = state("--logits", "logits.npy", "--targets", "targets.npy", cwd=tmp_path)
    assert (found["logits"], found["targets"]) == (logits.astype(float).tolist(), list(range(8)))
    assert found["names"] == list(map(str, range(10)))
    given = ["--logits", "[[2.0, 1.0],\n [0.1, 2.0]]", "--targets", "dog cat", "--names", "cat,dog"]
    assert state(*given, cwd=tmp_path)["targets"] == [1, 0]
    done = run("--logits", "logits.npy", "--targets", "targets.npy", "--rows", "3:5", "-o", "page.html", cwd=tmp_path)
    assert done.stderr.startswith("row 0 is row 3 of the logits given\n")
    assert Reader((tmp_path / "page.html").read_text()).state()["targets"] == [3, 4]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--logits", "1 2 3"], '--logits needs --targets, as in --logits "2.0 1.0 0.1; 0.1 2.0 1.9" --targets "1 0"'),
        (["--logits", "1 2 x", "--targets", "1"], "logits: expected numbers or the name of a .npy file, got 'x'"),
        (["--logits", "1 2", "--targets", "2"], "targets: expected class indices in \\[0, 2\\) .*, got 2 .*"),
        (["--logits", "1 inf", "--targets", "0"], "logits: expected numbers from -10000 to 10000, got inf"),
        (["--logits", "2 3", "--targets", "0.5 0.6"], "targets: expected class indices .* that sum to 1, got .*"),
        (["--logits", "2 3", "--targets", "-100"], "targets: expected class indices from 0 to 1, .*got \\[-100\\]"),
        (["--logits", ";".join(["1 2"] * 9), "--targets", "0 " * 9], "logits: expected 1 to 8 rows, got 9"),
        (["--logits", "1 2 " * 6, "--targets", "0"], "logits: expected rows of equally many classes, 2 to 10, got 12"),
        (["--names", "a,b"], "names: expected 3, one for each class, got 2"),
        (["--temperature", "0.01"], "temperature: expected a number from 0.05 to 20, got 0.01"),
        (["--reduction", "none"], "--reduction: expected mean or sum, got 'none' .*"),
        (["-o", "absent/page.html"], "absent/page.html: No such file or directory"),
        (["-o", "."], "\\.: expected a file or a pipe or a character device, got a directory"),
    ],
)
def test_errors_are_one_line(tmp_path, arguments, message):
    (tmp_path / "page.html").write_text("as it was")
    arguments = arguments if "-o" in arguments else [*arguments, "-o", "page.html"]
    done = run(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(f"crossentropy: {message}\n", done.stderr), done.stderr
    assert (tmp_path / "page.html").read_text() == "as it was"
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_output_is_no_input(tmp_path):
    np.save(tmp_path / "logits.npy", np.array(A))
    before = (tmp_path / "logits.npy").read_bytes()
    done = run("--logits", "logits.npy", "--targets", "1 0", "-o", "logits.npy", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, "crossentropy: logits.npy: would overwrite an input\n")
    assert (tmp_path / "logits.npy").read_bytes() == before


def test_page_is_served(served):
    status, body, headers = served.ask()
    assert (status, headers["Content-Type"], int(headers["Content-Length"])) == (
        200,
        "text/html; charset=utf-8",
        len(body),
    )
    assert headers["Content-Security-Policy"] == "frame-ancestors 'none'"
    assert Reader(body.decode()).state()["logits"] == A
    assert served.ask("HEAD")[:2] == (200, b"")
    assert served.ask(Host=f"localhost:{served.port}")[1] == body


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "127.0.0.1:{port}.evil.example", "", None],
)
def test_other_hosts_are_refused(served, host):
    status, body, _ = served.ask(Host=host and host.format(port=served.port))
    assert status == 403
    assert b"data" not in body


def test_two_hosts_are_refused(served):
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as connection:
        connection.sendall(f"GET / HTTP/1.0\r\nHost: 127.0.0.1:{served.port}\r\nHost: evil.example\r\n\r\n".encode())
        assert b" 403 " in connection.recv(100)


def test_other_pages_may_not_hold_or_keep_it(served):
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as connection:
        connection.sendall(f"HEAD / HTTP/1.0\r\nHost: 127.0.0.1:{served.port}\r\n\r\n".encode())
        head = connection.makefile("rb").read().decode().split("\r\n")
    assert {
        "Content-Security-Policy: frame-ancestors 'none'",
        "Cross-Origin-Resource-Policy: same-origin",
        "X-Content-Type-Options: nosniff",
        "Cache-Control: no-store",
    } <= set(head)


@pytest.mark.parametrize("path", ["/index.html", "/?", "/../", "/favicon.ico", "*"])
def test_other_paths_are_not_there(served, path):
    assert served.ask(path=path)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "get"])
def test_other_methods_are_refused(served, method):
    assert served.ask(method)[0] in (403, 501)


def test_only_this_computer_is_listened_to(served):
    with socket.socket() as other:
        other.bind(("127.0.0.2", 0))  # as another address of this computer it may still have the same port
        assert other.connect_ex(("127.0.0.2", served.port)) != 0


def test_a_slow_visitor_holds_nobody_up(served):
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as idle:
        idle.sendall(b"GET / HT")
        start = time.monotonic()
        assert served.ask()[0] == 200
        assert time.monotonic() - start < 5


def test_each_has_a_port_of_its_own(served):
    with Served("--no-browser") as other:
        assert other.port != served.port
        assert other.ask()[0] == 200


def test_ctrl_c_ends_it(tmp_path):
    with Served("--no-browser") as running:
        with socket.create_connection(("127.0.0.1", running.port)) as visitor:  # one that goes without an answer
            visitor.sendall(b"GET / HTTP/1.1\r\n\r\n")
        running.ask(Host="evil.example")
        assert running.interrupt() == (0, "", "the page is at this address until Ctrl-C\n")
    with Served("--no-browser", "--quiet") as running:
        assert running.interrupt(signal.SIGTERM) == (128 + signal.SIGTERM, "", "")


def test_browser_is_opened(tmp_path):
    browser, opened = tmp_path / "browser", tmp_path / "opened"
    browser.write_text(f'#!/bin/sh\necho "$1" >{opened}\n')
    browser.chmod(browser.stat().st_mode | stat.S_IXUSR)
    with Served(BROWSER=f"{browser} %s") as running:
        deadline = time.monotonic() + 10
        while not (opened.exists() and opened.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert opened.read_text().strip() == running.address
        assert running.interrupt()[0] == 0
        opened.unlink()
    with Served("--no-browser", BROWSER=f"{browser} %s") as running:
        time.sleep(0.5)
        assert running.interrupt()[0] == 0
    assert not opened.exists()


def test_without_a_browser_the_address_is_enough(tmp_path):
    with Served(BROWSER=str(tmp_path / "absent"), PATH="", DISPLAY="", WAYLAND_DISPLAY="") as running:
        assert running.ask()[0] == 200
        time.sleep(0.5)
        code, _, err = running.interrupt()
    assert code == 0
    assert err.splitlines()[1:] == ["no browser was found: open the address in one"]
