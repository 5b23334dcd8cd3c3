"""A model's way into a folder, from real stores: over a wire that counts what is fetched twice."""

import io
import os
import random
import re
import shutil
import stat
import subprocess
import tarfile
from contextlib import contextmanager

import pytest
from conftest import AWKWARD, Client, Place
from support import volume_of, wait_until
from wire import Wire, random_cuts

MEBI = 1024 * 1024
PIECE = 32 * MEBI
JOURNAL = ".kserve-agent-fetch"
HEAD, RECORD = 16, 32  # Bytes of a journal's.
OVERHEAD = 4096  # Bytes of a request's answer beside its content, at most.


def noise(seed, size):
    return random.Random(seed).randbytes(size)


def tree(folder):
    """Paths below a folder and their content; `None` is a folder."""
    return {
        str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes() for path in sorted(folder.rglob("*"))
    }


class Model:
    """A folder of a store, behind a wire, and where it goes."""

    def __init__(self, place, folder):
        self.place, self.folder, self.files = place, folder, {}
        self.wire = Wire(place.store.port)
        self.client = Client(self.wire.through(place.client.env), "PULL_EXAMPLE")

    def write(self, path, content):
        self.place.store.write(self.place.url, f"m/{path}", content)
        self.files[path] = content

    @property
    def size(self):
        return sum(map(len, self.files.values()))

    def start(self):
        return self.client.start(f"{self.place.url}/m", self.folder)

    def run(self):
        return self.client.run(f"{self.place.url}/m", self.folder)

    def ok(self):
        outcome = self.run()
        assert outcome.code == 0, outcome.errors
        assert outcome.output == f"{self.size} of {self.size} bytes\n".encode()
        self.check()

    def check(self):
        """What is there is what was stored and nothing else."""
        found = tree(self.folder)
        assert sorted(path for path, content in found.items() if content is not None) == sorted(self.files)
        for path, content in self.files.items():
            assert found[path] == content, path

    def records(self):
        """Of the journal."""
        path = self.folder / JOURNAL
        return (path.stat().st_size - HEAD) // RECORD if path.exists() else 0


@pytest.fixture
def model(place, tmp_path):
    model = Model(place, tmp_path / "model")
    with model.wire:
        yield model


@contextmanager
def model_of(store, folder):
    model = Model(Place(store, Client(store.env), store.url(store.make_bucket())), folder)
    with model.wire:
        yield model


@pytest.fixture
def s3_model(s3, tmp_path):
    """Where it is the same for every store."""
    with model_of(s3, tmp_path / "model") as model:
        yield model


@pytest.fixture
def gcs_model(gcs, tmp_path):
    """Of the store that gives sums."""
    with model_of(gcs, tmp_path / "model") as model:
        yield model


# What comes


def test_folders_awkward_names_and_empty_files_come_and_everybody_may_read_them(model):
    for key in ["a", "d/e/f/g", "d/e.txt", "d/h/i", *AWKWARD]:
        model.write(key, key.encode())
    model.write("d/empty", b"")
    model.place.store.write(model.place.url, "m10/other", b"of another model")
    before = os.umask(0o077)
    try:
        model.ok()
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in model.folder.rglob("*") if path.is_file()}
    folders = {stat.S_IMODE(path.stat().st_mode) for path in [model.folder, *model.folder.rglob("*")] if path.is_dir()}
    assert (modes, folders) == ({0o644}, {0o755})


def test_one_object_is_a_folder_of_one_file(s3_model):
    s3_model.place.store.write(s3_model.place.url, "x/model.bin", b"content")
    outcome = s3_model.client.ok(f"{s3_model.place.url}/x/model.bin", s3_model.folder)
    assert outcome.output == b"7 of 7 bytes\n"
    assert tree(s3_model.folder) == {"model.bin": b"content"}


def test_a_thousand_small_files_come(gcs_model):
    for number in range(1100):
        gcs_model.write(f"d{number % 10}/{number}", noise(number, 100 + number))
    gcs_model.ok()
    assert len(gcs_model.wire.ranges) == 1100


def test_a_large_file_comes_in_pieces(model):
    model.write("large", noise(1, 2 * PIECE + 12345))
    model.ok()
    size = model.size
    assert sorted(model.wire.ranges) == [(0, PIECE), (PIECE, 2 * PIECE), (2 * PIECE, size)]


# Connections that break


