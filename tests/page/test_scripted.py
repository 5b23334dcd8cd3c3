"""The page beside an agent whose numbers are known: what it shows is what happened."""

import math
import re

import model
import pytest
from conftest import shown
from model import BATCHER, LOGGER, Agent, one_model
from reader import Reader, banner, plain

HOSTILE = "<img src=x onerror=\"alert('1')\"></style><script>alert(2)</script>&lt;"
STEADY = {
    model.REQUESTS: {"2xx": 90, "4xx": 8, "5xx": 2},
    model.TOTAL: {0.002: 50, 0.005: 40, 0.1: 10},
    model.UPSTREAM: {0.001: 50, 0.002: 50},
    "kserve_agent_received_bytes_total": 3 * 2**20,
    "kserve_agent_sent_bytes_total": 512 * 2**10,
    "process_cpu_seconds_total": 0.25,
}


def steady(**changes):
    return Agent(**{"growth": dict(STEADY), **changes})


def test_rates_are_those_of_the_counters(after):
    reader = Reader(after(20, steady()))
    assert reader.legend("Requests") == {"2xx": "90/s", "4xx": "8/s", "5xx": "2/s"}
    assert reader.legend("Bytes") == {"in": "3 MiB/s", "out": "512 KiB/s"}
    assert reader.legend("The agent itself")["processor"] == "25 %"
    figures = reader.figures()
    assert figures["Requests"] == ("100/s", "1 002 000 since the start")
    assert figures["Answered 5xx"] == ("2 %", "of the last minute")


def test_percentiles_are_those_of_the_last_seconds_and_not_of_all_time(after):
    """Until the 20th second everything was slow; in the last ten half took up to 2 ms, nine tenths
    up to 5 ms."""

    def until_20(before, then):
        return lambda second: before if second <= 20 else then

    growth = {
        **STEADY,
        model.TOTAL: {
            0.002: until_20(0, 50), 0.005: until_20(0, 40), 0.1: until_20(0, 10),
            5: until_20(100, 0),
        },
    }  # fmt: skip
    reader = Reader(after(30, steady(growth=growth)))
    p99 = 0.05 * 2**0.9
    assert reader.legend("Latency") == {
        "p50": "2 ms", "p90": "5 ms", "p99": f"{p99 * 1000:.1f} ms", "upstream p50": "1 ms",
    }  # fmt: skip


def test_latencies_above_the_last_bound_are_not_given_a_number(after):
    growth = {**STEADY, model.TOTAL: {0.002: 60, math.inf: 40}}
    reader = Reader(after(12, steady(growth=growth)))
    legend = reader.legend("Latency")
    assert (legend["p90"], legend["p99"]) == ("> 50 s", "> 50 s")
    assert reader.figures()["Latency p99"][0] == "> 50 s"


def test_without_requests_there_is_no_percentile(after):
    reader = Reader(after(5, Agent()))
    assert set(reader.legend("Latency").values()) == {"–"}
    assert reader.figures()["Answered 5xx"][0] == "–"


def test_failures_are_listed_by_kind_with_total_and_rate(after):
    growth = {
        **STEADY,
        model.ERRORS: {"closed": 0.5, "timeout": 3},
        "kserve_agent_upstream_retries_total": 1,
    }
    reader = Reader(after(20, steady(growth=growth)))
    assert reader.rows("Failures") == [
        ["timeout", "30 060", "3/s"],
        ["closed", "5 010", "0.5/s"],
        ["retries upstream", "10 020", "1/s"],
    ]
    assert "Rejected, by reason: none" in reader.panel("Failures")


def test_an_agent_without_failures_has_none(after):
    text = Reader(after(3, steady())).panel("Failures")
    for caption in ("Upstream errors, by kind", "Rejected, by reason", "Handled by the agent"):
        assert f"{caption}: none" in text


