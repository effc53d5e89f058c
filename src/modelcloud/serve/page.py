"""The interactive docs page: Swagger UI from the `offapi` wheel, nothing from the internet.

Must never: serve a file that is not in the list below, or let the page run or reach anything that
does not come from this server.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import msgspec

#: Styles are written into elements by Swagger UI itself; scripts are files only.
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_SAFE = (
    ("content-security-policy", CSP),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
)

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>API of this model</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="$BASE/redoc/swagger-ui.css">
<style>.swagger-ui .info .title { overflow-wrap: anywhere; }</style>
</head>
<body>
<div id="swagger-ui"></div>
<script src="$BASE/redoc/swagger-ui-bundle.js"></script>
<script src="$BASE/redoc/init.js"></script>
</body>
</html>
"""

#: `validatorUrl: null` keeps the page from sending the document to swagger.io.
_INIT = """const dark = window.matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();
window.ui = SwaggerUIBundle({
  url: "$BASE/docs.json",
  dom_id: "#swagger-ui",
  presets: [SwaggerUIBundle.presets.apis],
  validatorUrl: null,
  deepLinking: true,
  displayRequestDuration: true,
  tryItOutEnabled: true,
});
"""

_JAVASCRIPT = "text/javascript; charset=utf-8"
_CSS = "text/css; charset=utf-8"

#: Name below `/redoc/` → file in the package that carries Swagger UI, and its type.
_ASSETS = {
    "swagger-ui.css": ("swagger_style.css", _CSS),
    "swagger-ui-bundle.js": ("swagger_bundle.js", _JAVASCRIPT),
}


class Content(msgspec.Struct, frozen=True):
    """A file of the page, as it is answered."""

    body: bytes
    content_type: str
    headers: tuple[tuple[str, str], ...]


def page(base: str = "") -> Content:
    """Return the page itself, as it stands at `<base>/redoc`; `base` holds no quotes."""
    body = _PAGE.replace("$BASE", base).encode()
    return Content(body, "text/html; charset=utf-8", (("cache-control", "no-cache"), *_SAFE))


def asset(name: str, base: str = "") -> Content | None:
    """Return the file `<base>/redoc/<name>`, or None if it is not one of the page's."""
    if name == "init.js":
        body = _INIT.replace("$BASE", base).encode()
        return Content(body, _JAVASCRIPT, (("cache-control", "no-cache"), *_SAFE))
    if name not in _ASSETS:
        return None
    file, content_type = _ASSETS[name]
    caching = ("cache-control", "public, max-age=86400")
    return Content(_read(file), content_type, (caching, *_SAFE))


@cache
def _read(file: str) -> bytes:
    """A file of the wheel, held once: many who ask at a time must not take a copy each."""
    return (_folder() / file).read_bytes()


@cache
def _folder() -> Path:
    """Where the wheel lies; importing it would read nine megabytes of templates into memory."""
    spec = find_spec("offapi")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent
