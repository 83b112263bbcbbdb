"""crossentropy explore: the loss as a live page in the browser, on the reader's own numbers."""

import contextlib
import signal
import threading
import webbrowser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated, Any

import typer

from .._explain import explain as explain_rows
from .._files import whole, write_all
from ..explore import page
from ._eval import Reduction
from ._explain import WORKED_EXAMPLE, require_both
from ._files import check_outputs, fail, tell
from ._given import read
from ._options import LabelSmoothing, LogitsGiven, Names, Quiet, Rows, TargetsGiven, Temperature, reads

EXAMPLES = (
    "crossentropy explore",
    "crossentropy explore -o page.html",
    'crossentropy explore --logits "2.0 1.0 0.1; 0.1 2.0 1.9" --targets "dog cat" --names cat,dog,bird',
    "crossentropy explore --logits logits.npy --targets targets.npy --rows 3:8",
    'crossentropy explore --logits "3 1 0 -1" --targets "0.7 0.1 0.1 0.1" --temperature 2 --no-browser',
)
WORKED_NAMES = "cat,dog,bird"


def explore(
    logits: LogitsGiven = None,
    targets: TargetsGiven = None,
    rows: Rows = None,
    names: Names = None,
    reduction: Annotated[
        Reduction,
        typer.Option(
            parser=reads("mean or sum", Reduction), help="Which loss is differentiated, e.g. --reduction sum."
        ),
    ] = Reduction.mean,
    label_smoothing: LabelSmoothing = 0.0,
    temperature: Temperature = 1.0,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Write the page to a file; by default it is served, e.g. --output page.html."
        ),
    ] = None,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Print the page's address and open no browser, e.g. --no-browser.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Show the loss as a live page: move a logit, and see probabilities, loss and gradient follow.

    The page is served to this computer alone, until Ctrl-C, and opened in the browser; or written to a file, which
    needs nothing else. It takes 1 to 8 rows of 2 to 10 classes; a worked example by default. Its address holds the
    numbers on it: a link shows them to others who have the page.
    """
    require_both(logits, targets)
    check_outputs([output], [Path(words) for words in (logits, targets) if words and words.endswith(".npy")])
    if logits is None or targets is None:
        logits, targets, names = WORKED_EXAMPLE.logits, WORKED_EXAMPLE.targets, names or WORKED_NAMES
    class_names = None if names is None else names.split(",")
    arrays, first = read({"logits": logits, "targets": targets}, class_names, rows)
    try:
        x = explain_rows(
            names=class_names,
            **arrays,
            label_smoothing=label_smoothing,
            temperature=temperature,
            reduction=reduction.value,
        )
        html = page(
            {
                "logits": x.logits.tolist(),
                "targets": (x.q if x.targets is None else x.targets).tolist(),
                "names": list(x.names),
                "temperature": temperature,
                "label_smoothing": label_smoothing,
                "reduction": reduction.value,
            }
        ).encode()
    except (IndexError, TypeError, ValueError) as error:
        fail(None, error)
    if first:
        tell(f"row 0 is row {first} of the logits given")
    if output is None:
        _serve(html, browser=not no_browser)
        return
    with whole(output) as file:
        write_all(file, memoryview(html))
    tell(f"wrote {output}: open it in a browser")


def _serve(html: bytes, *, browser: bool) -> None:
    """Serve the page on a free port of this computer until Ctrl-C."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as nohup leaves it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), _Server(html) as server:
        address = f"http://127.0.0.1:{server.server_port}/"
        print(address, flush=True)
        tell("the page is at this address until Ctrl-C")
        if browser:  # beside the server: some browsers return only when they are closed
            threading.Thread(target=_open, args=(address,), daemon=True).start()
        server.serve_forever()


def _open(address: str) -> None:
    if not webbrowser.open(address):
        tell("no browser was found: open the address in one")


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, html: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.html = html

    def handle_error(self, *_: Any) -> None:
        """Say nothing of a browser that has gone away."""


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD of / alone, and only where the browser asks for this computer.

    A page elsewhere could have its own name lead to 127.0.0.1 and then read what is served here: the Host header tells.
    """

    server: _Server
    timeout = 10  # seconds for a request to come

    def do_GET(self) -> None:
        here = {f"{name}:{self.server.server_port}" for name in ("127.0.0.1", "localhost")}
        if self.headers.get_all("Host", []) not in [[name] for name in here]:
            self.send_error(403, "Expected this computer's address")
            return
        if self.path != "/":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(self.server.html)))
        self.send_header("Content-Security-Policy", "frame-ancestors 'none'")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(self.server.html)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: Any) -> None:
        """Print nothing for a request."""