def test_connections_tunnels_and_their_limit_are_shown(after):
    levels = {
        "kserve_agent_connections": 120,
        "kserve_agent_upstream_connections": 47,
        "kserve_agent_tunnels": 4,
        "kserve_agent_requests_in_flight": 14,
    }
    reader = Reader(after(3, steady(levels=levels)))
    assert reader.legend("Connections") == {"clients": "120", "upstream": "47", "tunnels": "4"}
    assert "limit 1 000" in reader.panel("Connections")
    assert reader.legend("In flight") == {"requests": "14"}


def test_probes_are_apart_from_requests(after):
    growth = {**STEADY, "kserve_agent_probes_total": {"2xx": 0.2, "5xx": 0.1}}
    rows = Reader(after(20, steady(growth=growth))).rows("Since the start")
    assert rows[:2] == [["2xx", "2 004", "0.2/s"], ["5xx", "1 002", "0.1/s"]]


BATCHING = {
    model.BATCHES: {"full": 3, "latency": 1},
    model.BATCH_SIZE: {16: 1, 32: 3},
    model.BATCH_WAIT: {0.002: 50, 0.005: 40, 0.1: 10},
    model.BATCH_CALL: {0.01: 4},
}


def batching(**changes):
    levels = {
        "kserve_agent_batches_in_flight": 3,
        "kserve_agent_batch_queue_requests": 250,
        "kserve_agent_batch_held_bytes": 16 * 2**20,
    }
    return Agent(
        **{"growth": {**STEADY, **BATCHING}, "levels": levels, "batcher": BATCHER, **changes}
    )


def test_the_batcher_has_its_panels(after):
    reader = Reader(after(20, batching()))
    assert reader.legend("Batches") == {"full": "3/s", "latency": "1/s"}
    assert reader.legend("Wait for a batch") == {"p50": "2 ms", "p90": "5 ms", "p99": "93.3 ms"}
    assert reader.legend("Calls of the batcher")["p50"] == f"{5 * 2**0.5:.2f} ms"
    queue = reader.panel("Queue")
    for text in ("250 of 10 000", "16 MiB of 64 MiB", "3 of 8"):
        assert text in queue
    assert "policy adaptive; at most 32 instances, 5 s, 8 calls at a time" in reader.text()


def test_batch_sizes_are_shares_of_the_batches(after):
    page = after(20, batching())
    reader = Reader(page)
    # The model's instances lie at three quarters of their bucket's bound: (12 + 3 * 24) / 4.
    assert reader.legend("Batch sizes") == {"last minute": "mean 21", "since the start": "mean 21"}
    heights = page.run(
        "[...panelOf('Batch sizes').querySelectorAll('rect')]"
        ".map(each => +each.getAttribute('height')).filter(each => each > 9)"
    )
    assert len(heights) == 4
    assert heights[1] / heights[0] == pytest.approx(3, abs=0.01)


LOGGING = {
    model.EVENTS_SENT: {"request": 40, "response": 38},
    model.EVENTS_FAILED: {"rejected request": 1, "expired response": 2},
    model.EVENTS_DROPPED: {"full request": 4, "too_large response": 0.5},
    model.DELIVERY: {0.002: 50, 0.005: 40, 0.1: 10},
    model.SPOOL_SKIPPED: {"error": 0.25},
    "kserve_logger_delivery_retries_total": 3,
}


def logging_payloads(**changes):
    levels = {
        "kserve_logger_work_queue_depth": 1200,
        "kserve_logger_queue_bytes": 48 * 2**20,
        "kserve_logger_spool_bytes": 50 * 2**20,
    }
    return Agent(
        **{"growth": {**STEADY, **LOGGING}, "levels": levels, "logger": LOGGER, **changes}
    )


def test_the_payload_log_has_its_panels(after):
    reader = Reader(after(20, logging_payloads()))
    assert reader.legend("Events") == {
        "requests sent": "40/s", "responses sent": "38/s", "dropped": "4.5/s", "failed": "3/s",
    }  # fmt: skip
    assert reader.legend("Delivery attempts") == {"p50": "2 ms", "p90": "5 ms", "p99": "93.3 ms"}
    assert reader.legend("Events waiting") == {"waiting": "1 200"}
    for text in ("48 MiB of 64 MiB", "50 MiB of 256 MiB"):
        assert text in reader.panel("Events waiting")
    facts = (
        "to http://broker.knative-eventing/default; mode all, sample 25 %; 5 threads; "
        "when full drop; spool in /var/spool/kserve-agent"
    )
    assert facts in reader.text()


