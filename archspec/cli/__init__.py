"""The command line. `main` is the entry point: it turns errors into messages and exit codes, never into tracebacks."""

from __future__ import annotations

import os
import sys
import warnings
from typing import TextIO

from archspec.errors import ArchspecError


def main() -> None:
    """Run a command: 0 done, 1 a failed run, 2 the user's mistake, 130 interrupted."""
    from archspec.cli.app import app

    warnings.showwarning = _show_warning
    try:
        app()
    except ArchspecError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader, such as `head`, has gone
        sys.exit(1)
    except Exception as error:  # a bug of ours: say so in one line, unless a developer wants the trace
        if os.environ.get("ARCHSPEC_TRACEBACK"):
            raise
        name = type(error).__name__
        print(f"archspec has a bug: {name}: {error} (ARCHSPEC_TRACEBACK=1 shows where)", file=sys.stderr)
        sys.exit(1)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Without the place in our code, which says nothing to a user."""
    print(f"warning: {message}", file=file or sys.stderr)
