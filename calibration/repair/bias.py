"""Bias correction: what rounding the weights adds to each output on average is taken off its bias.

Source: Nagel et al. 2019, arXiv:1906.04721, section 4.2; the mean of the inputs is measured.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .moments import Moments, Operand, Reals


def corrected_bias(
    bias: NDArray[np.float32], operand: Operand, matrix: Reals, moments: Moments
) -> NDArray[np.float32]:
    """Return a bias with which the quantized layer's outputs have the float layer's means.

    Args:
        bias: Shape (outputs,), float32: the float layer's.
        operand: The float layer's weights.
        matrix: The weights that are quantized, of the operand's shape.
        moments: Of the layer's inputs.
    """
    computed = operand.codes(matrix) * operand.scales[..., None]
    error = np.einsum("gok,gk->go", computed - operand.matrix, moments.mean)
    return np.asarray(bias - error.reshape(-1), np.float32)