@pytest.mark.parametrize("seed", range(2))
def test_a_connection_that_is_cut_at_any_byte_goes_on_there(model, seed):
    model.write("large", noise(seed, PIECE + 3 * MEBI))
    for number in range(20):
        model.write(f"small/{number}", noise(number, 200_000))
    model.wire.cut_after = random_cuts(seed, 50_000, 6 * MEBI)
    attempts = 1
    while (outcome := model.run()).code:
        assert "the connection ended" in outcome.errors, outcome.errors
        attempts += 1
    model.check()
    assert model.wire.cuts > 5
    assert model.wire.sent < model.size + (len(model.wire.ranges) + attempts * 4) * OVERHEAD, "nothing came twice"


def test_an_attempt_that_failed_is_gone_on_with(model):
    model.write("a", noise(1, 5 * MEBI))
    cuts = iter([3 * MEBI // 4, 0, 0, 0])
    model.wire.cut_after = lambda: next(cuts, None)
    outcome = model.run()
    assert outcome.code == 1 and outcome.errors.startswith("transient: reading "), outcome.errors
    assert (model.wire.cuts, model.records()) == (4, 1)
    model.ok()
    assert model.wire.sent < model.size + 10 * OVERHEAD


# Processes that end


def test_a_process_that_was_killed_is_gone_on_with(model):
    model.write("large", noise(1, 3 * PIECE))
    model.wire.held_from = 2 * PIECE
    program = model.start()
    wait_until(lambda: model.records() == 2, "records of both pieces")
    program.kill()
    program.communicate()
    first, model.wire.sent, model.wire.held_from = model.wire.sent, 0, None
    assert first < 2 * PIECE + 4 * OVERHEAD
    model.wire.ranges.clear()
    model.ok()
    assert model.wire.ranges == [(2 * PIECE, 3 * PIECE)]
    assert model.wire.sent < PIECE + 4 * OVERHEAD


def test_killed_at_any_moment_it_never_ends_with_wrong_bytes(s3_model):
    model, numbers = s3_model, random.Random(5)
    model.write("large", noise(1, 2 * PIECE + 1))
    for number in range(60):
        model.write(f"d{number % 7}/{number}", noise(number, numbers.randrange(500_000)))
    killed = 0
    for _ in range(6):
        start, wanted = model.wire.sent, numbers.randrange(model.size // 4)
        program = model.start()
        wait_until(lambda: program.poll() is not None or model.wire.sent - start > wanted, "bytes")
        program.kill()
        killed += program.poll() is None
        program.communicate()
        if numbers.random() < 0.3 and (model.folder / JOURNAL).exists():
            os.truncate(model.folder / JOURNAL, numbers.randrange((model.folder / JOURNAL).stat().st_size + 1))
    assert killed > 0
    model.ok()


def test_it_stops_when_it_is_told_and_goes_on_later(s3_model):
    model = s3_model
    model.write("large", noise(1, PIECE))
    model.wire.pause = 0.005
    program = model.start()
    wait_until(lambda: model.wire.sent > 2 * MEBI, "bytes")
    output, errors = program.communicate(b"\n", timeout=5)
    assert program.returncode == 1 and errors == b"transient: no longer wanted\n", errors
    came = int(re.match(rb"(\d+) of", output)[1])
    assert came > MEBI
    model.wire.pause, model.wire.sent = 0, 0
    model.ok()
    # And what the wire had in its hands.
    assert model.wire.sent < model.size - came + MEBI


# Objects that change


def test_an_object_that_is_replaced_meanwhile_comes_as_it_is_now_and_the_others_once(model):
    model.write("large", noise(1, 2 * PIECE))
    model.write("other", noise(2, 5 * MEBI))
    model.wire.held_from = PIECE
    program = model.start()
    wait_until(lambda: model.records() == 2, "records of the first piece and the other file")
    model.write("large", noise(3, 2 * PIECE))
    model.wire.release()
    output, errors = program.communicate(timeout=50)
    assert program.returncode == 0, errors
    assert output == f"{model.size} of {model.size} bytes\n".encode()
    model.check()
    # A store that sends the other version, instead of refusing, has filled buffers with it.
    assert model.wire.sent < 3 * PIECE + 5 * MEBI + 8 * MEBI


def test_an_object_that_was_replaced_between_two_attempts_comes_anew(model):
    model.write("large", noise(1, 2 * PIECE))
    model.write("gone/file", b"x" * MEBI)
    model.wire.held_from = PIECE
    program = model.start()
    wait_until(lambda: model.records() == 2, "records")
    program.kill()
    program.communicate()
    model.wire.held_from = None
    model.write("large", noise(2, 2 * PIECE))
    outcome = model.run()
    assert outcome.code == 0, outcome.errors
    model.check()


# Bytes that change


def test_a_file_that_is_not_what_was_stored_fails_the_model_and_comes_again_alone(gcs_model):
    model = gcs_model
    model.write("good", noise(1, MEBI))
    model.write("spoiled", b"as it was stored")
    model.write("large", noise(2, PIECE + 1))
    model.wire.change = (b"as it was stored", b"as it was st0red")
    outcome = model.run()
    assert re.match(
        r'transient: the file "spoiled" came with the CRC-32C [0-9a-f]{8}, the store has [0-9a-f]{8}\n',
        outcome.errors,
    ), outcome.errors
    model.wire.change, model.wire.sent = None, 0
    model.ok()
    assert model.wire.sent < 2 * OVERHEAD


def test_the_sum_of_a_file_that_was_gone_on_with_is_that_of_all_of_it(gcs_model):
    model = gcs_model
    model.write("large", noise(1, 2 * PIECE))
    cuts = iter([5 * MEBI, 7 * MEBI] + [0] * 8)
    model.wire.cut_after = lambda: next(cuts, None)
    while model.run().code:
        assert model.records() > 0
    model.check()
    assert model.wire.cuts > 2


# What was in the folder


def test_what_is_not_of_the_model_is_removed_and_nothing_is_written_through_a_link(s3_model, tmp_path):
    model, outside = s3_model, tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"mine")
    for path in ["a", "d/b", "e/f/g"]:
        model.write(path, path.encode())
    model.folder.mkdir()
    (model.folder / "a").symlink_to(outside / "file")
    (model.folder / "d").symlink_to(outside)
    (model.folder / "e").write_bytes(b"a file where a folder belongs")
    (model.folder / "left/over").mkdir(parents=True)
    (model.folder / "left/over/file").write_bytes(b"x")
    (model.folder / JOURNAL).write_bytes(b"not a journal")
    model.ok()
    assert tree(outside) == {"file": b"mine"}
    assert not (model.folder / "left").exists()


def test_names_that_no_folder_can_hold_together_are_refused(s3_model):
    s3_model.write("a", b"file")
    s3_model.write("a/b", b"file in a folder")
    outcome = s3_model.run()
    assert outcome.errors.startswith('refused: "a" can\'t be both a file and a folder of other files'), outcome.errors
    assert not s3_model.folder.exists()


def test_one_archive_is_unpacked_and_one_among_others_is_a_file(s3_model):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name in ("model.joblib", ".kserve-agent/x", "m.tgz"):
            entry = tarfile.TarInfo(name)
            entry.size = 1
            tar.addfile(entry, io.BytesIO(b"x"))
    s3_model.write("m.tgz", packed.getvalue())
    outcome = s3_model.client.run(f"{s3_model.place.url}/m/m.tgz", s3_model.folder)
    assert outcome.code == 0, outcome.errors
    files = {"model.joblib": b"x", ".kserve-agent": None, ".kserve-agent/x": b"x", "m.tgz": b"x"}
    assert tree(s3_model.folder) == files
    shutil.rmtree(s3_model.folder)
    s3_model.ok()


# Disks


@pytest.fixture
def small_volume(tmp_path):
    with volume_of(8 * MEBI, tmp_path / "volume") as volume:
        yield volume


def test_a_model_that_the_volume_has_no_room_for_is_not_begun(s3_model, small_volume):
    s3_model.folder = small_volume / "model"
    s3_model.write("a", noise(1, 9 * MEBI))
    outcome = s3_model.run()
    said = re.fullmatch(
        r"transient: no space for the model: it needs (\d+) bytes more, the volume has (\d+) free\n",
        outcome.errors,
    )
    assert said and int(said[1]) == 9 * MEBI and int(said[2]) <= 8 * MEBI, outcome.errors
    assert s3_model.wire.ranges == []


def test_a_volume_that_others_fill_meanwhile_is_a_failure_that_names_the_file(s3_model, small_volume):
    model = s3_model
    model.folder = small_volume / "model"
    model.write("a", noise(1, 4 * MEBI))
    model.wire.held_from = 0
    program = model.start()
    wait_until(lambda: model.wire.ranges, "request")
    with (small_volume / "others").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 5 * MEBI)
    model.wire.release()
    _, errors = program.communicate(timeout=50)
    assert program.returncode == 1
    assert errors.startswith(b'transient: the file "a": No space left on device'), errors
    (small_volume / "others").unlink()
    model.ok()