def test_events_that_did_not_arrive_are_listed_by_reason_and_type(after):
    reader = Reader(after(20, logging_payloads()))
    assert reader.rows("Not delivered") == [
        ["expired response", "20 040", "2/s"],
        ["rejected request", "10 020", "1/s"],
        ["full request", "40 080", "4/s"],
        ["too_large response", "5 010", "0.5/s"],
        ["attempts to be repeated", "30 060", "3/s"],
        ["not on disk: error", "2 505", "0.25/s"],
    ]


def test_a_payload_log_in_memory_has_nothing_of_the_disk(after):
    reader = Reader(after(5, logging_payloads(logger={**LOGGER, "spool_dir": None})))
    assert "no spool" in reader.text()
    assert "disk" not in reader.panel("Events waiting") + reader.panel("Not delivered")


# No cell of the models' table reaches into another, or out of it.
INSIDE = """[...document.querySelectorAll("table.models *")].every((each) => each.scrollWidth <= each.clientWidth + 1 ||
  getComputedStyle(each).display === "inline") && document.documentElement.scrollWidth <= innerWidth"""
EACH_STATE = [
    one_model("a-ready", "ready"),
    one_model("b-pending", "pending"),
    one_model("c-loading", "loading"),
    one_model("d-known", "downloading", downloaded_bytes=3 * 2**20, size_bytes=4 * 2**20),
    one_model("e-unknown", "downloading", downloaded_bytes=5 * 2**20),
    one_model("f-removing", "removing", uri=None),
    one_model("g-failed", "failed", reason="model server: status 500: no", next_try_seconds=41.5),
    one_model("h-due", "failed", reason="no such bucket", next_try_seconds=0.0),
]


def test_models_are_listed_with_those_first_that_need_a_look(after):
    page = after(5, steady(models=EACH_STATE))
    reader = Reader(page)
    assert reader.rows("What they are doing") == [
        ["g-failedmodel server: status 500: no", "failed", "again in 41.5 s"],
        ["h-dueno such bucket", "failed", "again in 0 s"],
        ["f-removing", "removing", ""],
        ["d-known", "downloading", "75 % of 4 MiB"],
        ["e-unknown", "downloading", "5 MiB"],
        ["c-loading", "loading", ""],
        ["b-pending", "pending", ""],
        ["a-ready", "ready", ""],
    ]
    assert reader.legend("Models") == {
        "failed": "2", "removing": "1", "downloading": "2", "loading": "1", "pending": "1", "ready": "1",
    }  # fmt: skip
    assert "list in /mnt/configs, models in /mnt/models" in reader.text()
    assert page.run(INSIDE)
    assert "not followed" not in reader.text()


def test_of_many_models_the_urgent_ones_are_shown_and_the_others_counted(after):
    many = [one_model(f"m{number}", "ready") for number in range(498)]
    many[300:300] = [one_model("late", "loading"), one_model("bad", "failed", reason="no")]
    reader = Reader(after(5, steady(models=many, list_failure="entry 7: the name is empty")))
    rows = reader.rows("What they are doing")
    assert [row[0] for row in rows[:3]] == ["badno", "late", "m0"]
    assert len(rows) == 20
    assert "480 more in status.json" in reader.panel("What they are doing")
    assert "The list is not followed: entry 7: the name is empty" in reader.panel("What they are doing")
    assert reader.legend("Models")["ready"] == "498"


def test_a_puller_without_models_says_so(after):
    reader = Reader(after(5, steady(models=[])))
    assert "No models." in reader.panel("What they are doing")


