"""A terminal, or a log file, as the place that progress goes to."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from cskd_pipeline.progress import Progress, Watch


@contextlib.contextmanager
def terminal() -> Iterator[Watch]:
    """Something to tell progress to: a bar on stderr if that is a terminal, with lines above it; else lines alone.

    Work does not end because its progress cannot be written: errors of stderr are ignored.
    """
    shown = _Terminal()
    try:
        yield shown
    finally:
        shown.close()


class _Terminal:
    def __init__(self) -> None:
        self._task = ""
        self._bar: Any = None

    def __call__(self, event: Progress | str) -> None:
        with contextlib.suppress(OSError, ValueError):  # ValueError: stderr was closed
            if isinstance(event, str):
                self._line(event)
            elif sys.stderr.isatty():
                self._advance(event)
            elif event.note:
                self._line(event.note)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            with contextlib.suppress(OSError, ValueError):
                self._bar.close()
            self._bar = None

    def _line(self, text: str) -> None:
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)

    def _advance(self, event: Progress) -> None:
        from tqdm import tqdm

        if self._bar is None or self._task != event.task:
            self.close()
            self._task = event.task
            self._bar = tqdm(
                desc=event.task,
                total=event.total,
                initial=event.done,
                unit="B" if event.unit == "byte" else event.unit,
                unit_scale=event.unit in ("byte", "crop", "image"),
                leave=False,
                file=sys.stderr,
            )
        self._bar.total = event.total
        if event.detail:
            self._bar.set_postfix_str(event.detail, refresh=False)
        self._bar.update(event.done - self._bar.n)
