"""Commands of the machine: the two that have no interface of their own, `udevadm` and `systemctl`."""

from dataclasses import dataclass
from pathlib import Path

from dpu_agent.host.paths import command_prefix
from dpu_agent.machine import HostError

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Commands:
    """Runs commands among the machine's own files, each bounded in time.

    Args:
        root: the machine's root; see `paths.command_prefix`.
        path: where commands are looked for, as in the variable PATH.

    """

    root: Path
    path: str = _PATH

    def run(self, *command: str, seconds: float, hint: str) -> None:
        """Run it and wait for its end.

        Raises:
            HostError: it is missing, ends with an error (its last line is in the message), or does not end in time. In
                the last case it is killed, and what it asked for may happen later.

        """
        import subprocess  # noqa: PLC0415 - 10 ms that a dry run need not wait for

        name = " ".join(command[:2])
        argv = (*command_prefix(self.root), *command)
        try:
            done = subprocess.run(  # noqa: S603 - no shell, and what it runs stands in this package
                argv,
                env={"PATH": self.path, "LC_ALL": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise HostError(f"`{name}` did not end within {seconds:g} s.", hint) from error
        except OSError as error:
            raise HostError(f"`{name}` cannot be run: {error.strerror}.", hint, errno=error.errno) from error
        if done.returncode:
            lines = done.stdout.decode(errors="replace").strip().splitlines()
            said = lines[-1].rstrip(".") if lines else "it says nothing"
            raise HostError(f"`{name}` failed with exit status {done.returncode}: {said}.", hint)