def test_a_models_name_and_reason_are_no_markup(after):
    hostile = [
        one_model(HOSTILE, "failed", reason=HOSTILE, next_try_seconds=1),
        one_model("odd", HOSTILE, next_try_seconds="soon", downloaded_bytes=HOSTILE),
        one_model("long " * 60, "failed", reason="x" * 500),
    ]
    page = after(3, steady(models=hostile, list_failure=HOSTILE))
    assert page.run("document.querySelectorAll('img').length") == 0
    assert page.run("document.scripts.length") == 1
    assert Reader(page).text().count(HOSTILE) == 4
    for width in (1280, 360):
        page.resize(width)
        page.wait(INSIDE)


def test_without_batcher_and_payload_log_there_is_nothing_of_them(after):
    page = after(5, steady())
    assert Reader(page).titles() == [
        "Requests", "Latency", "In flight", "Connections", "Bytes", "Failures",
        "Since the start", "The agent itself",
    ]  # fmt: skip
    text = page.run("document.querySelector('main').innerText")
    assert "atch" not in text
    assert "ayload" not in text


def test_draining_is_said_aloud(after):
    page = after(3, steady(state="draining"))
    assert page.run("document.getElementById('state').textContent") == "draining"
    assert "Draining: the agent was told to stop." in banner(page)
    assert page.run("document.title").startswith("draining · ")


@pytest.mark.parametrize("failing", ["silence", "nonsense", 503])
def test_an_agent_out_of_reach_is_said_so_and_found_again(server, after, failing):
    page = after(10, steady())
    page.expected = "/status.json" if failing != "nonsense" else "\0"
    server.failing = failing
    page.wait("document.getElementById('state').textContent === 'not reachable'")
    since = re.match(r"Not reachable since \d\d:\d\d:\d\d UTC ", banner(page))
    page.wait("page.failure.tries >= 3")
    assert banner(page).startswith(since[0])
    server.failing = None
    server.last = 12
    page.wait(shown(12))
    assert page.run("document.getElementById('state').textContent") == "serving"
    assert banner(page) == ""
    assert page.run("page.readings.length") == 13


def test_a_restart_begins_a_new_history(server, after):
    page = after(10, steady())
    server.agent = steady(restarted=10)
    server.last = 14
    page.wait(shown(14))
    assert page.run("page.readings.length") == 4
    assert page.run("document.querySelectorAll('.curve').length") > 0
    assert Reader(page).figures()["Requests"] == ("100/s", "400 since the start")


def test_a_counter_that_goes_backwards_begins_a_new_history(server, after):
    page = after(10, steady())
    server.agent = steady(growth={**STEADY, model.REQUESTS: {"2xx": 1}})
    server.last = 12
    page.wait(shown(12))
    assert page.run("page.readings.length") == 2
    assert Reader(page).legend("Requests")["2xx"] == "1/s"


def test_a_gap_is_not_drawn_over(server, after):
    page = after(10, steady())
    Reader(page)
    server.skip(60)
    server.last = 80
    page.wait(shown(80))
    values = page.run("rates(page.readings, REQUESTS, CLASSES).at(-1).values")
    assert values[:12] == [None, *[90] * 10, None]
    assert page.run("panelOf('Bytes').querySelector('.curve').getAttribute('d')").startswith("M")
    assert page.run("[...panelOf('Bytes').querySelectorAll('.curve.blue[d*=L]')].length") == 2


def test_it_keeps_five_minutes_and_a_little_more(after):
    page = after(600, steady(), step=10)
    assert page.run("page.readings.at(-1).time - page.readings[0].time") == 360
    assert page.run("viewOf(page.readings, null).span") == 300


def test_it_rests_while_it_is_hidden(server, after):
    page = after(5, steady())
    Reader(page)
    page.run("hide(true)")
    page.wait("!page.asking")
    before = server.polls
    # As many timers as twenty polls would have needed.
    page.run("timers(20)")
    assert server.polls == before
    server.last = 8
    page.run("hide(false)")
    page.wait(shown(8))


