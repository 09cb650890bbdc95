"""The arithmetic of online algorithms against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from prefzoo.trainers.advantages import (
    KLController,
    clipped_value_loss,
    generalized_advantages,
    kl_per_token,
    token_rewards,
    whiten,
)


def near(found: torch.Tensor, expected: list) -> None:
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-6, rtol=0)


def test_gae_on_three_tokens() -> None:
    """gamma 0.9, lambda 0.5, rewards 1, 0, 2, values 0.5, 1, 1.5; nothing beyond the last token.

    d3 = 2 - 1.5 = 0.5                     A3 = 0.5
    d2 = 0 + 0.9 * 1.5 - 1 = 0.35          A2 = 0.35 + 0.45 * 0.5 = 0.575
    d1 = 1 + 0.9 * 1 - 0.5 = 1.4           A1 = 1.4 + 0.45 * 0.575 = 1.65875
    Returns are A + V: 2.15875, 1.575, 2.
    """
    advantages, returns = generalized_advantages(
        torch.tensor([[1.0, 0.0, 2.0]]), torch.tensor([[0.5, 1.0, 1.5]]), torch.ones(1, 3), gamma=0.9, lam=0.5
    )
    near(advantages, [[1.65875, 0.575, 0.5]])
    near(returns, [[2.15875, 1.575, 2.0]])


def test_gae_does_not_look_at_padding() -> None:
    """The same three tokens with two of padding, on which the critic says something wild."""
    mask = torch.tensor([[1.0, 1.0, 1.0, 0.0, 0.0]])
    advantages, returns = generalized_advantages(
        torch.tensor([[1.0, 0.0, 2.0, 0.0, 0.0]]), torch.tensor([[0.5, 1.0, 1.5, 99.0, -99.0]]), mask, 0.9, 0.5
    )
    near(advantages, [[1.65875, 0.575, 0.5, 0.0, 0.0]])
    near(returns, [[2.15875, 1.575, 2.0, 0.0, 0.0]])


def test_gae_with_lambda_one_is_the_return_less_the_value() -> None:
    """gamma = lambda = 1: rewards 1, 2, 3 leave 6, 5, 3 to come."""
    advantages, returns = generalized_advantages(
        torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.5, 0.25, 1.0]]), torch.ones(1, 3), 1.0, 1.0
    )
    near(returns, [[6.0, 5.0, 3.0]])
    near(advantages, [[5.5, 4.75, 2.0]])


def test_kl_estimators() -> None:
    """ln 2 nats more likely under the policy: k1 = ln 2; k3 = 1/2 - 1 + ln 2. The other way: -ln 2; 2 - 1 - ln 2."""
    policy = torch.log(torch.tensor([[0.5, 0.25]]))
    reference = torch.log(torch.tensor([[0.25, 0.5]]))
    near(kl_per_token(policy, reference, "k1"), [[math.log(2), -math.log(2)]])
    near(kl_per_token(policy, reference, "k3"), [[math.log(2) - 0.5, 1 - math.log(2)]])


def test_both_estimators_are_unbiased() -> None:
    """Over all tokens, weighted by the policy: KL = 0.5 ln 2 - 0.25 ln 2 + 0 = 0.173287."""
    policy, reference = torch.tensor([0.5, 0.25, 0.25]), torch.tensor([0.25, 0.5, 0.25])
    for estimator in ("k1", "k3"):
        found = (policy * kl_per_token(policy.log(), reference.log(), estimator)).sum()
        assert found.item() == pytest.approx(0.25 * math.log(2), abs=1e-6)


def test_the_score_sits_on_the_last_generated_token() -> None:
    """A reply of two tokens (its end included), one of three that was cut, one of none; KL coefficient 0.1."""
    kl = torch.tensor([[1.0, 2.0, 9.0], [0.0, -1.0, 1.0], [5.0, 5.0, 5.0]])
    mask = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    found = token_rewards(torch.tensor([10.0, 20.0, 30.0]), kl, mask, coefficient=0.1)
    near(found, [[-0.1, 9.8, 0.0], [0.0, 0.1, 19.9], [0.0, 0.0, 0.0]])


def test_whitening() -> None:
    """1, 2, 3 have mean 2 and variance 2/3: -1.224745, 0, 1.224745; the padding's 100 is not among them."""
    values, mask = torch.tensor([[1.0, 2.0, 3.0, 100.0]]), torch.tensor([[1.0, 1.0, 1.0, 0.0]])
    side = 1 / math.sqrt(2 / 3)
    near(whiten(values, mask), [[-side, 0.0, side, 0.0]])
    near(whiten(values, mask, shift_mean=False), [[2 - side, 2.0, 2 + side, 0.0]])


def test_value_clipping() -> None:
    """Returns 1, old values 0, clip 0.2.

    A value of 0.5 is clipped to 0.2: the larger error is 0.8, half its square 0.32. A value of 0.1 is within: 0.405.
    A value of 2 is clipped to 0.2: errors 1 and 0.8, so 0.5. Unclipped: 0.125, 0.405, 0.5.
    """
    values = torch.tensor([[0.5, 0.1, 2.0]])
    near(clipped_value_loss(values, torch.zeros(1, 3), torch.ones(1, 3), clip=0.2), [[0.32, 0.405, 0.5]])
    near(clipped_value_loss(values, torch.zeros(1, 3), torch.ones(1, 3), clip=None), [[0.125, 0.405, 0.5]])


def test_the_adaptive_controller() -> None:
    """Target 6, horizon 1000, 100 replies a time.

    KL 12: error 1, clipped to 0.2: 0.1 * 1.02 = 0.102. KL 5.4: error -0.1: 0.102 * 0.99 = 0.10098. KL 6: unchanged.
    """
    controller = KLController(0.1, target=6.0, horizon=1000)
    for kl, expected in ((12.0, 0.102), (5.4, 0.10098), (6.0, 0.10098)):
        controller.update(kl, 100)
        assert controller.coefficient == pytest.approx(expected)
    far = KLController(0.05, target=6.0, horizon=100)
    for kl, expected in ((0.0, 0.04), (60.0, 0.048), (0.0, 0.0384)):  # 512 replies count as the 100 of the horizon
        far.update(kl, 512)
        assert far.coefficient == pytest.approx(expected)
    fixed = KLController(0.1)
    fixed.update(12.0, 100)
    assert fixed.coefficient == 0.1
