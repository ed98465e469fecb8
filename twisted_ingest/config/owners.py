"""
Users and groups, as operators write them, and whether this process may give its files to them.
"""

import grp
import os
import pwd
from collections.abc import Callable
from typing import Any

from twisted_ingest.units import quote

_CAP_CHOWN = 1 << 0


def user_id(value: Any) -> int:
    """Read a user's name or number. Raises ``ValueError`` in the operator's words."""
    return _id(value, "user", lambda name: pwd.getpwnam(name).pw_uid)


def group_id(value: Any) -> int:
    """Read a group's name or number. Raises ``ValueError`` in the operator's words."""
    return _id(value, "group", lambda name: grp.getgrnam(name).gr_gid)


HIGHEST_ID = (1 << 32) - 2
"""The kernel takes the one above for "leave it as it is" (chown(2))."""


def _id(value: Any, kind: str, look_up: Callable[[str], int]) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= len(str(HIGHEST_ID)):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        if not 0 <= value <= HIGHEST_ID:
            raise ValueError(f"{value} is not the number of a {kind}: it must be between 0 and {HIGHEST_ID}")
        return value
    try:
        return look_up(value)
    except TypeError:
        raise ValueError(f"{quote(value)} is not the name or the number of a {kind}") from None
    except (KeyError, ValueError):
        raise ValueError(
            f"{quote(value)}: this machine has no such {kind} (see getent {'passwd' if kind == 'user' else 'group'})"
        ) from None


def gift_problem(owner: int | None, group: int | None) -> str | None:
    """Say why files cannot be given to a user or a group, or nothing."""
    if os.geteuid() == 0 or _may_chown():
        return None
    if owner is not None and owner != os.geteuid():
        return (
            f"only root may give files to another user, and this is user {os.geteuid()}: "
            "leave out owner, or let the server run as that user"
        )
    if group is not None and group != os.getegid() and group not in os.getgroups():
        return (
            f"user {os.geteuid()} is not in group {group} and may not give files to it: "
            "add the user to the group, or leave out group"
        )
    return None


def _may_chown() -> bool:
    try:
        with open("/proc/self/status") as status:
            effective = next(line.split()[1] for line in status if line.startswith("CapEff:"))
    except (OSError, StopIteration):
        return False
    return bool(int(effective, 16) & _CAP_CHOWN)
