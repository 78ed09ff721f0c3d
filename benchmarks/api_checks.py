"""One more check for schemathesis: a request that fits the document is never refused for its form."""

from __future__ import annotations

from typing import Any

import schemathesis


@schemathesis.check
def accepts_every_documented_form(context: Any, response: Any, case: Any) -> None:
    """422 is for values that depend on the data, such as an unknown variant, if the request fits the document."""
    if case.meta is None or case.meta.generation.mode.value != "positive" or response.status_code != 422:
        return
    problem = response.json()
    assert problem["type"] != "urn:segue:problem:not-valid", problem["detail"]
