"""The host configuration's file on this machine, and the last one that was found good. Reading changes nothing."""

import os
import stat
from contextlib import suppress
from pathlib import Path

from dpu_agent.machine import HostError
from dpu_agent.world import Configuration
from dpu_shared.errors import UserError
from dpu_shared.host_config import PATH, HostConfig

LAST_GOOD = "/var/lib/dpu-network-operator/host-config.json"
"""Where `keep` puts it: it survives reboots and updates, and no MachineConfig writes there."""
LIMIT = 65536
"""Bytes; a real file has about 120. What is larger isn't ours, and the agent's memory is not for reading it."""
_WAIT = "Wait until the MachineConfig of the DPU Network Operator is applied; it brings this file."
_RESTORE = "Restore the file that the MachineConfig of the DPU Network Operator writes."


class _MissingError(UserError):
    """There is no such file."""


def read(root: Path) -> Configuration:
    """The configuration of the machine whose file system is at `root`.

    What is wrong with the file is a sentence in there; a file that isn't there has none, for nothing is wrong with it.
    """
    last_good = _last_good(root)
    try:
        return Configuration(current=_load(_below(root, PATH), PATH), last_good=last_good)
    except _MissingError:
        return Configuration(last_good=last_good)
    except UserError as error:
        return Configuration(problem=error.message, hint=error.hint, last_good=last_good)


def keep(root: Path, config: HostConfig) -> None:
    """Remember a configuration as the last good one, whole or not at all, whenever the power fails.

    Raises:
        HostError: it could not be written.

    """
    path = _below(root, LAST_GOOD)
    if _last_good(root) == config:
        return
    fresh = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # One name for all writers: they hold the agent's lock, and what a crash left behind is overwritten.
        with fresh.open("w", encoding="utf-8") as file:
            file.write(config.to_json())
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            fresh.unlink()
        raise HostError(
            f"The configuration could not be kept in {LAST_GOOD}: {error.strerror or error}.",
            "See that this file system is writable and has room.",
            errno=error.errno,
        ) from error


def _below(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def _last_good(root: Path) -> HostConfig | None:
    """Garbage counts as none: it is a memory of ours, and nobody can be asked to mend it."""
    try:
        return _load(_below(root, LAST_GOOD), LAST_GOOD)
    except UserError:
        return None


def _load(path: Path, shown: str) -> HostConfig:
    data = _read_file(path, shown)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{shown} is not UTF-8 text.", _RESTORE) from error
    try:
        return HostConfig.from_json(text)
    except UserError as error:
        raise UserError(f"{shown} is not valid: {_lower(error.message)}", error.hint) from error
    except RecursionError as error:
        raise UserError(f"{shown} is not valid: its JSON is nested too deeply.", _RESTORE) from error


def _read_file(path: Path, shown: str) -> bytes:
    try:
        # Not blocking: a FIFO in the file's place must not hold the loop.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise _MissingError(f"{shown} is not there.", _WAIT) from error
    except OSError as error:
        raise UserError(f"{shown} cannot be opened: {error.strerror}.", _RESTORE) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UserError(f"{shown} is not a regular file.", _RESTORE)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(LIMIT + 1)
    except OSError as error:
        raise UserError(f"{shown} cannot be read: {error.strerror}.", _RESTORE) from error
    finally:
        os.close(descriptor)
    if len(data) > LIMIT:
        raise UserError(f"{shown} is larger than {LIMIT // 1024} KiB.", _RESTORE)
    return data


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lower(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]
