"""Runs a program under a seccomp filter that answers io_uring_setup with an error: seccomp.py ERRNO PROGRAM [ARGUMENT]..."""

import ctypes
import os
import struct
import sys

IO_URING_SETUP = 425  # the same number on every architecture
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD_NUMBER, IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ANSWER_ERRNO, ALLOW = 0x00050000, 0x7FFF0000


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_void_p)]


errno = int(sys.argv[1])
steps = b"".join(
    struct.pack("HBBI", *step)
    for step in [
        (LOAD_NUMBER, 0, 0, 0),
        (IF_EQUAL, 0, 1, IO_URING_SETUP),
        (RETURN, 0, 0, ANSWER_ERRNO | errno),
        (RETURN, 0, 0, ALLOW),
    ]
)
memory = ctypes.create_string_buffer(steps, len(steps))
program = Program(len(steps) // 8, ctypes.cast(memory, ctypes.c_void_p))
libc = ctypes.CDLL(None, use_errno=True)
for call in [(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0)]:
    if libc.prctl(*call) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
os.execv(sys.argv[2], sys.argv[2:])
