"""Models of a Hub, served here: all files of one commit, each checked, each gone on with."""

import random
from itertools import repeat

import pytest
from hub import COMMIT, TOKEN, Hub, at_once, git_oid

RANDOM = random.Random(5)
MODEL = {
    "config.json": b'{"model_type": "bert"}',
    "d/with a space?.txt": b"text",
    "d/größe.bin": RANDOM.randbytes(200_000),
    "d/empty": b"",
    "model-1.safetensors": RANDOM.randbytes(1_500_000),
    "model-2.safetensors": RANDOM.randbytes(700_000),
    "copy.safetensors": b"",
}
MODEL["copy.safetensors"] = MODEL["model-2.safetensors"]


def test_all_files_of_a_model_come(puller, http_server):
    hub = Hub(http_server, MODEL)
    size = sum(map(len, MODEL.values()))
    outcome = puller.ok("hf://o/m", **hub.env)
    assert puller.files() == MODEL and puller.mode("d/größe.bin") == "0o644"
    assert outcome.output == f"{size} of {size} bytes\n"


def test_the_token_is_for_the_hub_alone(puller, http_server):
    hub = Hub(http_server, MODEL, is_private=True)
    puller.ok("hf://o/m", HF_TOKEN=TOKEN + "\n", **hub.env)
    assert puller.files() == MODEL
    assert len(hub.network.asked) == 4
    for _, _, fields in hub.network.asked:
        assert not any(TOKEN in value for value in fields.values())


def test_without_a_token_a_private_model_is_refused(puller, http_server):
    hub = Hub(http_server, MODEL, is_private=True)
    assert puller.refused("hf://o/m", **hub.env) == 'the revision "main": 401: Repository not found'


@pytest.mark.parametrize("revision", ["v1.0", "refs/pr/1", "a" * 40])
def test_a_revision_is_made_into_a_commit_once(puller, http_server, revision):
    other = "b" * 40
    hub = Hub(http_server, MODEL, revisions={"main": COMMIT, revision: other})
    puller.ok(f"hf://o/m:{revision}", **hub.env)
    files = [path for path, _, _ in hub.api.asked if "/resolve/" in path]
    assert len(files) == len(MODEL) and all(f"/resolve/{other}/" in path for path in files)


def test_a_revision_that_is_not_there_is_named(puller, http_server):
    reason = puller.refused("hf://o/m:v9", **Hub(http_server, MODEL).env)
    assert reason == 'the revision "v9": 404: Invalid rev id'


def test_connections_that_are_cut_at_random_bytes_go_on_there(puller, http_server):
    hub = Hub(http_server, MODEL)
    pick = random.Random(6)
    hub.network.cuts = [pick.randrange(0, 100_000) for _ in range(40)]
    assert puller.until_ok("hf://o/m", **hub.env) >= 5
    assert puller.files() == MODEL
    large = sum(len(content) for content in MODEL.values() if len(content) >= 1000)
    assert sum(hub.network.sent) == large, "no byte came twice"


def test_files_come_at_once(puller, http_server):
    hub = Hub(http_server, {f"{number}.bin": b"x" for number in range(8)}, barrier=at_once(8))
    puller.ok("hf://o/m", **hub.env)


def test_a_file_that_is_not_the_commits_is_not_taken(puller, http_server):
    hub = Hub(http_server, MODEL)
    wrong = bytearray(MODEL["model-1.safetensors"])
    wrong[1_000_000] ^= 1
    hub.change("model-1.safetensors", bytes(wrong))
    outcome = puller.run("hf://o/m", **hub.env)
    assert outcome.code == 1 and outcome.errors == (
        'transient: "model-1.safetensors": what has come is not the file that the commit has: its digest is another\n'
    )
    assert puller.files() == {}
    hub.change("model-1.safetensors", MODEL["model-1.safetensors"])
    hub.network.sent.clear()
    puller.ok("hf://o/m", **hub.env)
    assert puller.files() == MODEL
    assert len(MODEL["model-1.safetensors"]) in hub.network.sent, "it came anew"


def test_a_part_that_was_damaged_on_the_disk_is_noticed(puller, http_server):
    hub = Hub(http_server, {"m": MODEL["model-1.safetensors"]})
    hub.network.cuts = [500_000]
    puller.run("hf://o/m", **hub.env)
    [part] = (puller.folder / ".kserve-agent-parts").iterdir()
    part.write_bytes(b"x" * part.stat().st_size)
    assert "its digest is another" in puller.run("hf://o/m", **hub.env).errors
    puller.ok("hf://o/m", **hub.env)
    assert puller.files() == {"m": MODEL["model-1.safetensors"]}


