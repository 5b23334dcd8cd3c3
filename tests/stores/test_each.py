"""What every store does, each with its own server: written by one side, read by the other."""

import random

import pytest
from conftest import AWKWARD


@pytest.mark.parametrize("key", AWKWARD)
def test_what_is_put_is_there_under_its_name(place, tmp_path, key):
    content = key.encode() * 100
    (tmp_path / "file").write_bytes(content)
    place.client.ok("put", f"{place.url}/logs", key, tmp_path / "file")
    assert place.store.read(place.url, f"logs/{key}") == (content, "application/json")


def test_an_object_is_replaced_and_may_be_empty(place, tmp_path):
    (tmp_path / "full").write_bytes(b"full")
    (tmp_path / "empty").write_bytes(b"")
    for name in ["full", "empty", "full"]:
        place.client.ok("put", place.url, "k", tmp_path / name)
        assert place.store.read(place.url, "k")[0] == (tmp_path / name).read_bytes()


def test_awkward_keys_are_listed_and_read(place):
    for key in AWKWARD:
        place.store.write(place.url, f"m/{key}", key.encode())
    assert sorted(place.client.ok("list", f"{place.url}/m").paths) == sorted(key.replace('"', '\\"') for key in AWKWARD)
    assert sorted(place.client.ok("get", f"{place.url}/m").output) == sorted("".join(AWKWARD).encode())


def test_a_folder_is_not_one_that_begins_alike(place):
    for key in ["model1/a", "model1/d/b", "model10/c", "model1.txt", "model"]:
        place.store.write(place.url, key, key.encode())
    assert place.client.ok("list", f"{place.url}/model1").paths == ["a", "d/b"]
    assert place.client.ok("list", f"{place.url}/model1/").paths == ["a", "d/b"]


def test_one_object_is_found_by_its_name(place):
    for key in ["d/model.bin", "d/model.bin0", "d/model.bin0/x"]:
        place.store.write(place.url, key, key.encode())
    outcome = place.client.ok("get", f"{place.url}/d/model.bin")
    assert outcome.output == b"d/model.bin"
    assert place.client.ok("list", f"{place.url}/d/model.bin").paths == ["model.bin"]


def test_nothing_of_that_name_is_refused(place):
    place.store.write(place.url, "model10/a", b"")
    for url in [f"{place.url}/model1", f"{place.url}/model10/b"]:
        outcome = place.client.run("list", url)
        assert (outcome.code, outcome.errors) == (1, "refused: there is no object and no folder of this name\n")


def test_a_listing_of_several_pages_is_whole(place):
    keys = [f"{number:04}" for number in range(1100)]
    for key in keys:
        place.store.write(place.url, f"m/{key}", b"x")
    assert place.client.ok("list", f"{place.url}/m").paths == keys


def test_ranges_are_read_and_add_up(place):
    content = random.Random(7).randbytes(3 * 1024 * 1024 + 7)
    place.store.write(place.url, "m/big", content)
    place.store.write(place.url, "m/empty", b"")
    assert place.client.ok("get", f"{place.url}/m").output == content
    size = len(content)
    for start, end in [(0, 1), (5, 5), (1048575, 1048577), (size - 1, size), (size - 3, size + 100), (size, size + 1)]:
        outcome = place.client.ok("get", f"{place.url}/m", "big", start, end)
        assert outcome.output == content[start:end]


def test_an_object_that_changes_between_two_ranges_is_told(place):
    size = 3 * 1024 * 1024
    place.store.write(place.url, "m/big", b"a" * size)
    program = place.client.start("get", f"{place.url}/m")
    # The first range has begun, and does not end before its bytes are taken.
    assert program.stdout.read(1) == b"a"
    place.store.write(place.url, "m/big", b"b" * size)
    rest, errors = program.communicate(timeout=50)
    assert rest == b"a" * (1024 * 1024 - 1)
    assert program.returncode == 1 and errors.startswith(b'changed: reading "m/big": '), errors


def test_a_bucket_that_is_not_there_is_refused_with_the_stores_words(place, tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    url = place.url.replace("bucket-", "nobody-")
    for outcome in [place.client.run("list", url), place.client.run("put", url, "k", tmp_path / "file")]:
        assert outcome.code == 1 and outcome.errors.startswith("refused: "), outcome.errors
        assert ": 404" in outcome.errors, outcome.errors
