"""What is in the image, and what is not (SPEC I1)."""

import os
import re
import stat
import struct
import tarfile

from builder import CERTIFICATES, REVISION, ROOT, SOURCE

MEGABYTE = 1_000_000
PT_DYNAMIC, PT_INTERP, PT_GNU_STACK, PT_GNU_RELRO = 2, 3, 0x6474E551, 0x6474E552
DT_NEEDED = 1
PF_X = 1


def files(tree):
    """Every entry of the tree that is not a folder."""
    return {path.relative_to(tree).as_posix(): path for path in tree.rglob("*") if not path.is_dir()}


def segments(binary):
    """The program headers of a 64-bit ELF file: type, flags, content."""
    assert binary[:5] == b"\x7fELF\x02"
    offset, size, count = (*struct.unpack_from("<Q", binary, 32), *struct.unpack_from("<HH", binary, 54))
    for at in range(offset, offset + size * count, size):
        kind, flags, start, _, _, length = struct.unpack_from("<IIQQQQ", binary, at)
        yield kind, flags, binary[start : start + length]


def test_it_holds_the_binary_accounts_and_certificates_and_nothing_else(tree):
    assert set(files(tree)) == {"kserve-agent", "etc/passwd", "etc/group", CERTIFICATES.as_posix()}
    assert (tree / CERTIFICATES).stat().st_size > 100_000


def test_the_dockerfile_adds_one_file_to_its_base(base, image):
    below, above = base.layers(), image.layers()
    assert len(above) == len(below) + 1
    (added,) = above[-1]
    assert (added.name, added.type, added.mode & 0o7777) == ("kserve-agent", tarfile.REGTYPE, 0o755)
    assert (added.uid, added.gid) == (0, 0), "its own user must not be able to change it"


def test_nothing_but_the_binary_can_be_run_so_there_is_no_shell(tree):
    programs = {
        name
        for name, path in files(tree).items()
        if path.stat().st_mode & 0o111 or path.read_bytes()[:2] in (b"#!", b"\x7fE")
    }
    assert programs == {"kserve-agent"}


def test_nothing_gives_its_user_more_rights(tree):
    for path in tree.rglob("*"):
        mode = path.lstat().st_mode
        assert not mode & (stat.S_ISUID | stat.S_ISGID), path
        assert not mode & stat.S_IWOTH or mode & stat.S_ISVTX, path
        assert "security.capability" not in os.listxattr(path), path


def test_it_and_the_binary_are_no_larger_than_promised(tree):
    assert sum(path.stat().st_size for path in files(tree).values()) <= 8.5 * MEGABYTE
    assert (tree / "kserve-agent").stat().st_size <= 6.5 * MEGABYTE


def test_the_binary_is_static(tree):
    kinds = {kind: content for kind, _, content in segments((tree / "kserve-agent").read_bytes())}
    assert PT_INTERP not in kinds
    tags = [tag for tag, _ in struct.iter_unpack("<QQ", kinds.get(PT_DYNAMIC, b""))]
    assert DT_NEEDED not in tags


def test_the_binary_has_no_writable_code_and_seals_its_tables(tree):
    found = {kind: flags for kind, flags, _ in segments((tree / "kserve-agent").read_bytes())}
    assert not found[PT_GNU_STACK] & PF_X
    assert PT_GNU_RELRO in found
    assert struct.unpack_from("<H", (tree / "kserve-agent").read_bytes(), 16) == (3,), "not position independent"


def test_the_binary_names_no_folder_of_the_machine_that_built_it(tree):
    sources = re.findall(rb"[\w./~ -]*\.rs\b", (tree / "kserve-agent").read_bytes())
    assert len(sources) > 50
    home = os.path.expanduser("~").encode()
    assert not [one for one in sources if b"cargo" in one or b"rustup" in one or home in one or bytes(ROOT) in one]


def test_the_binary_is_byte_for_byte_what_make_release_builds(tree, release):
    assert (tree / "kserve-agent").read_bytes() == release.read_bytes()


def test_it_runs_the_binary_as_a_user_that_is_a_number(image):
    assert image.config["Entrypoint"] == ["/kserve-agent"]
    assert not image.config.get("Cmd")
    assert image.config["User"] == "65532:65532"


def test_it_declares_the_ports_for_requests_and_for_metrics(image):
    assert set(image.config["ExposedPorts"]) == {"9081/tcp", "9089/tcp"}


def test_its_labels_say_what_it_is_and_what_it_was_built_from(image):
    labels = {k.removeprefix("org.opencontainers.image."): v for k, v in image.config["Labels"].items()}
    version = re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]
    assert labels["title"] == "kserve-agent"
    assert labels["description"].startswith("Sidecar proxy for model servers")
    assert labels["licenses"] == "Apache-2.0"
    assert (labels["version"], labels["revision"], labels["source"]) == (version, REVISION, SOURCE)
