"""What torch's exporter needs to be told."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import nn

from edgecls.export.torch_onnx import TorchToOnnx


class Windowed(nn.Module):
    """Attention with relative positions whose result becomes an image again, as in MaxViT."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.qkv = nn.Linear(8, 24)
        self.table = nn.Parameter(torch.randn(50, 2))
        self.register_buffer("places", torch.randint(0, 50, (16, 16)))
        self.head = nn.Linear(8, 5)

    def bias(self) -> torch.Tensor:
        return self.table[self.places].permute(2, 0, 1)[None]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).permute(0, 2, 3, 1)
        parts = self.qkv(x).view(x.shape[0], -1, 2, 12).transpose(1, 2).chunk(3, dim=3)
        y = nn.functional.scaled_dot_product_attention(*parts, attn_mask=self.bias())
        x = y.transpose(1, 2).reshape(x.shape)
        return self.head(x.mean((1, 2)))


@pytest.mark.slow
def test_attention_on_an_image() -> None:
    torch.manual_seed(0)
    module = Windowed().eval()
    image = torch.randn(2, 3, 4, 4)

    model = TorchToOnnx(input_size=(3, 4, 4))(module)

    with torch.inference_mode():
        expected = module(image).numpy()
    session = ort.InferenceSession(model.SerializeToString())
    (found,) = session.run(None, {"input": image.numpy()})
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
