"""Images to answers: a bounded number at once, decoded in threads, run in the lane."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, ParamSpec, TypeVar

from ..core.errors import EdgeclsError, ImageError
from ..core.text import printable
from ..core.values import Logits, Tensor
from ..runtimes import Prediction
from .counts import Counts
from .errors import RequestError, overloaded
from .field import pixel_counts
from .lane import ImageJob, Lane, TensorJob, pending
from .model import Model, Open, open_model
from .settings import Settings

_LOG: Final = logging.getLogger("edgecls.serve")
_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Upload:
    """An image as it came: the name that its sender gave it, and the file's bytes."""

    name: str
    data: bytes


class Service:
    """Answers with one bundle, of which another may take the place at any time.

    Attributes:
        settings: The limits.
        counts: What was done.
        model: What answers now.
    """

    def __init__(self, model: Model, settings: Settings, counts: Counts) -> None:
        self.settings = settings
        self.counts = counts
        self.model = model
        self._lane = Lane(counts, max_batch=settings.max_batch, max_wait_ms=settings.max_wait_ms)
        self._parser = ThreadPoolExecutor(1, thread_name_prefix="edgecls-parse")
        # One of them runs the model, the others decode.
        self._threads = ThreadPoolExecutor(
            settings.decoders + 1, thread_name_prefix="edgecls-image"
        )
        self._taken = 0
        self._lock = threading.Lock()
        self._each_s = 0.05  # of late, for an image, from its place in the queue to its answer
        counts.run_bundle(model.sha256, model.classes)

    def close(self) -> None:
        """Finish what was accepted, then give the model back."""
        self._parser.shutdown()
        self._threads.shutdown()
        self.counts.stop()
        self.model.release()

    async def reload(self, opened: Open) -> None:
        """Let another bundle take the place of this one, if it proves good; the old goes on if not.

        What was accepted is answered by the bundle that it was decoded for.
        """
        try:
            new = await asyncio.get_running_loop().run_in_executor(None, open_model, opened)
        except Exception as error:  # whatever it is, the old one is not worse for it
            self.counts.add("reloads", at=1)
            _LOG.error("the new bundle was refused, the old one goes on: %s", _why(error))
            return
        old, self.model = self.model, new
        self.counts.run_bundle(new.sha256, new.classes)
        self.counts.add("reloads", at=0)
        old.release()
        _LOG.warning("answers come from bundle %s now", new.sha256[:12])

    @contextlib.contextmanager
    def admitted(self) -> Iterator[None]:
        """Keep a place for a request while its body is read; its images take places after that.

        Raises:
            RequestError: There is none left: 503, at once.
        """
        self.take(1)
        try:
            yield
        finally:
            self._give(1)

    async def parse(self, parser: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Return what ``parser`` makes of a body; one at a time.

        JSON of many small values takes thirty times its size when it is parsed, and the parsers
        hold Python's lock: several at once would take more memory and no less time.

        Raises:
            RequestError: 503 where its turn does not come in time; and what ``parser`` raises.
        """
        deadline = time.monotonic() + self.settings.timeout_s

        def work() -> _T:
            if time.monotonic() > deadline:
                raise self._late()
            return parser(*args, **kwargs)

        return await asyncio.get_running_loop().run_in_executor(self._parser, work)

    def take(self, images: int) -> None:
        """Take places for images.

        Raises:
            RequestError: There are not as many left: 503, at once.
        """
        with self._lock:
            free = self.settings.queue - self._taken
            if images <= free:
                self._taken += images
                self.counts.put("in_flight", self._taken)
                return
        raise overloaded(
            f"{self.settings.queue} images are being worked on, the most that are accepted; send "
            "it again later",
            self._retry_after_s(),
        )

    async def predict(self, uploads: Sequence[Upload], topk: int) -> list[Prediction | ImageError]:
        """Answer to images, in their order; what ``Predictor.predict`` gives for each.

        Raises:
            RequestError: 503 where there is no room for them, or where time runs out.
        """
        model, deadline = self.model, time.monotonic() + self.settings.timeout_s
        self.take(len(uploads))
        self._lane.expect(len(uploads))
        begun = [self._begin(model, upload, topk, deadline) for upload in uploads]
        await self._wait(begun, deadline)
        found: list[Prediction | ImageError] = []
        for answer in begun:
            error = answer.exception()
            if error is None:
                found.append(answer.result())
                self.counts.add("images", at=0)
            elif isinstance(error, ImageError):
                found.append(error)
                self.counts.add("images", at=1)
            else:
                raise error
        return found

    async def logits(self, tensor: Tensor) -> Logits:
        """Run normalised images, (N, C, H, W) float32, as ``Predictor.logits_of_tensor`` does.

        Raises:
            BadInputError: Another shape, or no finite numbers.
            RequestError: As for ``predict``.
        """
        deadline = time.monotonic() + self.settings.timeout_s
        self.take(len(tensor))
        answer: Future[Logits] = pending(self.model)
        answer.add_done_callback(lambda _: self._give(len(tensor)))
        job = TensorJob(model=self.model, deadline=deadline, answer=answer, tensor=tensor)
        self._threads.submit(self._lane.put, job)
        await self._wait([answer], deadline)
        found: Logits = answer.result()
        return found

    def _begin(
        self, model: Model, upload: Upload, topk: int, deadline: float
    ) -> Future[Prediction]:
        """Decode an image in its turn, and hand it to the lane; the answer gives its place back."""
        answer: Future[Prediction] = pending(model)
        answer.add_done_callback(lambda _: self._give(1))

        def decode() -> None:
            try:
                if time.monotonic() > deadline:
                    raise TimeoutError
                image = model.predictor.prepare(
                    upload.data, name=upload.name, max_pixels=self.settings.max_pixels
                )
                codes = pixel_counts(image.pixels)
            except BaseException as error:
                self._lane.miss()
                model.release()
                answer.set_exception(error)
            else:
                self._lane.put(
                    ImageJob(
                        model=model, deadline=deadline, answer=answer, image=image, topk=topk,
                        codes=codes,
                    ),
                    expected=True,
                )  # fmt: skip

        self._threads.submit(decode)
        return answer

    async def _wait(self, answers: Sequence[Future[Any]], deadline: float) -> None:
        """Wait until all are there; what is late is finished or dropped without its sender."""
        start = time.monotonic()
        waiting = [asyncio.wrap_future(answer) for answer in answers]
        for each in waiting:
            each.add_done_callback(_look_at_error)
        await asyncio.wait(waiting, timeout=max(deadline - start, 0))
        late = [a for a in answers if not a.done() or isinstance(a.exception(), TimeoutError)]
        if late:
            self.counts.add("images", len(late), at=2)
            raise self._late()
        took = (time.monotonic() - start) / len(answers)
        self._each_s += 0.1 * (min(took, self.settings.timeout_s) - self._each_s)

    def _late(self) -> RequestError:
        return RequestError(
            503, "timeout", f"no answer within {self.settings.timeout_s:g} s; send it again later",
            retry_after_s=self._retry_after_s(),
        )  # fmt: skip

    def _give(self, images: int) -> None:
        with self._lock:
            self._taken -= images
            self.counts.put("in_flight", self._taken)

    def _retry_after_s(self) -> int:
        """Return in how many seconds what is accepted will probably be answered."""
        return max(1, math.ceil(self._each_s))


def _why(error: Exception) -> str:
    if isinstance(error, (EdgeclsError, OSError)):
        return printable(str(error))
    return printable(f"{type(error).__name__}: {error}")


def _look_at_error(answer: asyncio.Future[Any]) -> None:
    """Take note of an error that nobody waits for any more, which asyncio would report."""
    if not answer.cancelled():
        answer.exception()
