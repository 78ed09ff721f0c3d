"""The site: `make docs` builds it from the pages in this folder, the docstrings and the help of the commands."""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PROJECT = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REPOSITORY = PROJECT["urls"]["Repository"]

sys.path.insert(0, str(HERE / "_ext"))
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # notebooks call `segue`
os.environ.setdefault("OMP_NUM_THREADS", "1")  # notebooks are small: one thread is quickest, and figures are the same

project = "segue"
author = "The segue developers"
copyright = "The segue developers, Apache-2.0"
version = release = PROJECT["version"]

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "myst_nb",
    "sphinx_design",
    "segue_site",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "_ext", "_templates", "images/*.py"]
root_doc = "index"
default_role = "literal"  # docstrings have single backticks around code

# ---- pages ----------------------------------------------------------------------------------------------------------

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 4

# ---- notebooks ------------------------------------------------------------------------------------------------------

nb_execution_mode = os.environ.get("SEGUE_DOCS_NOTEBOOKS", "cache")  # "off" builds the pages alone
nb_execution_cache_path = str(HERE / "_build" / "notebooks")
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_merge_streams = True
nb_output_stderr = "remove"  # tqdm, which accelerate brings, asks for widgets that nothing here uses
nb_execution_show_tb = True

# ---- reference ------------------------------------------------------------------------------------------------------

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autoclass_content = "class"
python_maximum_signature_line_length = 80
python_use_unqualified_type_names = True
add_module_names = False
toc_object_entries_show_parents = "hide"
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_preprocess_types = False

# ---- theme ----------------------------------------------------------------------------------------------------------

html_theme = "pydata_sphinx_theme"
html_title = f"segue {release}"
html_static_path = ["_static"]
html_css_files = ["segue.css"]
html_favicon = "_static/favicon.svg"
html_copy_source = True
html_show_sourcelink = False
html_baseurl = PROJECT["urls"].get("Documentation", "")
html_sidebars = {"index": [], "install": [], "changelog": [], "contributing": []}
html_context = {
    "github_user": "segue-rec",
    "github_repo": "segue",
    "github_version": "main",
    "doc_path": "docs",
    "default_mode": "auto",
}
html_theme_options: dict[str, Any] = {
    "logo": {"text": "segue", "image_light": "_static/logo.svg", "image_dark": "_static/logo.svg", "alt_text": "segue"},
    "icon_links": [{"name": "Source", "url": REPOSITORY, "icon": "fa-brands fa-github"}],
    "use_edit_page_button": True,
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "show_prev_next": True,
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
    "footer_start": ["copyright"],
    "footer_end": [],
    "back_to_top_button": True,
}

# ---- external links: `make docs-links` ------------------------------------------------------------------------------

linkcheck_timeout = 20
linkcheck_workers = 4
linkcheck_anchors = False
linkcheck_ignore = [r"http://127\.0\.0\.1.*", r"http://localhost.*"]
