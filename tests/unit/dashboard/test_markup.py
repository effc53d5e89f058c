"""HTML is made of what is said here, and of no text that comes in."""

from __future__ import annotations

import pytest

from modelcloud.dashboard.markup import Markup, element, join
from modelcloud.dashboard.parts.basic import badge, code, count, facts, number, size, table
from modelcloud.dashboard.parts.charts import Series, chart, lines, spark
from modelcloud.dashboard.words import Words

EVIL = "<img src=x onerror=alert(1)>"
T = Words("en")


def test_text_is_escaped_and_markup_is_not() -> None:
    assert element("p", EVIL) == "<p>&lt;img src=x onerror=alert(1)&gt;</p>"
    assert element("p", element("b", "x")) == "<p><b>x</b></p>"
    assert join("a<", Markup("<br>"), None, ["b", 1, 2.5]) == "a&lt;<br>b12.5"


def test_attributes_are_escaped_and_named_as_in_html() -> None:
    made = element("a", class_="x", data_key='"><script>', hidden=True, title=None, disabled=False)
    assert made == '<a class="x" data-key="&quot;&gt;&lt;script&gt;" hidden></a>'
    assert element("input", type="text", name="a") == '<input type="text" name="a">'


@pytest.mark.parametrize(
    "address", ["javascript:alert(1)", "data:text/html,x", "//evil.example", "services", " /x"]
)
def test_no_address_leads_elsewhere_or_runs(address: str) -> None:
    with pytest.raises(ValueError, match="no address"):
        element("a", "x", href=address)


def test_parts_escape_what_they_show() -> None:
    shown = join(
        badge(T, EVIL, title=EVIL),
        code(EVIL, "place", T, label=EVIL),
        facts([(EVIL, EVIL)]),
        table(EVIL, [EVIL], []),
        chart(EVIL, lines([Series(EVIL, [(1, 2)])])),
        spark(EVIL, [1, 2]),
    )
    assert "<img" not in shown


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (300 << 20, "300 MiB"), (5 << 40, "5.0 TiB")],
)
def test_sizes_are_short(amount: int, text: str) -> None:
    assert size(amount) == text


def test_numbers_are_short() -> None:
    assert [number(None), number(0.123456), number(12.0)] == ["—", "0.1235", "12"]
    assert [count(0), count(999), count(1234), count(2_500_000)] == ["0", "999", "1.23k", "2.5M"]


def test_a_small_curve_of_nothing_is_flat() -> None:
    assert "M0.0,34.0L240.0,34.0" in spark("x", [0, 0])
    assert 'd=""' in spark("x", [])
