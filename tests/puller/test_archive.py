"""Archives as Python's libraries make them, and those that the same libraries were made to lie for."""

import bz2
import gzip
import io
import os
import random
import struct
import tarfile
import threading
import zipfile
import zlib

import pytest
from server import Files, served

WEIGHTS = random.Random(3).randbytes(700_000)
MODEL = {
    "config.json": b"{}",
    "1/model.bin": WEIGHTS,
    "1/" + "long-" * 40 + "/" + "name-" * 30 + ".txt": b"long",
    "größe/模型.txt": "ü".encode(),
    "empty": b"",
}
# What a header of 512 bytes can name.
SHORT = {name: text for name, text in MODEL.items() if len(name) < 100}


def tar(entries, mode="w", **options):
    """Of contents by names, or of `TarInfo`s with theirs."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode, **options) as archive:
        for name, content in entries.items() if isinstance(entries, dict) else entries:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def info(name, kind=tarfile.REGTYPE, target="", mode=0o644):
    one = tarfile.TarInfo(name)
    one.type, one.linkname, one.mode = kind, target, mode
    return one, b""


class Unseekable(io.BytesIO):
    """Behind which a zip's local headers can't know sizes."""

    def seekable(self):
        return False

    def seek(self, *_):
        raise io.UnsupportedOperation

    tell = seek


def zipped(entries, packed=None, method=zipfile.ZIP_DEFLATED, long=False):
    packed = packed or io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, content in entries.items() if isinstance(entries, dict) else entries:
            name = name if isinstance(name, zipfile.ZipInfo) else zipfile.ZipInfo(name)
            name.compress_type = method
            with archive.open(name, "w", force_zip64=long) as file:
                file.write(content)
    return packed.getvalue()


ARCHIVES = {
    "ustar.tar": lambda: tar(SHORT, format=tarfile.USTAR_FORMAT),
    "gnu.tar": lambda: tar(MODEL, format=tarfile.GNU_FORMAT),
    "pax.tar": lambda: tar(MODEL, format=tarfile.PAX_FORMAT, pax_headers={"comment": "global"}),
    "pax.tar.gz": lambda: tar(MODEL, "w:gz"),
    "gnu.tgz": lambda: tar(MODEL, "w:gz", format=tarfile.GNU_FORMAT),
    "two-members.tar.gz": lambda: gzip.compress(tar(MODEL)[:1000]) + gzip.compress(tar(MODEL)[1000:]),
    "stored.zip": lambda: zipped(MODEL, method=zipfile.ZIP_STORED),
    "deflated.zip": lambda: zipped(MODEL),
    "long.zip": lambda: zipped(MODEL, long=True),
    "streamed.zip": lambda: zipped(MODEL, Unseekable()),
}


def at(http_server, name, packed, **attributes):
    server = served({f"/{name}": packed}, **attributes)
    return f"http://127.0.0.1:{http_server(server)}/{name}", server


@pytest.mark.parametrize("name", ARCHIVES)
@pytest.mark.parametrize("cuts", [[], [100, 30_000, 200_000]], ids=["whole", "cut"])
def test_an_archive_is_unpacked(puller, http_server, name, cuts):
    packed = ARCHIVES[name]()
    uri, server = at(http_server, name, packed, cuts=list(cuts))
    assert puller.until_ok(uri) == len(cuts)
    files = puller.files()
    assert files == (SHORT if name == "ustar.tar" else MODEL)
    assert sum(server.sent) == len(packed), "no byte came twice"


@pytest.mark.parametrize("content_type, packed", [
    ("application/zip", lambda: zipped(MODEL)),
    ("application/x-tar", lambda: tar(MODEL)),
    ("application/gzip", lambda: tar(MODEL, "w:gz")),
])
def test_an_archive_is_known_by_its_type(puller, http_server, content_type, packed):
    server = served({"/download/": packed()}, content_type=content_type)
    puller.ok(f"http://127.0.0.1:{http_server(server)}/download/?id=7")
    assert puller.files() == MODEL


def test_a_model_that_happens_to_be_a_zip_stays_one(puller, http_server):
    packed = zipped(MODEL)
    puller.ok(at(http_server, "model.pt", packed)[0])
    assert puller.files() == {"model.pt": packed}


def test_modes_and_links_are_kept_as_far_as_they_are_safe(puller, http_server):
    entries = [
        info("./", tarfile.DIRTYPE, mode=0o700),
        info("./d/", tarfile.DIRTYPE, mode=0o000),
        info("./d/run", mode=0o4700),
        info("./d/link", tarfile.SYMTYPE, "../f"),
        (tarfile.TarInfo("f"), b"text"),
        info("d/hard", tarfile.LNKTYPE, "./f"),
    ]
    puller.ok(at(http_server, "m.tar.gz", tar(entries, "w:gz"))[0])
    assert puller.files() == {"d/run": b"", "d/link": "-> ../f", "f": b"text", "d/hard": b"text"}
    assert [puller.mode(name) for name in ["d", "d/run", "f"]] == ["0o755", "0o744", "0o644"]


def test_a_link_in_a_zip_is_one(puller, http_server):
    link = zipfile.ZipInfo("d/link")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    puller.ok(at(http_server, "m.zip", zipped([("f", b"text"), (link, b"../f")]))[0])
    assert puller.files() == {"f": b"text", "d/link": "-> ../f"}


def test_a_tar_is_unpacked_while_it_streams(puller, http_server):
    class Halved(Files):
        def write(self, content):
            self.wfile.write(content[:400_000])
            self.wfile.flush()
            assert self.seen.wait(30), "the first file was not there before the rest came"
            super().write(content[400_000:])

    seen = threading.Event()
    packed = tar({"first": b"1", "then": random.Random(4).randbytes(800_000)}, "w:gz")
    server = served({"/m.tgz": packed}, Halved, seen=seen)
    program = puller.start(f"http://127.0.0.1:{http_server(server)}/m.tgz")
    puller.wait_for_size("first", 1)
    seen.set()
    program.communicate(timeout=30)
    assert program.returncode == 0 and set(puller.files()) == {"first", "then"}


def test_what_is_called_an_archive_and_is_none_is_refused_and_comes_anew(puller, http_server):
    page = b"<html>Please log in</html>"
    for name, content in [("m.zip", page), ("m.tar", bz2.compress(b"x" * 9999)), ("m.tgz", b"")]:
        uri, server = at(http_server, name, content)
        assert puller.refused(uri) == "it is called an archive, and is no zip, tar or tar.gz"
        puller.refused(uri)
        assert [asked[1] for asked in server.asked] == [None, None]


def test_a_gzip_of_something_else_is_refused(puller, http_server):
    reason = puller.refused(at(http_server, "m.tar.gz", gzip.compress(b"hello" * 1000))[0])
    assert reason.startswith("the archive can't be read: ")


# Hostile ones


def evil_zip(name, content=b"", mode=0o100644):
    one = zipfile.ZipInfo(name)
    one.create_system, one.external_attr = 3, mode << 16
    return zipped([(one, content)])


HOSTILE = {
    "absolute": ([info("/tmp/evil")], r'the entry "/tmp/evil": the name is absolute'),
    "climbing": ([info("a/../../evil")], r'the entry "a/../../evil": the name leads out of the folder'),
    "newline": ([info("a\nb")], r'the entry "a\nb": the name holds a control character'),
    "invalid": ([info("a\udcffb")], r'the entry "a\xffb": the name is not UTF-8'),
    "long": ([info("a/" * 600)], None),
    "own": ([info(".kserve-agent-part")], r"the entry \".kserve-agent-part\": the name is a name of the agent's own"),
    "absolute link": ([info("l", tarfile.SYMTYPE, "/etc")], r"""the entry "l": the link's target "/etc" is absolute"""),
    "climbing link": ([info("d/l", tarfile.SYMTYPE, "../..")],
                      r"""the entry "d/l": the link's target "../.." leads out of the folder"""),
    "through a link": ([info("l", tarfile.SYMTYPE, "."), info("l/evil")],
                       r'the entry "l/evil": it is below a file or a link'),
    "two links": ([info("a/b/up", tarfile.SYMTYPE, "../.."), info("out", tarfile.SYMTYPE, "a/b/up/..")],
                  r"""the entry "out": the link's target "a/b/up/.." leads out of the folder"""),
    "hard link": ([info("h", tarfile.LNKTYPE, "../../etc/passwd")],
                  r"""the entry "h": the link's target "../../etc/passwd" leads out of the folder"""),
    "hard link to a link": ([info("l", tarfile.SYMTYPE, "x"), info("h", tarfile.LNKTYPE, "l")],
                            r"""the entry "h": the link's target "l" is no file of the archive before it"""),
    "device": ([info("null", tarfile.CHRTYPE)], r'the entry "null": it is a device'),
    "block device": ([info("sda", tarfile.BLKTYPE)], r'the entry "sda": it is a device'),
    "pipe": ([info("pipe", tarfile.FIFOTYPE)], r'the entry "pipe": it is a named pipe'),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_hostile_tar_is_refused_with_the_entry_named(puller, http_server, name, mode):
    entries, reason = HOSTILE[name]
    honest = (tarfile.TarInfo("honest"), b"text")
    found = puller.refused(at(http_server, "m.tar", tar([honest, *entries], mode))[0])
    assert reason is None or found == reason.replace('\\"', '"')
    assert len(found) < 500


