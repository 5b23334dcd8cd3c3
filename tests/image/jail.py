"""Runs a program as a container would: `jail.py TREE UID NETWORK PROGRAM ARGUMENT…`.

TREE is its whole, read-only root folder; it is process 1 of UID and that group, without any other group, without a
capability and without a way to get one. `unshare` has made the namespaces. NETWORK is `own`, where there is only a
loopback, still to be turned on, or `host`.
"""

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import sys

PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
SIOCSIFFLAGS = 0x8914
IFF_UP = 1


def main(tree, uid, network, *command):
    if network == "own":
        with socket.socket() as any_socket:
            fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))
    subprocess.run(["mount", "--bind", tree, tree], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro,nosuid,nodev", tree], check=True)
    os.chroot(tree)
    os.chdir("/")
    libc = ctypes.CDLL(None, use_errno=True)
    capability = 0
    while libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0:
        capability += 1
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        sys.exit("no_new_privs can't be set")
    os.setgroups([])
    os.setgid(int(uid))
    os.setuid(int(uid))
    os.execve(command[0], command, dict(os.environ))


main(*sys.argv[1:])
