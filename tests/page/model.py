"""A running agent as arithmetic: what it counts is a function of the second, so that every number
the page shows has a known truth.

An `Agent` has growth per second for counters and histograms, and levels for gauges; each a number
or a function of the second. `document(second)` is its `status.json` that long after `TIME`.
"""

import math
from dataclasses import dataclass, field
from functools import cache

# The first reading's time, and how long the agent had been running by then.
TIME = 1_764_000_000.0
STARTED_BEFORE = 10_000

DURATION_BOUNDS = [
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5,
    1, 2, 5, 10, 20, 50,
]  # fmt: skip
SIZE_BOUNDS = [2**power for power in range(11)]

REQUESTS = "kserve_agent_requests_total"
TOTAL = "kserve_agent_request_duration_seconds"
UPSTREAM = "kserve_agent_upstream_duration_seconds"
REJECTED = "kserve_agent_requests_rejected_total"
ERRORS = "kserve_agent_upstream_errors_total"
BATCHES = "kserve_agent_batches_total"
BATCH_SIZE = "kserve_agent_batch_size"
BATCH_WAIT = "kserve_agent_batch_wait_seconds"
BATCH_CALL = "kserve_agent_batch_call_duration_seconds"
EVENTS_SENT = "kserve_logger_events_sent_total"
EVENTS_FAILED = "kserve_logger_events_failed_total"
EVENTS_DROPPED = "kserve_logger_events_dropped_total"
DELIVERY = "kserve_logger_delivery_duration_seconds"
SPOOL_SKIPPED = "kserve_logger_spool_skipped_total"

LABELS = {
    REQUESTS: ("code", ["1xx", "2xx", "3xx", "4xx", "5xx", "none"]),
    REJECTED: (
        "reason",
        [
            "bad_request", "too_large", "unsupported", "slow_client", "too_many_connections",
            "out_of_descriptors", "batch_queue_full", "batch_bytes_full",
            "batch_late",
        ],
    ),
    ERRORS: (
        "kind", ["connect", "connect_timeout", "closed", "timeout", "bad_response", "truncated"],
    ),
    "kserve_agent_probes_total": ("code", ["2xx", "4xx", "5xx"]),
    BATCHES: ("trigger", ["full", "latency", "eager", "drain"]),
    "kserve_logger_events_accepted_total": ("type", ["request", "response"]),
    EVENTS_SENT: ("type", ["request", "response"]),
    # Two labels, in the order in which the agent's JSON has them.
    EVENTS_FAILED: (
        "reason type",
        [f"{reason} {kind}" for kind in ("request", "response")
         for reason in ("rejected", "expired", "shutdown")],
    ),
    EVENTS_DROPPED: (
        "reason type",
        [f"{reason} {kind}" for kind in ("request", "response") for reason in ("full", "too_large")],
    ),
    SPOOL_SKIPPED: ("reason", ["full", "error"]),
}  # fmt: skip
HISTOGRAMS = {
    TOTAL: DURATION_BOUNDS,
    UPSTREAM: DURATION_BOUNDS,
    BATCH_SIZE: SIZE_BOUNDS,
    BATCH_WAIT: DURATION_BOUNDS,
    BATCH_CALL: DURATION_BOUNDS,
    DELIVERY: DURATION_BOUNDS,
}
COUNTERS = [
    *LABELS,
    "kserve_agent_upstream_retries_total",
    "kserve_agent_connections_accepted_total",
    "kserve_agent_connections_evicted_total",
    "kserve_agent_upstream_connections_opened_total",
    "kserve_agent_tunnels_opened_total",
    "kserve_agent_received_bytes_total",
    "kserve_agent_sent_bytes_total",
    "kserve_agent_batch_retries_total",
    "kserve_agent_panics_total",
    "kserve_logger_requests_delayed_total",
    "kserve_logger_delivery_retries_total",
    "kserve_logger_spool_replayed_total",
    "process_cpu_seconds_total",
]
GAUGES = {
    "kserve_agent_requests_in_flight": 0,
    "kserve_agent_connections": 0,
    "kserve_agent_connections_limit": 1000,
    "kserve_agent_upstream_connections": 0,
    "kserve_agent_tunnels": 0,
    "kserve_agent_batches_in_flight": 0,
    "kserve_agent_batch_queue_requests": 0,
    "kserve_agent_batch_queue_limit": 10_000,
    "kserve_agent_batch_held_bytes": 0,
    "kserve_agent_draining": 0,
    "kserve_logger_work_queue_depth": 0,
    "kserve_logger_queue_bytes": 0,
    "kserve_logger_queue_limit_bytes": 64 * 2**20,
    "kserve_logger_spool_bytes": 0,
    "process_resident_memory_bytes": 3 * 2**20,
    "process_virtual_memory_bytes": 64 * 2**20,
    "process_open_fds": 20,
    "process_max_fds": 1024,
}
BATCHER = {
    "policy": "adaptive",
    "max_batch_size": 32,
    "max_latency_ms": 5000,
    "concurrency": 8,
    "queue": 10_000,
    "held_bytes_limit": 64 * 2**20,
}
LOGGER = {
    "url": "http://broker.knative-eventing/default",
    "mode": "all",
    "threads": 5,
    "queue_limit_bytes": 64 * 2**20,
    "when_full": "drop",
    "sample": 0.25,
    "spool_dir": "/var/spool/kserve-agent",
    "spool_limit_bytes": 256 * 2**20,
    "all_responses": False,
}
PULLER = {"config_dir": "/mnt/configs", "model_dir": "/mnt/models"}
MODEL_STATES = ["pending", "downloading", "loading", "removing", "ready", "failed"]


