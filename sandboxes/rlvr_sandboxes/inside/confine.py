"""What a process gives up before it runs hostile code: its user, its limits, and most of the kernel's surface.

The container's own limits (cgroup, network, capabilities, the engine's seccomp profile) stand around this. The filter
in here is a second one, for what a Python program never needs: new namespaces, tracing, keyrings, io_uring, bpf, kernel
message queues and the like. It also makes the weaker backends, which bring no profile of their own, more equal.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
import sys
from typing import Any

PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, PR_SET_PDEATHSIG = 4, 22, 38, 1
ALLOW, KILL, EPERM, ENOSYS = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026

NAMESPACES = 0x7E020080
"""The flags of clone(2) that ask for a new namespace."""

FAMILIES = (1, 2, 10)
"""Socket families that are left: unix, IPv4, IPv6. Behind them there is no network."""

# Names and numbers of system calls: (x86_64, aarch64).
DENIED = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "acct": (163, 89),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "syslog": (103, 116),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "personality": (135, 92),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "memfd_create": (319, 279),  # memory of nobody: the kernel would kill whoever else is large
    "memfd_secret": (447, 447),
    "move_pages": (279, 239),
    "migrate_pages": (256, 238),
    "mbind": (237, 235),
    "set_mempolicy": (238, 237),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "semget": (64, 190),
    "semctl": (66, 191),
    "semop": (65, 193),
    "semtimedop": (220, 192),
    "msgget": (68, 186),
    "msgctl": (71, 187),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    "iopl": (172, -1),
    "ioperm": (173, -1),
    "modify_ldt": (154, -1),
    "uselib": (134, -1),
    "lookup_dcookie": (212, 18),
    "vhangup": (153, 58),
}
CLONE, CLONE3, SOCKET = (56, 220), (435, 435), (41, 198)
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}

libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def seccomp_filter() -> Any:
    """The filter as the kernel wants it, built once before any fork; None on a machine whose numbers are not known."""
    if sys.platform != "linux" or os.uname().machine not in MACHINES:
        return None
    column, arch = MACHINES[os.uname().machine]
    code: list[bytes] = []

    def emit(op: int, k: int, yes: int = 0, no: int = 0) -> None:
        code.append(struct.pack("HBBI", op, yes, no, k))

    load, equal, above, any_bit, answer = 0x20, 0x15, 0x35, 0x45, 0x06
    emit(load, 4)
    emit(equal, arch, 1, 0)
    emit(answer, KILL)
    emit(load, 0)
    if column == 0:  # the x32 numbers of x86_64
        emit(above, 0x40000000, 0, 1)
        emit(answer, EPERM)
    for numbers in DENIED.values():
        if numbers[column] >= 0:
            emit(equal, numbers[column], 0, 1)
            emit(answer, EPERM)
    emit(equal, CLONE3[column], 0, 1)  # its flags are behind a pointer; the C library falls back to clone
    emit(answer, ENOSYS)
    emit(equal, CLONE[column], 0, 4)
    emit(load, 16)
    emit(any_bit, NAMESPACES, 0, 1)
    emit(answer, EPERM)
    emit(answer, ALLOW)
    emit(equal, SOCKET[column], 0, 3 + len(FAMILIES))
    emit(load, 16)
    for index, family in enumerate(FAMILIES):
        emit(equal, family, len(FAMILIES) - index, 0)
    emit(answer, EPERM)
    emit(answer, ALLOW)
    emit(answer, ALLOW)
    body = ctypes.create_string_buffer(b"".join(code))
    program = _Program(len(code), ctypes.cast(body, ctypes.c_void_p))
    program.body = body  # keeps it alive
    return program


LIMITS = {
    resource.RLIMIT_FSIZE: 32 << 20,
    resource.RLIMIT_NOFILE: 256,
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_MEMLOCK: 1 << 20,
    resource.RLIMIT_MSGQUEUE: 0,
    resource.RLIMIT_SIGPENDING: 256,
    resource.RLIMIT_NICE: 0,
    resource.RLIMIT_RTPRIO: 0,
}
PROCESSES = 40
"""Processes and threads of one user, where executions have users of their own.

So few that together they cannot fill a container while each of them is smaller than the fork server, which the kernel
would then kill for its memory in their place.
"""


def confine_all(users: bool) -> bool:
    """What the fork server gives up for itself and for all that it will ever start. There is no way back.

    Args:
        users: Every execution gets a user of its own.

    Returns:
        Whether there is a seccomp filter now.

    Raises:
        OSError: The kernel refused one of the steps.
    """
    for what, value in {**LIMITS, **({resource.RLIMIT_NPROC: PROCESSES} if users else {})}.items():
        hard = resource.getrlimit(what)[1]
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        resource.setrlimit(what, (value, value))
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError("no_new_privs")
    program = seccomp_filter()
    if program is not None and libc.prctl(PR_SET_SECCOMP, 2, ctypes.byref(program), 0, 0) != 0:
        raise OSError("seccomp")
    return program is not None


def confine(uid: int, cpu_s: int, memory_mb: int) -> None:
    """What one execution gives up on top of that, before it runs hostile code.

    Args:
        uid: The user and group to become; 0 stays as it is, for a backend without users of its own.
        cpu_s: Seconds of processor time.
        memory_mb: Address space in MiB.

    Raises:
        OSError, ValueError: The kernel refused one of the steps. The caller ends the process.
    """
    try:
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(fd, b"1000")  # when the memory of the container is gone, this process goes, not the fork server
        os.close(fd)
    except OSError:
        pass
    # A second between soft and hard: the signal of the first says why the process ended.
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
    if uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
