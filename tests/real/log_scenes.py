"""Troubles of the payload log, each of which moves some of its metrics."""

import shutil
import threading
from itertools import product

from conftest import Agent, exchange
from log_sink import log_sink, taken
from support import Handler, serving, wait_until

FLOWER = b'{"instances":[[5.1,3.5,1.4,0.2]]}'
TOO_LONG = b"x" * (32 * 1024 * 1024 + 1)
SENT, FAILED, DROPPED = (f"kserve_logger_events_{what}_total" for what in ("sent", "failed", "dropped"))
DEPTH = ("kserve_logger_work_queue_depth",)
DELAYED = ("kserve_logger_requests_delayed_total",)
REPLAYED = ("kserve_logger_spool_replayed_total",)
SKIPPED = ("kserve_logger_spool_skipped_total", ("reason", "error"))
# What the sink says to an event by its id, and then nothing but that it has it.
ANSWERS = {"rejected": (400, {}), "again": (503, {})}


def key(name, of, reason=None):
    labels = {"type": of} if reason is None else {"type": of, "reason": reason}
    return (name, *sorted(labels.items()))


def each_reason():
    """What moves, label by label, but for `shutdown`: then nobody can ask any more; and for `expired`, which takes five
    minutes, as in `tests/sockets`."""
    kinds = [(FAILED, "rejected"), (DROPPED, "full"), (DROPPED, "too_large"), (SENT, None)]
    return {key(name, of, reason) for (name, reason), of in product(kinds, ("request", "response"))}


def play(run, server, folder):
    """`run(provoke, *flags)` starts an agent in front of `server`, lets `provoke(agent, look)` make its trouble, and sees
    what it moves."""
    with log_sink(once()) as sink, serving(Long) as long_server:
        run(given_up, sink.flag)
        run(too_long, sink.flag, server=long_server)
    for trouble, flags in [(full, []), (delayed, ["--log-when-full=block"])]:
        gate = threading.Event()
        with log_sink(held(gate)) as sink:
            run(trouble(gate), sink.flag, "--log-queue-bytes=10000", *flags)
    gate = threading.Event()
    with log_sink(held(gate)) as sink:
        # Segments of 64 KiB, so that a new one is begun soon.
        flags = [sink.flag, f"--log-spool-dir={folder}", "--log-spool-bytes=4000000"]
        crash(server, flags, folder)
        run(restart(gate, folder), *flags)


def once():
    said = set()

    def answer(event):
        which = event["id"], event["type"]
        is_new = which not in said
        said.add(which)
        return ANSWERS[event["id"]] if is_new and event["id"] in ANSWERS else taken(event)

    return answer


def held(gate):
    """A sink that answers when the gate is open."""

    def answer(event):
        gate.wait(60)
        return taken(event)

    return answer


class Long(Handler):
    """Its answers are longer than any payload that is logged."""

    def do_POST(self):
        for _ in self.body():
            pass
        self.answer(200, TOO_LONG)


def ask(one, event_id="any", body=FLOWER):
    headers = {"Content-Type": "application/json", "Ce-Id": event_id}
    return exchange(one.port, "POST", "/v1/models/iris:predict", body, headers).status


def await_empty(look):
    """What was accepted is then sent or given up, exactly."""

    def books():
        now = look()
        total = {name: sum(v for k, v in now.items() if k[0] == name) for name in (SENT, FAILED)}
        accepted = sum(v for k, v in now.items() if k[0] == "kserve_logger_events_accepted_total")
        return now[DEPTH] == 0 and accepted == sum(total.values())

    wait_until(books, "empty queue")


def given_up(one, look):
    for event_id in ("any", *ANSWERS):
        ask(one, event_id)
    await_empty(look)


def too_long(one, look):
    assert ask(one, body=TOO_LONG) == 200
    wait_until(lambda: look()[key(DROPPED, "response", "too_large")] == 1, "response that is too large")


def full(gate):
    def provoke(one, look):
        wait_until(lambda: ask(one) and fully_dropped(look()), "full queue")
        gate.set()
        await_empty(look)

    return provoke


def fully_dropped(now):
    return all(now[key(DROPPED, of, "full")] for of in ("request", "response"))


def delayed(gate):
    def provoke(one, look):
        clients = [threading.Thread(target=ask, args=(one,)) for _ in range(20)]
        for client in clients:
            client.start()
        wait_until(lambda: look()[DELAYED] > 0, "request that waits")
        gate.set()
        for client in clients:
            client.join()
        await_empty(look)

    return provoke


def crash(server, flags, folder):
    """An agent that is killed while events wait leaves them on disk."""
    one = Agent(server, flags, None)
    try:
        assert ask(one) == 200
        wait_until(lambda: any(file.stat().st_size for file in folder.glob("*.events")), "events on disk")
    finally:
        one.kill()


def restart(gate, folder):
    def provoke(one, look):
        wait_until(lambda: look()[REPLAYED] > 0, "events of the run before")
        gate.set()
        await_empty(look)
        shutil.rmtree(folder)
        assert ask(one) == 200
        wait_until(lambda: look()[SKIPPED] > 0, "events that found no folder")
        await_empty(look)

    return provoke