def one_model(name, state, **more):
    """A model as `status.json` has it."""
    return {
        "name": name,
        "uri": f"s3://models/{name}",
        "state": state,
        "reason": None,
        "next_try_seconds": None,
        "failures": 0,
        "downloaded_bytes": None,
        "size_bytes": None,
        **more,
    }


@dataclass
class Agent:
    """`growth[family]` is per second: of a counter, of counters in a dict by label, of buckets in a
    dict by upper bound (`math.inf`: above the last one)."""

    growth: dict = field(default_factory=dict)
    levels: dict = field(default_factory=dict)
    batcher: dict | None = None
    logger: dict | None = None
    # What the puller has, or a function of the second; `None`: there is no puller.
    models: list | None = None
    list_failure: str | None = None
    host: str | None = "iris-predictor-7d9f8"
    version: str = "0.1.0"
    state: str = "serving"
    # Families that the page knows nothing of, or samples that it does.
    more: list = field(default_factory=list)
    # Seconds after TIME at which it was started anew.
    restarted: int | None = None

    def document(self, second):
        started = TIME - STARTED_BEFORE if self.restarted is None else TIME + self.restarted
        models = at(self.models, second)
        of_puller = {} if models is None else {"models": {"models": models, "list_failure": self.list_failure}}
        return {
            **of_puller,
            "name": "kserve-agent",
            "version": self.version,
            "target": "x86_64-linux-gnu",
            "host": self.host,
            "time": TIME + second,
            "started": started,
            "state": self.state,
            "config": {
                "port": 9081,
                "component_port": 8080,
                "metrics_port": 9089,
                "workers": 2,
                "pinned": False,
                "batcher": self.batcher,
                "logger": self.logger,
                "puller": None if models is None else PULLER,
            },
            "families": [*self._families(second, TIME + second - started), *self.more],
        }

    def _families(self, second, age):
        for name in COUNTERS:
            if self._has(name):
                yield family(name, "counter", self._counter(name, second, age))
        for name, bounds in HISTOGRAMS.items():
            if self._has(name):
                yield family(name, "histogram", [self._histogram(name, bounds, second, age)])
        for name, usual in GAUGES.items():
            if self._has(name):
                level = at(self.levels.get(name, usual), second)
                yield family(name, "gauge", [{"labels": {}, "value": level}])
        if self.models is not None:
            states = [model["state"] for model in at(self.models, second)]
            counts = [{"labels": {"state": state}, "value": states.count(state)} for state in MODEL_STATES]
            yield family("kserve_agent_models", "gauge", counts)

    def _has(self, name):
        if name.startswith("kserve_logger_spool"):
            return self.logger and self.logger["spool_dir"]
        if name.startswith("kserve_logger"):
            return self.logger
        return self.batcher or not name.startswith("kserve_agent_batch")

    def _counter(self, name, second, age):
        growth = self.growth.get(name, 0)
        if name not in LABELS:
            return [{"labels": {}, "value": grown(growth, second, age)}]
        key, labels = LABELS[name]
        growth = growth or {}
        return [
            {"labels": dict(zip(key.split(), label.split(), strict=True)), "value": grown(growth.get(label, 0), second, age)}
            for label in labels
        ]

    def _histogram(self, name, bounds, second, age):
        growth = self.growth.get(name, {})
        counts = [grown(growth.get(bound, 0), second, age) for bound in [*bounds, math.inf]]
        middles = [bound * 0.75 for bound in [*bounds, bounds[-1] * 2]]
        return {
            "labels": {},
            "bounds": bounds,
            "counts": counts,
            "sum": sum(count * middle for count, middle in zip(counts, middles, strict=True)),
            "count": sum(counts),
        }


def family(name, kind, samples):
    return {"name": name, "help": f"Help of {name}.", "type": kind, "samples": samples}


def at(level, second):
    return level(second) if callable(level) else level


def grown(growth, second, age):
    """What a counter has come to: its growth of every second since the first reading, and before
    that as much a second as in the first."""
    if not callable(growth):
        return growth * age
    return growth(0) * (age - second) + _since_first(growth, second)


@cache
def _since_first(growth, second):
    return 0 if second <= 0 else _since_first(growth, second - 1) + growth(second)
