"""What a student learns from: the loss against its formula, and the hints."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from edgecls.compress.distillation import (
    Lesson,
    Objective,
    Watched,
    attention_map,
    distillation_loss,
)
from edgecls.core.errors import ModelError, UsageError

Reals = NDArray[np.float64]


def softmax(values: Reals) -> Reals:
    raised = np.exp(values - values.max(1, keepdims=True))
    return np.asarray(raised / raised.sum(1, keepdims=True))


def by_hand(
    logits: Reals, labels: NDArray[np.int64], taught: Reals, temperature: float, alpha: float,
    smoothing: float,
) -> float:  # fmt: skip
    """Return the formula as the paper has it, in float64: no logarithm of a softmax is fused."""
    count, classes = logits.shape
    p, q = softmax(taught / temperature), softmax(logits / temperature)
    soft = (p * (np.log(p) - np.log(q))).sum() / count
    target = np.full((count, classes), smoothing / classes)
    target[np.arange(count), labels] += 1 - smoothing
    hard = -(target * np.log(softmax(logits))).sum() / count
    return float(alpha * temperature**2 * soft + (1 - alpha) * hard)


def drawn(seed: int = 0) -> tuple[Reals, NDArray[np.int64], Reals]:
    random = np.random.default_rng(seed)
    return random.normal(size=(7, 5)) * 3, random.integers(0, 5, 7), random.normal(size=(7, 5)) * 4


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_formula(temperature: float, alpha: float, smoothing: float) -> None:
    logits, labels, taught = drawn()
    lesson = Lesson(
        temperature=temperature, alpha=alpha, label_smoothing=smoothing, hints=(("a", "a"),)
    )

    found = distillation_loss(*(torch.from_numpy(x) for x in (logits, labels, taught)), lesson)

    expected = by_hand(logits, labels, taught, temperature, alpha, smoothing)
    assert float(found) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_at_either_end_one_teacher_is_left() -> None:
    """At 1 labels do not matter, at 0 the teacher does not, and it is torch's cross-entropy."""
    values, labels, taught = (torch.from_numpy(x) for x in drawn())
    only_soft = Lesson(alpha=1.0)
    only_hard = Lesson(alpha=0.0, label_smoothing=0.1, hints=(("a", "a"),))

    soft = [distillation_loss(values, x, taught, only_soft) for x in (labels, (labels + 1) % 5)]
    hard = [distillation_loss(values, labels, x, only_hard) for x in (taught, -taught)]

    assert soft[0] == soft[1]
    assert hard[0] == hard[1]
    entropy = nn.CrossEntropyLoss(label_smoothing=0.1)(values.float(), labels)
    assert float(hard[0]) == pytest.approx(float(entropy), rel=1e-6)


def test_the_factor_keeps_the_gradient_where_it_is() -> None:
    """At high temperatures it is (z - v) / classes for each image, whatever the temperature."""
    values, labels, taught = (torch.from_numpy(x) for x in drawn())
    values, taught = values - values.mean(1, keepdim=True), taught - taught.mean(1, keepdim=True)
    expected = (values - taught) / 5 / len(values)

    for temperature in (200.0, 800.0):
        logits = values.clone().requires_grad_()
        lesson = Lesson(temperature=temperature, alpha=1.0)
        distillation_loss(logits, labels, taught, lesson).backward()

        assert logits.grad is not None
        torch.testing.assert_close(logits.grad, expected, rtol=0.05, atol=0.003)


def test_a_student_that_answers_like_its_teacher_learns_nothing() -> None:
    values, labels, _ = (torch.from_numpy(x) for x in drawn())
    logits = values.clone().requires_grad_()

    loss = distillation_loss(logits, labels, values, Lesson(alpha=1.0))
    loss.backward()

    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    assert logits.grad is not None
    assert float(logits.grad.abs().max()) < 1e-6


def test_attention_is_where_squares_are_large() -> None:
    features = np.random.default_rng(1).normal(size=(2, 3, 4, 5))
    expected = (features**2).sum(1).reshape(2, 20)
    expected /= np.sqrt((expected**2).sum(1, keepdims=True))

    found = attention_map(torch.from_numpy(features))

    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)
    twice = attention_map(torch.from_numpy(np.concatenate([features, features], axis=1)))
    torch.testing.assert_close(found, twice)


def test_hints_pull_the_student_to_where_the_teacher_looks() -> None:
    """The loss is what the formula says, and its gradient reaches the layer."""
    torch.manual_seed(0)
    wide = nn.Sequential(nn.Conv2d(1, 6, 3), nn.Flatten(), nn.Linear(96, 3))
    narrow = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(32, 3))
    images, labels = torch.rand(4, 1, 6, 6), torch.tensor([0, 1, 2, 0])
    teacher, student = Watched(wide, ["0"], "teacher"), Watched(narrow, ["0"], "student")
    with torch.no_grad():
        taught = wide(images)
    maps = teacher.take()
    lesson = Lesson(alpha=0.0, hints=(("0", "0"),), hint_weight=10.0)

    loss = Objective(lesson=lesson, student=student)(narrow(images), labels, taught, *maps)
    loss.backward()

    plain = nn.CrossEntropyLoss(label_smoothing=0.1)(narrow(images), labels)
    apart = attention_map(narrow[0](images)) - attention_map(wide[0](images))
    expected = float((plain + 10 * (apart**2).mean()).detach())
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    learned = narrow[0].weight.grad
    assert isinstance(learned, torch.Tensor)
    assert float(learned.abs().max()) > 0
    student.take()
    student.close()
    narrow(images)
    with pytest.raises(KeyError):
        student.take()


def test_hints_are_refused_where_they_mean_nothing() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(32, 3))
    with pytest.raises(UsageError, match=r"teacher has no layer 'x'; there are: 0, 1, 2"):
        Watched(net, ["x"], "teacher")
    watched = Watched(net, ["2"], "student")
    with pytest.raises(ModelError, match=r"layer '2' gives \(1, 3\), expected features"):
        net(torch.rand(1, 1, 6, 6))
    watched.close()
    watched = Watched(net, ["0"], "student")
    objective = Objective(lesson=Lesson(hints=(("0", "5"),)), student=watched)
    logits = net(torch.rand(1, 1, 6, 6))
    with pytest.raises(UsageError, match="has 16 places, the teacher's 25"):
        objective(logits, torch.tensor([0]), logits.detach(), torch.rand(1, 25))


@pytest.mark.parametrize(
    ("field", "value"),
    [("temperature", 0.0), ("temperature", float("nan")), ("alpha", 1.1), ("alpha", -0.1),
     ("alpha", 0.0), ("hint_weight", -1.0)],
)  # fmt: skip
def test_numbers_that_cannot_be_meant(field: str, value: float) -> None:
    with pytest.raises(UsageError):
        Lesson(**{field: value})
