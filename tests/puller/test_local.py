"""Models that are on a volume already."""

import os
import tempfile
from pathlib import Path

import pytest
from test_archive import MODEL, tar, zipped


@pytest.fixture
def volume():
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


def test_a_folder_is_copied_and_left_as_it_is(puller, volume):
    for name, content in MODEL.items():
        (volume / name).parent.mkdir(parents=True, exist_ok=True)
        (volume / name).write_bytes(content)
    (volume / "run").touch(0o700)
    (volume / "config.json").chmod(0o600)
    puller.ok(f"file://{volume}")
    # And over what is there.
    puller.ok(f"file://{volume}/")
    assert puller.files() == MODEL | {"run": b""}
    assert [puller.mode(name) for name in ["1", "run", "config.json"]] == ["0o755", "0o700", "0o600"]


def test_a_mounted_configmap_is_copied_as_files(puller, volume):
    (volume / "..data").symlink_to("..2026")
    (volume / "..2026").mkdir()
    (volume / "..2026" / "model.json").write_bytes(b"{}")
    (volume / "model.json").symlink_to("..data/model.json")
    puller.ok(f"file://{volume}")
    assert puller.files()["model.json"] == b"{}"


def test_one_file_is_copied_and_an_archive_unpacked(puller, volume):
    (volume / "model.bin").write_bytes(b"weights")
    puller.ok(f"file://{volume}/model.bin")
    assert puller.files() == {"model.bin": b"weights"}
    for name, packed in [("m.zip", zipped(MODEL)), ("m.tar.gz", tar(MODEL, "w:gz"))]:
        (volume / name).write_bytes(packed)
        puller.ok(f"file://{volume}/{name}")
        assert puller.files() == MODEL


def test_what_has_no_end_or_is_no_file_is_refused(puller, volume):
    (volume / "loop").symlink_to(".")
    assert "a link to one above" in puller.run(f"file://{volume}").errors
    (volume / "loop").unlink()
    os.mkfifo(volume / "pipe")
    assert puller.run(f"file://{volume}").errors.endswith("pipe: it is no file and no folder\n")


def test_nothing_out_of_the_folder_of_sources_is_copied(puller, volume):
    """Whoever may write the list of models is not to read the agent's secrets by it."""
    for name in ("pvc", "secrets"):
        (volume / name / "model").mkdir(parents=True)
    (volume / "secrets" / "model" / "key").write_bytes(b"secret")
    source = {"MODEL_SOURCE_DIR": str(volume / "pvc")}
    for uri in [f"{volume}/secrets/model", "/proc/self/environ", f"{volume}/pvc2", "/"]:
        refused = puller.refused(f"file://{uri}", **source)
        assert "below --model-source-dir" in refused or "without . and .." in refused
    assert "without . and .." in puller.refused(f"file://{volume}/pvc/../secrets/model", **source)
    target, link = volume / "secrets", volume / "pvc" / "model" / "link"
    for to in ["/proc/self/environ", str(target / "model" / "key"), "../../secrets", "../../secrets/model/key", "/proc/self/root"]:
        link.symlink_to(to)
        assert puller.refused(f"file://{volume}/pvc/model", **source).endswith("link: a link that leads out of --model-source-dir")
        link.unlink()
    (volume / "pvc" / "whole").symlink_to(target)
    assert puller.refused(f"file://{volume}/pvc/whole/model", **source).endswith("a link that leads out of --model-source-dir")


def test_what_others_may_not_read_is_not_made_readable(puller, volume):
    for mode in (0o600, 0o640, 0o755, 0o444):
        (volume / f"{mode:o}").write_bytes(b"x")
        (volume / f"{mode:o}").chmod(mode)
    (volume / "m.zip").write_bytes(zipped(MODEL))
    (volume / "m.zip").chmod(0o600)
    puller.ok(f"file://{volume}")
    modes = [puller.mode(name) for name in ["600", "640", "755", "444", "m.zip"]]
    assert modes == ["0o600", "0o640", "0o755", "0o644", "0o600"]
    assert "is not unpacked for them" in puller.refused(f"file://{volume}/m.zip")


def test_a_name_of_the_agents_own_is_refused(puller, volume):
    (volume / ".kserve-agent-x").touch()
    assert puller.refused(f"file://{volume}").endswith("a name that is the agent's own")


def test_links_that_multiply_have_an_end(puller, volume):
    (volume / "d0").mkdir()
    for number in range(20):
        (volume / f"d{number + 1}").mkdir()
        for name in "ab":
            (volume / f"d{number + 1}" / name).symlink_to(f"../d{number}")
    assert "more than 100000 files and folders" in puller.run(f"file://{volume}").errors


def test_what_is_not_there_is_told(puller, volume):
    assert puller.refused(f"file://{volume}/nothing").endswith("No such file or directory (os error 2)")
    source = {"MODEL_SOURCE_DIR": str(volume)}
    assert puller.refused("pvc://a-claim/nothing", **source).startswith(f"{volume}/nothing: ")