@pytest.mark.parametrize("name, content, mode, reason", [
    ("/tmp/evil", b"", 0o100644, "the name is absolute"),
    ("../evil", b"", 0o100644, "the name leads out of the folder"),
    ("l", b"/etc", 0o120777, "the link's target \"/etc\" is absolute"),
    ("l", b"..", 0o120777, 'the link\'s target ".." leads out of the folder'),
    ("null", b"", 0o020666, "it is no file, folder or link"),
])
def test_a_hostile_zip_is_refused_with_the_entry_named(puller, http_server, name, content, mode, reason):
    found = puller.refused(at(http_server, "m.zip", evil_zip(name, content, mode))[0])
    assert found == f'the entry "{name}": {reason}'


def test_a_zip_that_lies_is_refused(puller, http_server):
    honest = zipped({"a": b"text" * 100})
    directory = honest.index(b"PK\x01\x02")
    end = honest.index(b"PK\x05\x06")
    lies = {
        "a checksum": (directory + 16, b"\0\0\0\0"),
        "a smaller size": (directory + 24, struct.pack("<I", 7)),
        "a larger size": (directory + 24, struct.pack("<I", 401)),
        "encrypted": (directory + 8, b"\1\0"),
        "another method": (directory + 10, struct.pack("<H", 99)),
        "another place": (directory + 42, struct.pack("<I", 5)),
        "more entries": (end + 8, b"\2\0\2\0"),
        "fewer entries": (end + 8, b"\0\0\0\0"),
        "a directory elsewhere": (end + 16, struct.pack("<I", 1 << 31)),
    }
    for what, (place, text) in lies.items():
        packed = honest[:place] + text + honest[place + len(text) :]
        assert puller.refused(at(http_server, "m.zip", packed)[0]), what


