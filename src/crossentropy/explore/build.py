"""Builds page.html, the live page, one file that needs nothing else: python src/crossentropy/explore/build.py [FILE].

`content.py` takes formulas, titles and notes from the lesson; `prerender.mjs` draws the figures of the example, for
those who run no script; esbuild makes one script of view.mjs and one style of style.css, the font in it. It comes with
`npm ci` in this folder. The same sources give the same bytes, which are committed: the package is built without Node.

The font is a subset of STIX Two Math; its licence is OFL.txt. It was made by

    npm pack @fontsource/stix-two-math@5.3.0 && tar xzf fontsource-stix-two-math-5.3.0.tgz
    pip install fonttools==4.68.0 brotli==1.2.1
    pyftsubset package/files/stix-two-math-latin-400-normal.woff2 --no-hinting --layout-features= --flavor=woff2 \
      --output-file=stix-two-math.woff2 --unicodes=20-7E,A0,AC,B0-B3,B7,B9,D7,F7,394,3A3,3B1-3C9,3F5,2013,2016,2026,\
      2032,2033,2061-2064,2070,2074-2079,207B,2080-2089,1D40,210E,2113,2190,2192,2202,2207,2208,2211,2212,2218,221A,\
      221E,2248,2260,2264,2265,2299,22C5,22EE,22EF,22F1,1D41A-1D433,1D434-1D467,1D6FC-1D714
"""

import base64
import hashlib
import json
import runpy
import subprocess
import sys
from pathlib import Path

import jinja2
from markupsafe import Markup

from crossentropy.explore import data_block

HERE = Path(__file__).parent
# Browsers that lay out MathML, and so need no older JavaScript.
TARGET = "chrome109,firefox115,safari16.4"

_PRINT_EXAMPLE = "import { EXAMPLE } from './state.mjs'; console.log(JSON.stringify(EXAMPLE))"


def _run(*command: str, given: str = "") -> str:
    done = subprocess.run(command, cwd=HERE, input=given, capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def _bundle(source: str, *options: str) -> str:
    esbuild = HERE / "node_modules/.bin/esbuild"
    if not esbuild.exists():
        raise SystemExit(f"{esbuild}: there is none: run npm ci in {HERE}")
    return _run(
        *(str(esbuild), source, "--bundle", "--minify", "--charset=utf8", "--log-level=warning"),
        *(f"--target={TARGET}", *options),
    ).strip()


def _hash(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


def build() -> str:
    """Return the page."""
    example = json.loads(_run("node", "--input-type=module", "-e", _PRINT_EXAMPLE))
    text = runpy.run_path(str(HERE / "content.py"))["content"](example)  # which is not installed
    figures = json.loads(_run("node", "prerender.mjs", given=json.dumps(text)))
    script = _bundle("view.mjs", "--format=iife")
    style = _bundle("style.css", "--loader:.woff2=dataurl")
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; font-src data:; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    page: str = environment.get_template("page.html.j2").render(
        policy=Markup(policy),
        script=Markup(script),
        style=Markup(style),
        data=Markup(data_block(example)),
        content=text,
        figures={name: Markup(figure) for name, figure in figures.items()},
    )
    return page


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "page.html"
    target.write_text(build(), encoding="utf-8", newline="\n")
    print(f"wrote {target}")
