"""Classify frames as they come, from any iterator: a camera, a video, a test pattern.

    python predict_frames.py BUNDLE [picamera2|opencv|pattern] [FRAMES, 0 for no end]

A frame is an array of shape (height, width, 3), uint8, in RGB order.
"""

import itertools
import sys
import time
from collections.abc import Iterator

import numpy as np

import edgecls


def picamera2_frames() -> Iterator[np.ndarray]:
    """Frames of a Raspberry Pi's camera (apt install python3-picamera2)."""
    from picamera2 import Picamera2

    camera = Picamera2()
    # Its "BGR888" lies in memory as R, G, B.
    camera.configure(camera.create_video_configuration({"size": (640, 480), "format": "BGR888"}))
    camera.start()
    while True:
        yield camera.capture_array()


def opencv_frames(source: int | str = 0) -> Iterator[np.ndarray]:
    """Frames of a USB camera (0, 1, ...) or a video file (pip install opencv-python)."""
    import cv2

    video = cv2.VideoCapture(source)
    while True:
        taken, frame = video.read()
        if not taken:
            return
        yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)


def pattern_frames() -> Iterator[np.ndarray]:
    """A colour that moves, to try the loop without a camera."""
    column = np.arange(320, dtype=np.uint16)
    for shift in itertools.count(step=4):
        line = np.stack([column + shift, column * 2, np.full(320, shift)], axis=-1) % 256
        yield np.broadcast_to(line.astype(np.uint8), (240, 320, 3))


SOURCES = {"picamera2": picamera2_frames, "opencv": opencv_frames, "pattern": pattern_frames}


def main(bundle: str, source: str = "pattern", frames: str = "100") -> None:
    predictor = edgecls.load(bundle)
    stream = itertools.islice(SOURCES[source](), int(frames) or None)
    start = time.perf_counter()
    for count, found in enumerate(predictor.predict_stream(stream, topk=1), 1):
        if isinstance(found, Exception):
            print(found, file=sys.stderr)
            continue
        rate = count / (time.perf_counter() - start)
        print(f"{count:6d}  {found.top1.score:7.2%}  {found.top1.label}  {rate:.1f} frames/s")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3, 4):
        sys.exit(__doc__)
    main(*sys.argv[1:])
