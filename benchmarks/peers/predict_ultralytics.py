"""Ultralytics' classification predict: MODEL, an ONNX or a TFLite file."""

from __future__ import annotations

import os
import sys

import onnxruntime
import torch
from answering import answer


def main() -> None:
    """Answer what stdin asks."""
    os.environ |= {"YOLO_AUTOINSTALL": "False", "YOLO_OFFLINE": "True"}
    # A torchvision that was built for CUDA lacks two operators where torch has none.
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    session = onnxruntime.InferenceSession

    def one_thread(model: str, options: object, **more: object) -> object:
        options = options or onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        return session(model, options, **more)

    onnxruntime.InferenceSession = one_thread  # it has no switch for it
    import ultralytics

    torch.set_num_threads(1)
    model = ultralytics.YOLO(sys.argv[1], task="classify", verbose=False)

    def predict(path: str) -> int:
        return int(model.predict(path, imgsz=224, device="cpu", verbose=False)[0].probs.top1)

    answer(predict, version=ultralytics.__version__)


if __name__ == "__main__":
    main()
