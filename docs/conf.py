"""The site: `make site` builds it with Sphinx from README.md, CONTRIBUTING.md and the pages of docs/, as they stand."""

import sys
from pathlib import Path

import crossentropy

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # render, and what it is called by name

project = "crossentropy"
version = release = crossentropy.__version__
project_copyright = "The crossentropy developers"
extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_gallery.gen_gallery",
    "live",
    "render",
]

# The folder of the project is the source, so that links from page to page are what they are on a code host.
root_doc = "README"
include_patterns = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "benchmarks/README.md"]
include_patterns += ["docs/*.md", "docs/api.rst", "docs/api/*", "docs/examples/*.rst"]
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(?!crossentropy).*"),  # what other libraries define
]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
html_math_renderer = "mathml"

default_role = "autolink"
templates_path = [str(HERE / "templates")]
# The adapters need no framework here.
autodoc_mock_imports = ["torch", "jax", "jaxlib", "crossentropy.jax._rules", "crossentropy.jax._raised"]
autodoc_typehints = "none"
numpydoc_show_class_members = False

html_theme = "pydata_sphinx_theme"
html_title = "crossentropy"
html_static_path = ["site.css", "../src/crossentropy/explore/stix-two-math.woff2"]
html_css_files = ["site.css"]
html_show_sphinx = html_show_sourcelink = html_copy_source = False
html_show_search_summary = False  # they are fetched, which a browser forbids where the site is opened as a file
html_context = {"default_mode": "auto"}
html_sidebars = {"**": ["contents.html"]}
html_theme_options = {
    "navbar_center": [],
    "navbar_persistent": [],
    "navbar_end": ["search-button-field", "theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_center": [],
    "footer_end": [],
}

sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "docs/examples",
    "filename_pattern": "digits|distil|policy",  # the words take minutes
    "reset_argv": "render.arguments",
    "download_all_examples": False,
    "show_signature": False,
    "min_reported_time": 1e9,
    "write_computation_times": False,
    "remove_config_comments": True,
}