def test_no_value_is_read_as_markup(after):
    growth = {**STEADY, model.ERRORS: {}}
    hostile = [
        model.family(model.ERRORS, "counter", [{"labels": {"kind": HOSTILE}, "value": 7}]),
        model.family(HOSTILE, "counter", [{"labels": {HOSTILE: HOSTILE}, "value": 1}]),
    ]
    parts = {
        "batcher": {**BATCHER, "policy": HOSTILE},
        "logger": {**LOGGER, "url": HOSTILE, "spool_dir": HOSTILE},
    }
    agent = batching(
        growth=growth, host=HOSTILE, version=HOSTILE, state=HOSTILE, more=hostile, **parts
    )
    page = after(3, agent)
    assert Reader(page).rows("Failures") == [[HOSTILE, "7", "0/s"]]
    assert page.run("document.querySelectorAll('img').length") == 0
    assert page.run("document.scripts.length") == 1
    assert page.run("document.title").startswith(HOSTILE)
    assert page.text().count(HOSTILE) >= 6
    assert not [name for name, _ in page.events if name == "Page.javascriptDialogOpening"]


def test_what_it_does_not_know_does_not_break_it(after):
    odd = [
        model.family(
            "kserve_logger_events_sent_total",
            "counter",
            [{"labels": {"type": "request"}, "value": 5}],
        ),
        model.family(
            "of_no_kind", "summary", [{"labels": {}, "quantiles": {"0.5": 1}}, {"value": None}, {}]
        ),
        model.family(
            "half",
            "histogram",
            [{"labels": {}, "bounds": [1], "counts": [1], "sum": 1, "count": 1}],
        ),
        model.family("nothing", "gauge", []),
        model.family(
            model.REQUESTS,
            "counter",
            [{"labels": {"code": "6xx"}, "value": 9}, {"labels": {"code": "2xx"}, "value": 1}],
        ),
    ]
    reader = Reader(after(3, steady(more=odd)))
    assert reader.legend("Requests") == {"2xx": "0/s", "4xx": "–", "5xx": "–", "6xx": "0/s"}


def test_an_agent_that_tells_next_to_nothing_is_shown(after):
    class Bare(Agent):
        def document(self, second):
            return {**super().document(second), "families": [], "host": None}

    page = after(3, Bare(batcher=dict.fromkeys(BATCHER), logger=dict.fromkeys(LOGGER)))
    assert "undefined" not in page.text()
    assert "NaN" not in page.text()
    assert "null" not in page.text()


def test_pointing_at_a_chart_reads_all_of_them_at_that_moment(after):
    growth = {**STEADY, "kserve_agent_received_bytes_total": lambda second: 1024 * (second // 10)}
    page = after(60, steady(growth=growth))
    reader = Reader(page)
    left, top, width, height = page.run("boxOf('Latency')")
    middle = page.run(f"LEFT + ({width} - LEFT - RIGHT) / 2")
    page.point(left + middle, top + height / 2)
    page.wait("page.cursor !== null && document.querySelectorAll('.cursor').length >= 7")
    assert reader.legend("Bytes")["in"] == "2.2 KiB/s"
    assert reader.moment("Bytes") == "16:00:30 UTC"
    assert page.run("boxOf('Latency')") == [left, top, width, height]
    page.point(5, 5)
    page.wait("document.querySelectorAll('.cursor').length === 0")


def test_the_keyboard_reads_the_past_as_well(after):
    page = after(20, steady())
    reader = Reader(page)
    page.run("panelOf('Bytes').querySelector('figure').focus()")
    page.press("ArrowLeft")
    page.press("ArrowLeft")
    page.wait("document.querySelectorAll('.cursor').length >= 7")
    assert reader.moment("Bytes") == "16:00:19 UTC"
    page.press("Escape")
    page.wait("document.querySelectorAll('.cursor').length === 0")


def test_a_selection_outlives_the_next_reading(server, after):
    page = after(5, steady())
    reader = Reader(page)
    page.run("getSelection().selectAllChildren(panelOf('Bytes').querySelector('b'))")
    server.last = 9
    page.wait(shown(9))
    assert plain(page.run("getSelection().toString()")) == "3 MiB/s"
    assert reader.figures()["Requests"][1] == "1 000 900 since the start"