def test_a_later_commit_takes_over_what_is_the_same(puller, http_server):
    hub = Hub(http_server, MODEL)
    hub.network.files = {path: text for path, text in hub.network.files.items() if path != "/model-1.safetensors"}
    assert '"model-1.safetensors": localhost: 404' in puller.run("hf://o/m", **hub.env).errors
    hub.api.revisions = {"main": "d" * 40}
    hub.api.model = MODEL | {"README.md": b"new"}
    hub.change("model-1.safetensors", MODEL["model-1.safetensors"])
    had = {path.split("?")[0] for path, _, _ in hub.network.asked} - {"/model-1.safetensors"}
    hub.network.asked.clear()
    puller.ok("hf://o/m", **hub.env)
    assert puller.files() == MODEL | {"README.md": b"new"}
    again = {path.split("?")[0] for path, _, _ in hub.network.asked}
    assert had and not again & had


def test_a_path_that_would_leave_the_folder_is_refused(puller, http_server):
    for path in ["../evil", "/etc/evil", "a/../../evil", "a\nb"]:
        reason = puller.refused("hf://o/m", **Hub(http_server, {path: b"x"}).env)
        assert reason.startswith("the file ") and reason.endswith(" can't be one in a folder"), reason


def test_a_model_that_has_moved_is_followed(puller, http_server):
    hub = Hub(http_server, MODEL)

    def moved(self, path, file=hub.api.file):
        if not getattr(self, "has_moved", False):
            self.has_moved = True
            return self.redirect(f"/moved{self.path}")
        file(self, path)

    hub.api.file = moved
    puller.ok("hf://o/m", **hub.env)
    assert puller.files() == MODEL


def test_what_is_no_hub_is_told(puller, http_server):
    hub = Hub(http_server, MODEL, json=lambda self, value, fields=None: self.answer(200, b"<html>"))
    errors = puller.run("hf://o/m", **hub.env).errors
    assert errors == "transient: the answer is not what the Hub answers; HF_ENDPOINT names another one\n"


@pytest.mark.parametrize("length", [20, 1000])
def test_a_list_without_an_end_is_refused_before_it_fills_the_memory(puller, http_server, length):
    def page(self, start):
        paths = [f"{number:0{length}}" for number in range(start, start + 1000)]
        items = [self.item(path, b"") for path in paths]
        self.json(items, {"Link": f'<{self.path.split("?")[0]}?cursor={start + 1000}>; rel="next"'})

    reason = puller.refused("hf://o/m", **Hub(http_server, {}, tree=page).env)
    assert reason == "more files than a model may have: 100000, and 16777216 bytes of all their names"


@pytest.mark.parametrize(
    "items, reason",
    [
        ([("a", 1), ("b", 1), ("a", 1)], 'the list of files has "a" twice'),
        ([("a", 2**64 - 1), ("b", 2)], "its files have 18446744073709551615 bytes, 17592186044416 are allowed"),
    ],
)
def test_a_list_that_no_model_has_is_refused(puller, http_server, items, reason):
    def page(self, start):
        self.json([{"type": "file", "oid": git_oid(b"x"), "size": size, "path": path} for path, size in items])

    hub = Hub(http_server, {}, tree=page)
    assert puller.refused("hf://o/m", **hub.env) == reason
    assert not [path for path, _, _ in hub.api.asked if "/resolve/" in path]


@pytest.mark.parametrize("content", [b"x" * 1999, b"x" * 2001])
def test_an_answer_of_another_length_than_the_list_has_is_refused(puller, http_server, content):
    hub = Hub(http_server, {"m": b"x" * 2000})
    hub.change("m", content)
    assert puller.run("hf://o/m", **hub.env).errors.startswith('refused: "m": it has ')
    assert puller.files() == {}


def test_an_answer_without_an_end_is_read_as_far_as_the_list_has_it(puller, http_server):
    hub = Hub(http_server, {"m": b"x" * 2000})
    hub.network.give = lambda self, content: self.give_without_length(repeat(b"y" * 999))
    assert puller.run("hf://o/m", **hub.env).errors == 'refused: "m": it has more than 2000 bytes\n'
    [part] = (puller.folder / ".kserve-agent-parts").iterdir()
    assert part.stat().st_size <= 2000
    del hub.network.give
    assert puller.until_ok("hf://o/m", **hub.env) <= 1
    assert puller.files() == {"m": b"x" * 2000}


def test_a_model_that_finds_no_place_is_told_before_a_file_is_asked_for(puller, http_server):
    def page(self, start):
        self.json([{"type": "file", "oid": git_oid(b"x"), "size": 5 << 40, "path": path} for path in "ab"])

    hub = Hub(http_server, {}, tree=page)
    assert puller.run("hf://o/m", **hub.env).errors.startswith("transient: no space for the model: it needs 1099")
    assert not [path for path, _, _ in hub.api.asked if "/resolve/" in path]
