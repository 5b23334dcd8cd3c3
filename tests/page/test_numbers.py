"""The page's pure functions, called in the page."""

import json
import math

import pytest
from server import PAGE

BOUNDS = [1, 2, 5, 10]


@pytest.fixture(scope="module")
def call(browser):
    """`call("quantile", …)` is what the page's function of that name gives. No agent is needed."""
    page = browser.page()
    frame = page.send("Page.getFrameTree")["frameTree"]["frame"]["id"]
    page.send("Page.setDocumentContent", frameId=frame, html=PAGE.read_text())
    page.wait("typeof quantile === 'function'")
    yield lambda function, *arguments: page.run(
        f"{function}({', '.join(map(json.dumps, arguments))})"
    )
    browser.close(page)


@pytest.mark.parametrize(
    ("counts", "q", "expected"),
    [
        ([0, 100, 0, 0, 0], 0.5, 2**0.5),  # In the middle of a bucket, on a logarithmic scale.
        ([100, 0, 0, 0, 0], 0.5, 0.5),  # The first bucket begins at 0, so on a linear one.
        ([50, 40, 0, 10, 0], 0.5, 1),  # Exactly at a bound.
        ([50, 40, 0, 10, 0], 0.9, 2),
        ([50, 40, 0, 10, 0], 0.99, 5 * 2**0.9),
        ([0, 0, 0, 0, 1], 0.5, None),  # Above the last bound: Infinity, which JSON writes as null.
        ([99, 0, 0, 0, 1], 0.99, 1),
        ([0, 0, 3, 0, 0], 1, 5),
    ],
)
def test_a_quantile_is_interpolated_in_its_bucket(call, counts, q, expected):
    found = call("quantile", {"bounds": BOUNDS, "counts": counts, "count": sum(counts)}, q)
    if expected is None:
        assert found is None
    else:
        assert math.isclose(found, expected)


@pytest.mark.parametrize("nothing", [None, {"bounds": BOUNDS, "counts": [0] * 5, "count": 0}])
def test_nothing_has_no_quantile(call, nothing):
    assert call("quantile", nothing, 0.5) is None


@pytest.mark.parametrize(
    ("most", "options", "expected"),
    [
        (0, {}, [0, 0.5, 1]),
        (0, {"binary": True}, [0, 1]),
        (7, {}, [0, 2, 4, 6, 8]),
        (400, {}, [0, 100, 200, 300, 400]),
        (401, {}, [0, 200, 400, 600]),
        (0.3, {}, [0, 0.1, 0.2, 0.3]),
        (1, {"whole": True}, [0, 1]),
        (3, {"whole": True}, [0, 1, 2, 3]),
        (0, {"whole": True}, [0, 1]),
        (3 * 2**20, {"binary": True}, [0, 2**20, 2 * 2**20, 3 * 2**20]),
        (700 * 2**10, {"binary": True}, [0, 200 * 2**10, 400 * 2**10, 600 * 2**10, 800 * 2**10]),
        (500, {"binary": True}, [0, 200, 400, 600]),
    ],
)
def test_ticks_are_round_and_reach_to_the_most(call, most, options, expected):
    assert call("linearTicks", most, options) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("least", "most", "expected"),
    [
        (0.003, 0.004, [0.002, 0.005]),
        (0.001, 0.01, [0.001, 0.002, 0.005, 0.01]),
        (0.002, 0.002, [0.002, 0.005]),
        (0.0003, 0.4, [0.0001, 0.001, 0.01, 0.1, 1]),
        (None, 0, [0.001, 0.01, 0.1]),
    ],
)
def test_logarithmic_ticks_enclose_what_is_shown(call, least, most, expected):
    assert call("logTicks", least, most) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("function", "amount", "expected"),
    [
        ("count", 0, "0"),
        ("count", 999, "999"),
        ("count", 1234567, "1 234 567"),
        ("count", None, "–"),
        ("count", "12", "–"),
        ("perSecond", 0, "0/s"),
        ("perSecond", 0.01666, "0.017/s"),
        ("perSecond", 0.00001, "0/s"),
        ("perSecond", 1234.5, "1 235/s"),
        ("perSecond", 123456, "123 k/s"),
        ("perSecond", 2500000, "2.5 M/s"),
        ("share", 0.0818, "8.18 %"),
        ("share", 1, "100 %"),
        ("byteCount", 0, "0 B"),
        ("byteCount", 1023, "1 023 B"),
        ("byteCount", 1536, "1.5 KiB"),
        ("byteCount", 64 * 2**20, "64 MiB"),
        ("byteCount", 3 * 2**40, "3 TiB"),
        ("byteCount", 5000 * 2**40, "5 000 TiB"),
        ("bytesPerSecond", 2048, "2 KiB/s"),
        ("duration", 0, "0 s"),
        ("duration", 0.00005, "50 µs"),
        ("duration", 0.001, "1 ms"),
        ("duration", 0.04562, "45.6 ms"),
        ("duration", 50, "50 s"),
        ("age", 0.4, "0 s"),
        ("age", 59.9, "59 s"),
        ("age", 3600, "1 h"),
        ("age", 9975, "2 h 46 min"),
        ("age", 266400, "3 d 2 h"),
        ("clock", 1764000000.9, "16:00:00 UTC"),
    ],
)
def test_a_number_is_written_with_its_unit(call, function, amount, expected):
    assert call(function, amount).replace("\u202f", " ") == expected


def test_what_lies_above_the_last_bound_says_so(call):
    assert call("((bound) => showDuration(bound)(Infinity))", 50) == "> 50 s"


@pytest.mark.parametrize(
    ("bucket", "short", "expected"),
    [
        (0, False, "1"),
        (1, False, "2"),
        (2, False, "3–4"),
        (2, True, "≤ 4"),
        (3, False, "5–8"),
        (4, False, "> 8"),
    ],
)
def test_a_bucket_is_named_by_its_instances(call, bucket, short, expected):
    assert call("bucketName", [1, 2, 4, 8], bucket, short) == expected


def test_failures_slow_the_polling_down_to_a_limit(call):
    assert [call("pause", failures) for failures in (0, 1, 2, 3, 4, 5, 50)] == [
        1,
        1,
        2,
        4,
        8,
        10,
        10,
    ]
