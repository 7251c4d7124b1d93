"""Hugging Face's image-classification pipeline over an ONNX Runtime model of Optimum: FOLDER."""

from __future__ import annotations

import sys

import onnxruntime
import transformers
from answering import answer
from optimum.onnxruntime import ORTModelForImageClassification

folder = sys.argv[1]
transformers.logging.set_verbosity_error()
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
pipe = transformers.pipeline(
    "image-classification",
    model=ORTModelForImageClassification.from_pretrained(
        folder, file_name="model.onnx", session_options=options
    ),
    image_processor=transformers.AutoImageProcessor.from_pretrained(folder),
    device="cpu",
)


def predict(path: str) -> int:
    """Return the index of the best class; the labels are the indices."""
    return int(pipe(path)[0]["label"])


answer(predict, version=transformers.__version__)