TEN_GB = 10 * 10**9
ZEROS = bytes(10**7)


def repeated(head, tail):
    """A gzip of `head`, 10 GB of zeros and `tail`, in members."""
    return gzip.compress(head) + gzip.compress(ZEROS) * 1000 + gzip.compress(tail)


def test_ten_gigabytes_in_ten_megabytes_of_tar_are_refused_before_they_are_written(puller, http_server):
    header = tarfile.TarInfo("zeros")
    header.size = TEN_GB
    packed = repeated(header.tobuf(), bytes(1024))
    assert len(packed) < 10**7
    reason = puller.refused(at(http_server, "m.tar.gz", packed)[0])
    assert reason.startswith('the entry "zeros": the archive unpacks to more than ')
    assert "1000 times its size and 100 GiB are allowed" in reason


def test_ten_gigabytes_in_ten_megabytes_of_zip_are_refused_before_they_are_written(puller, http_server):
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = deflate.compress(ZEROS) + deflate.flush(zlib.Z_FULL_FLUSH)
    data = block * 1000 + zlib.compressobj(9, zlib.DEFLATED, -15).flush()
    packed = zipped({"zeros": b"x"}, long=True)
    # The one entry's data, and its size in the directory.
    start, end = packed.index(b"PK\x01\x02"), packed.index(b"PK\x05\x06")
    local, directory, record = packed[:start], bytearray(packed[start:end]), bytearray(packed[end:])
    name_at = 46
    extra = struct.pack("<HHQQ", 1, 16, TEN_GB, len(data))
    struct.pack_into("<II", directory, 20, 0xFFFFFFFF, 0xFFFFFFFF)
    struct.pack_into("<H", directory, 30, len(extra))
    directory[name_at + 5 :] = extra
    head = local[: 30 + 5 + struct.unpack_from("<H", local, 28)[0]]
    struct.pack_into("<II", record, 12, len(directory), len(head) + len(data))
    bomb = head + data + bytes(directory) + bytes(record)
    assert len(bomb) < 10**7
    with zipfile.ZipFile(io.BytesIO(bomb)) as archive:
        assert archive.getinfo("zeros").file_size == TEN_GB
    reason = puller.refused(at(http_server, "m.zip", bomb)[0])
    assert reason.startswith("the archive unpacks to more than ")


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE])
def test_a_gigantic_header_is_not_held_in_memory(puller, http_server, kind):
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = kind, TEN_GB
    packed = repeated(header.tobuf(format=tarfile.GNU_FORMAT), tar({"a": b""}))
    reason = puller.refused(at(http_server, "m.tar.gz", packed)[0])
    assert reason == "the archive can't be read: headers of over 1048576 bytes"


