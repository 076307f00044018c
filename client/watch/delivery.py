"""Who is told, at least once and in order: stdout and hooks, each following the log with a cursor of its own.

The log is the queue. A hook's cursor moves on when the hook has taken what was behind it, and not before; while it
fails, it is tried again with growing pauses, and the others go their way. An outbox on disk was the alternative: it
would hold everything twice, would grow while a hook is down, and would need a rule for when it is full. A hook that
comes back after a month reads that month from the ledger, proven as always.

The alarm stands in no log. It is given to every hook for a while before the watch ends, and again by the next one.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from client.api import Api
from client.errors import UNAVAILABLE, ClientError
from client.memory import Memory
from client.watch.cursor import CursorFile
from client.watch.events import Event, alarm_event
from client.watch.telling import Warn
from client.watch.watched import Watched
from client.watch.watching import Pace, first_cursor, watch
from registry.errors import ConsistencyError, QuorumError

PAUSE_FIRST_S, PAUSE_LAST_S = 1.0, 300.0
ALARM_PATIENCE_S = 60.0
_REPEATED_S, _TEXTS_KEPT = 60.0, 64

Result = TypeVar("Result")
OpenLedger = Callable[[], AbstractAsyncContextManager[Api]]


class HookError(ClientError):
    """A hook has not taken an event; it may later.

    Attributes:
        retry_after_s: how long it asks to be left alone.
    """

    code = "hook"
    exit_code = UNAVAILABLE

    def __init__(self, message: str, *, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Hook(Protocol):
    """Somebody who is told."""

    @property
    def name(self) -> str:
        """Names its cursor; holds no secret."""
        ...

    @property
    def shown(self) -> str:
        """Names it for people; holds no secret."""
        ...

    async def deliver(self, event: Event) -> None:
        """Tell an event, and return when it was taken; raises HookError when it was not."""
        ...


@dataclass(slots=True)
class Warner:
    """Passes warnings on, but not the same one again within a minute: the followers all see the same nodes."""

    write: Warn
    _told_s: dict[str, float] = field(default_factory=dict)

    def __call__(self, text: str) -> None:
        """Warn."""
        now_s = time.monotonic()
        if now_s - self._told_s.get(text, -_REPEATED_S) < _REPEATED_S:
            return
        self._told_s.pop(text, None)
        self._told_s[text] = now_s
        if len(self._told_s) > _TEXTS_KEPT:
            del self._told_s[next(iter(self._told_s))]
        self.write(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What all followers have in common.

    Attributes:
        open_ledger: opens a session with the nodes, by the policy file as it is then.
        memory: what was seen of the ledger.
        watched: what is told.
        cursors: where they stand.
        pace: how often to look.
        patience_s: how long to try a hook when only one look is taken.
        warn: is told what goes wrong.
    """

    open_ledger: OpenLedger
    memory: Memory
    watched: Watched
    cursors: CursorFile
    pace: Pace
    patience_s: float
    warn: Warn

    async def run(self, hooks: Sequence[Hook], *, start: int | None = None) -> None:
        """Tell all hooks what there is, until cancelled; or, with `pace.once`, until they were told.

        Raises:
            ConsistencyError: an alarm, which the hooks were told if they took it.
            QuorumError: too few nodes answer, and one look is all that is taken.
            HookError: likewise for a hook; the others were told.
        """
        try:
            await self._begin(hooks, start)
            if not self.pace.once:
                index = min(self.cursors.cursors[hook.name].index for hook in hooks)
                self.warn(f"following {self.cursors.origin} from entry {index}")
            await self._follow_all(hooks)
        except ConsistencyError as error:
            await self._raise_alarm(hooks, error)
            raise

    async def _begin(self, hooks: Sequence[Hook], start: int | None) -> None:
        """Give every new follower a place, before any moves: beside the furthest, or where a first one begins."""
        names = [hook.name for hook in hooks]
        if all(name in self.cursors.cursors for name in names):
            return
        cursor = self.cursors.furthest
        if cursor is None:
            cursor = await self._with_ledger(lambda api: first_cursor(api, self.memory, start))
        self.cursors.begin(names, cursor)

    async def _follow_all(self, hooks: Sequence[Hook]) -> None:
        tasks = [asyncio.create_task(self._follow(hook), name=hook.name) for hook in hooks]
        try:
            done, _running = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            if self.pace.once and not any(_is_alarm(task) for task in done):
                await asyncio.wait(tasks)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        errors = sorted((one for one in results if isinstance(one, Exception)), key=_urgency)
        for error in errors[1:]:
            self.warn(str(error))
        if errors:
            raise errors[0]

    async def _follow(self, hook: Hook) -> None:
        async def go_on(api: Api) -> None:
            cursor = self.cursors.cursors[hook.name]
            steps = watch(api, self.memory, self.watched, cursor, pace=self.pace, warn=self.warn)
            async with aclosing(steps):
                async for step in steps:
                    for event in step.events:
                        await self._deliver(hook, event)
                    self.cursors.store(hook.name, step.cursor)

        await self._with_ledger(go_on)

    async def _with_ledger(self, work: Callable[[Api], Awaitable[Result]]) -> Result:
        """Do something with the nodes; as a service, again and again while too few of them answer."""
        pause_s = PAUSE_FIRST_S
        while True:
            begun_s = time.monotonic()
            try:
                async with self.open_ledger() as api:
                    return await work(api)
            except QuorumError as error:
                if self.pace.once:
                    raise
                if time.monotonic() - begun_s > PAUSE_LAST_S:  # it has worked for a while since the last time
                    pause_s = PAUSE_FIRST_S
                self.warn(f"{' '.join(str(error).split())}; looking again in {pause_s:.0f} s")
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_LAST_S)

    async def _deliver(self, hook: Hook, event: Event, *, patience_s: float | None = None) -> None:
        """Tell a hook, for as long as it takes; or for some time, and raise its last HookError."""
        if patience_s is None and self.pace.once:
            patience_s = self.patience_s
        begun_s, pause_s, has_failed = time.monotonic(), PAUSE_FIRST_S, False
        while True:
            try:
                await hook.deliver(event)
            except HookError as error:
                rest_s, has_failed = max(pause_s, min(error.retry_after_s, PAUSE_LAST_S)), True
                if patience_s is not None and time.monotonic() + rest_s > begun_s + patience_s:
                    raise
                self.warn(f"{hook.shown}: {error}; the {event.kind} is kept and tried again in {rest_s:.0f} s")
            else:
                if has_failed:
                    self.warn(f"{hook.shown}: took the {event.kind} now")
                return
            await asyncio.sleep(rest_s)
            pause_s = min(2 * pause_s, PAUSE_LAST_S)

    async def _raise_alarm(self, hooks: Sequence[Hook], error: ConsistencyError) -> None:
        event = alarm_event(self.cursors.origin, error.code, str(error))
        told = await asyncio.gather(
            *(self._deliver(hook, event, patience_s=min(self.patience_s, ALARM_PATIENCE_S)) for hook in hooks),
            return_exceptions=True,
        )
        for hook, result in zip(hooks, told, strict=True):
            if isinstance(result, Exception):
                self.warn(f"{hook.shown}: was not told of the alarm: {result}")


def _is_alarm(task: "asyncio.Task[None]") -> bool:
    return isinstance(task.exception(), ConsistencyError)


def _urgency(error: Exception) -> int:
    """An alarm first, then what ended a follower for good, then what may be better next time."""
    if isinstance(error, ConsistencyError):
        return 0
    return 2 if isinstance(error, HookError | QuorumError) else 1
