"""Agents that look like agents at work, for the pictures."""

import math

import model
from model import Agent, one_model


def busy(**changes):
    """Some 400 requests a second with a slow stretch and a burst of failures."""
    return Agent(**{"growth": growth(), "levels": levels(), **changes})


def batching(**changes):
    sizes = {2: 1, 4: 2, 8: 5, 16: about(11, 5, 50), 32: about(6, 5, 90)}
    batches = {
        model.BATCHES: {"full": about(7, 5, 90), "latency": 3, "eager": about(13, 4, 50)},
        model.BATCH_SIZE: sizes,
        model.BATCH_WAIT: {
            0.001: 120,
            0.002: about(150, 80, 40),
            0.005: 60,
            0.01: slow(30),
            0.05: slow(3),
        },
        model.BATCH_CALL: {0.005: 9, 0.01: about(10, 4, 60), 0.02: slow(4), 0.1: slow(1)},
        "kserve_agent_batch_retries_total": lambda s: s % 40 == 7,
    }
    waiting = {
        "kserve_agent_batches_in_flight": about(4, 3, 45),
        "kserve_agent_batch_queue_requests": lambda s: round(60 + 50 * wave(s, 80) + 4 * (s % 5)),
        "kserve_agent_batch_held_bytes": 9.4 * 2**20,
    }
    return busy(**{
        "growth": {**growth(), **batches},
        "levels": {**levels(), **waiting},
        "batcher": model.BATCHER,
        **changes,
    })  # fmt: skip


def logging_payloads(**changes):
    """A sink that is away between the 190th and the 215th second, so that the queue fills up."""
    away = range(190, 215)
    events = {
        model.EVENTS_SENT: {
            "request": lambda s: 0 if s in away else round(430 + 90 * wave(s, 110)),
            "response": lambda s: 0 if s in away else round(380 + 90 * wave(s, 110)),
        },
        model.EVENTS_FAILED: {"rejected request": lambda s: 2 * (s % 11 == 0)},
        model.EVENTS_DROPPED: {
            "full request": lambda s: 260 if 204 <= s < 215 else 0,
            "full response": lambda s: 240 if 204 <= s < 215 else 0,
            "too_large response": lambda s: s % 50 == 9,
        },
        model.DELIVERY: {
            0.001: about(500, 120, 70), 0.002: 200, 0.005: slow(30), 0.02: slow(4), 0.5: slow(1),
        },
        "kserve_logger_delivery_retries_total": lambda s: 5 if s in away else s % 9 == 0,
    }  # fmt: skip
    waiting = {
        "kserve_logger_work_queue_depth": lambda s: (
            min(800 * (s - 189), 11_500) if s in away else 9 + s % 7
        ),
        "kserve_logger_queue_bytes": lambda s: (64 if 204 <= s < 215 else 3) * 2**20,
        "kserve_logger_spool_bytes": 61 * 2**20,
    }
    return busy(**{
        "growth": {**growth(), **events},
        "levels": {**levels(), **waiting},
        "logger": model.LOGGER,
        **changes,
    })  # fmt: skip


def pulling(**changes):
    """A dozen models: most come within three minutes, one can't, and one has a long way to go."""
    size = 14 * 2**30

    def small(second, number):
        if second > 15 * number:
            return {"state": "ready"}
        if second > 12 * number:
            return {"state": "downloading", "downloaded_bytes": 3 * 2**20, "size_bytes": 4 * 2**20}
        return {"state": "pending"}

    def models(second):
        coming = [one_model(f"iris-{number}", **small(second, number)) for number in range(10)]
        reason = "s3://models/gone: status 404: NoSuchKey: The specified key does not exist."
        return [
            *coming,
            one_model("gone", "failed", reason=reason, next_try_seconds=41.5, failures=9),
            one_model("llama-3-8b", "downloading", downloaded_bytes=second * 40 * 2**20, size_bytes=size),
            one_model("unknown-size", "downloading", downloaded_bytes=second * 2**20),
            one_model("large", "loading"),
            one_model("old", "removing", uri=None),
        ]

    list_failure = 'entry 3: the name "../up" begins with a dot'
    return busy(**{"models": models, "list_failure": list_failure, **changes})


def growth():
    return {
        model.REQUESTS: {
            "2xx": lambda s: round(380 + 90 * wave(s, 110) + 7 * (s % 7)),
            "4xx": about(18, 12, 70),
            "5xx": lambda s: 55 if 190 <= s < 215 else s % 9 == 0,
            "none": lambda s: s % 4 == 0,
        },
        model.TOTAL: {
            0.001: 40, 0.002: about(180, 60, 60), 0.005: 130, 0.01: slow(40), 0.02: slow(18),
            0.05: slow(8), 0.1: slow(3), 0.5: lambda s: 30 if 190 <= s < 215 else s % 13 == 0,
        },
        model.UPSTREAM: {
            0.001: 110, 0.002: about(200, 60, 60), 0.005: 90, 0.01: slow(20), 0.05: slow(4),
        },
        model.ERRORS: {
            "closed": lambda s: s % 30 == 3,
            "timeout": lambda s: 2 if 190 <= s < 215 else 0,
        },
        model.REJECTED: {
            "bad_request": lambda s: s % 11 == 0,
            "too_many_connections": lambda s: 3 * (200 <= s < 205),
        },
        "kserve_agent_probes_total": {"2xx": lambda s: s % 5 == 0},
        "kserve_agent_upstream_retries_total": lambda s: s % 30 == 4,
        "kserve_agent_connections_accepted_total": lambda s: 1 + (s % 3 == 0),
        "kserve_agent_upstream_connections_opened_total": lambda s: s % 6 == 0,
        "kserve_agent_tunnels_opened_total": lambda s: s % 60 == 1,
        "kserve_agent_received_bytes_total": about(2.1e6, 5e5, 110),
        "kserve_agent_sent_bytes_total": about(6.3e6, 2.2e6, 110),
        "process_cpu_seconds_total": lambda s: 0.11 + 0.04 * wave(s, 110) + 0.01 * (s % 3),
    }  # fmt: skip


def levels():
    return {
        "kserve_agent_requests_in_flight": lambda s: round(
            14 + 9 * wave(s, 60) + s % 4 + 40 * (190 <= s < 215)
        ),
        "kserve_agent_connections": about(120, 20, 200),
        "kserve_agent_upstream_connections": about(40, 8, 90),
        "kserve_agent_tunnels": lambda s: 3 + (s > 150),
        "process_resident_memory_bytes": lambda s: round((3.4 + 0.3 * wave(s, 150)) * 2**20),
        "process_open_fds": 187,
    }


def about(level, swing, period):
    return lambda second: round(level + swing * wave(second, period))


def wave(second, period):
    return math.sin(2 * math.pi * second / period)


def slow(usual):
    """More of the slow ones between the 190th and the 215th second."""
    return lambda second: usual * 6 if 190 <= second < 215 else usual