def test_a_million_entries_are_refused(puller, http_server):
    header = tarfile.TarInfo("d")
    header.type = tarfile.DIRTYPE
    packed = gzip.compress(header.tobuf() * 1000) * 1000
    reason = puller.refused(at(http_server, "m.tar.gz", packed)[0])
    assert reason == 'the entry "d/": the archive has more than 100000 entries'


def test_a_full_disk_is_told_and_another_attempt_made(puller, http_server):
    """As large as a file may be, which is what a process can be made to feel of a full disk without being root."""
    uri, _ = at(http_server, "m.tar", tar({"weights": bytes(3_000_000)}))
    outcome = puller.run(uri, most_file_bytes=1_000_000)
    assert outcome.code == 1 and outcome.errors.startswith("transient: ") and "File too large" in outcome.errors
    puller.ok(uri)
    assert os.path.getsize(puller.folder / "weights") == 3_000_000


def test_a_length_that_is_a_lie_allows_no_more_than_what_has_come(puller, http_server):
    size = 300_000_000
    header = bytearray(tarfile.TarInfo("holes").tobuf(tarfile.GNU_FORMAT))
    # A file that is nothing but a hole, as GNU tar packs it.
    header[156:157] = b"S"
    header[386:410] = b"%011o\0%011o\0" % (size, 0)
    header[483:495] = b"%011o\0" % size
    header[148:156] = b"%06o\0 " % sum(header[:148] + b" " * 8 + header[156:])

    class Liar(Files):
        def send_header(self, name, value):
            super().send_header(name, str(1 << 30) if name == "Content-Length" else value)

    port = http_server(served({"/m.tar": bytes(header) + bytes(1024)}, Liar))
    reason = puller.refused(f"http://127.0.0.1:{port}/m.tar")
    assert reason == 'the entry "holes": the archive unpacks to more than 1000 times what has come of it, 512 bytes'
