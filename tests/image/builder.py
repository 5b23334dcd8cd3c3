"""Builds the image with the project's own Dockerfile where no registry can be reached.

Its two base images are made here, from scratch. The build stage's is an empty tree into which this machine's toolchain
is mounted, so nothing is copied but the sources. The runtime's holds what distroless/static does: accounts,
certificates, a few folders.
"""

import json
import os
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
CERTIFICATES = Path("etc/ssl/certs/ca-certificates.crt")
# Where a program and the linker look for what they need; links on a Debian of today, folders on others.
SYSTEM = ("bin", "lib", "lib32", "lib64", "usr", "etc/alternatives")
REVISION = "0123456789abcdef0123456789abcdef01234567"
SOURCE = "https://git.example/kserve-agent"
NAME = "localhost/kserve-agent:test"


class Builder:
    """buildah with a storage of its own in `folder`, which needs no overlay, no runtime and no daemon.

    podman shares the storage. Its limits are this process's: a higher one may not be allowed.
    """

    def __init__(self, folder):
        self.folder = folder
        storage = folder / "storage.conf"
        storage.write_text(
            f'[storage]\ndriver = "vfs"\ngraphroot = "{folder}/storage"\nrunroot = "{folder}/run"\n'
        )
        containers = folder / "containers.conf"
        containers.write_text(
            f'[containers]\ndefault_ulimits = []\n[engine]\ntmp_dir = "{folder}/podman"\ncgroup_manager = "cgroupfs"\n'
            'events_logger = "none"\nruntime = "runc"\n'
        )
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("CARGO")},
            "CONTAINERS_CONF": str(containers),
            "CONTAINERS_STORAGE_CONF": str(storage),
            "BUILDAH_ISOLATION": "chroot",
            "BUILDER": "buildah",
        }

    def run(self, *command, **env):
        """What the command prints; its output is in the error when it fails."""
        done = subprocess.run(
            [str(part) for part in command],
            cwd=ROOT,
            env={**self.env, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{command} ended with {done.returncode}:\n{done.stdout}")
        return done.stdout

    def base(self, name, tree, *instructions):
        """An image of `tree`."""
        recipe = self.folder / f"{name}.Dockerfile"
        recipe.write_text("\n".join(["FROM scratch", "COPY . /", *instructions, ""]))
        self.run("buildah", "build", "--tag", f"localhost/{name}", "--file", recipe, tree)
        return f"localhost/{name}"

    def image(self):
        """`.ci/image`, as `make image` calls it; what the build printed, the runtime base, the image."""
        volumes, tree = toolchain(self.folder / "build-base")
        paths = ("/rust/toolchain/bin", "/usr/bin", "/bin")
        build = self.base(
            "build-base",
            tree,
            f"ENV PATH={':'.join(paths)} CARGO_HOME=/rust/cargo CARGO_NET_OFFLINE=true",
        )
        runtime = self.base("runtime-base", certificates(self.folder / "runtime-base"))
        log = self.run(
            ".ci/image", NAME, *(f"--volume={volume}" for volume in volumes),
            BUILD_IMAGE=build, RUNTIME_IMAGE=runtime, REVISION=REVISION, SOURCE=SOURCE,
        )  # fmt: skip
        return log, self.load(runtime), self.load(NAME)

    def load(self, name):
        """The image of that name."""
        folder = self.folder / "oci" / name.replace("/", "-").replace(":", "-")
        folder.parent.mkdir(exist_ok=True)
        self.run("buildah", "push", name, f"oci:{folder}")
        return Image(folder)


def toolchain(tree):
    """The volumes that bring cargo and the C compiler of this machine, and the tree that they are mounted into."""
    volumes = []
    tree.mkdir()

    def mount(source, target):
        (tree / target).mkdir(parents=True)
        volumes.append(f"{source}:/{target}:ro")

    for name in SYSTEM:
        path = Path("/", name)
        if path.is_symlink():
            (tree / name).symlink_to(path.readlink())
        elif path.is_dir():
            mount(path, name)
    subprocess.run(["cargo", "fetch", "--quiet", "--locked"], cwd=ROOT, check=True)
    sysroot = subprocess.run(["rustc", "--print", "sysroot"], capture_output=True, text=True, check=True)
    mount(sysroot.stdout.strip(), "rust/toolchain")
    mount(Path(os.environ.get("CARGO_HOME", "~/.cargo")).expanduser() / "registry", "rust/cargo/registry")
    (tree / "tmp").mkdir(mode=0o1777)
    return volumes, tree


def certificates(tree):
    """What distroless/static holds that the agent could use. Its user is root, so that the Dockerfile has to say so."""
    for folder, mode in (("etc/ssl/certs", 0o755), ("home/nonroot", 0o700), ("root", 0o700), ("tmp", 0o1777)):
        (tree / folder).mkdir(parents=True)
        (tree / folder).chmod(mode)
    (tree / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n"
    )
    (tree / "etc/group").write_text("root:x:0:\nnonroot:x:65532:\n")
    shutil.copy(Path("/", CERTIFICATES), tree / CERTIFICATES)
    return tree


@dataclass
class Image:
    """An image in OCI's layout, read without the help of what has built it."""

    layout: Path

    @property
    def config(self):
        return self._json(self._manifest["config"])["config"]

    def layers(self):
        """Each layer's entries, the lowest layer first."""
        return [self._open(layer).getmembers() for layer in self._manifest["layers"]]

    def unpack(self, folder):
        """The root folder that a container of the image has."""
        for layer in self._manifest["layers"]:
            with self._open(layer) as archive:
                assert not any(Path(entry.name).name.startswith(".wh.") for entry in archive), "a file was removed"
                archive.extractall(folder, numeric_owner=True, filter="fully_trusted")
        return folder

    @property
    def _manifest(self):
        (manifest,) = json.loads((self.layout / "index.json").read_text())["manifests"]
        return self._json(manifest)

    def _json(self, descriptor):
        return json.loads(self._blob(descriptor).read_text())

    def _open(self, descriptor):
        return tarfile.open(self._blob(descriptor))

    def _blob(self, descriptor):
        return self.layout / "blobs" / descriptor["digest"].replace(":", "/")
