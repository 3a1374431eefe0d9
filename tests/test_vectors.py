"""Cosines, arcs and main directions against their closed formulas."""

import inspect

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import sdteach
from sdteach import pipeline
from sdteach.vectors import main_directions, slerp


@given(st.integers(1, 5), st.integers(1, 7), st.integers(1, 11), st.integers(0, 99))
def test_cosine_similarity_is_the_formula(n, m, d, seed):
    a, b = (torch.randn(k, d, generator=torch.Generator().manual_seed(seed + k)) for k in (n, m))
    for i, row in enumerate(sdteach.cosine_similarity(a, b)):
        for j, value in enumerate(row):
            x, y = a[i].double().numpy(), b[j].double().numpy()
            assert value.item() == pytest.approx(x @ y / np.sqrt(x @ x * (y @ y)), abs=1e-5)


def test_cosine_similarity_of_zeros_is_zero_and_of_half_precision_is_exact_enough():
    assert sdteach.cosine_similarity(torch.zeros(2, 3), torch.ones(4, 3)).tolist() == [[0.0] * 4] * 2
    large = torch.full((1, 5), 3e4, dtype=torch.float16)
    assert sdteach.cosine_similarity(large, large).item() == pytest.approx(1)


@pytest.mark.parametrize("shapes", [((3,), (3,)), ((2, 3), (2, 5)), ((2, 3), (3,)), ((1, 2, 3), (2, 3))])
def test_cosine_similarity_wants_two_matrices(shapes):
    unchecked = inspect.unwrap(sdteach.cosine_similarity)
    with pytest.raises(ValueError, match="expected"):
        unchecked(*(torch.ones(shape) for shape in shapes))


@pytest.mark.parametrize("shape", [(3, 5, 7), (2, 11)])
def test_slerp_goes_along_the_arc(shape):
    first, second = (torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double() for seed in (1, 2))
    second = second * 3
    for share in (0.0, 0.25, 0.7, 1.0):
        made = slerp(first, second, share)
        for a, b, c in zip(first.flatten(1), second.flatten(1), made.flatten(1), strict=True):
            angle = torch.arccos(a @ b / a.norm() / b.norm())
            wanted = torch.sin((1 - share) * angle) / torch.sin(angle) * a + torch.sin(share * angle) / torch.sin(angle) * b
            torch.testing.assert_close(c, wanted)
    units = [torch.nn.functional.normalize(given.flatten(1)) for given in (first, second)]
    halfway = slerp(*units, 0.5)
    torch.testing.assert_close(halfway.norm(dim=1), torch.ones(len(halfway), dtype=torch.float64))
    assert all((unit * halfway).sum(1).sub((units[0] * halfway).sum(1)).abs().max() < 1e-9 for unit in units)


def test_slerp_of_what_lies_along_one_line():
    one = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    assert torch.equal(slerp(one, one, 0.3), one)
    torch.testing.assert_close(slerp(one, 3 * one, 0.5), 2 * one)
    assert torch.isfinite(slerp(one, -one, 0.5)).all()


@pytest.mark.parametrize(("second", "weight"), [(torch.zeros(2, 3), 0.5), (torch.zeros(2, 2), 1.1), (torch.zeros(2, 2), -0.1)])
def test_slerp_refuses_what_does_not_fit(unguarded, second, weight):
    with pytest.raises(ValueError, match="expected two of one shape"):
        slerp(torch.zeros(2, 2), second, weight)


def test_the_arc_of_a_noise_is_a_noise_and_its_mean_is_not(model):
    first, second = (pipeline.initial_noise(model, seed) for seed in (1, 2))
    assert 0.95 < slerp(first, second, 0.5).std() < 1.05
    assert ((first + second) / 2).std() < 0.75


@pytest.mark.parametrize(("count", "width"), [(3, 2), (5, 3), (7, 13), (23, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_main_directions_are_those_of_the_covariance(count, width, dtype):
    spread = torch.tensor([7.0, 3.0, *[0.5] * (width - 2)])
    vectors = (torch.randn(count, width, generator=torch.Generator().manual_seed(count)) * spread + 11).to(dtype)
    plane, shares = main_directions(vectors)
    assert plane.shape == (count, 2)
    centred = vectors.double().numpy() - vectors.double().numpy().mean(0)
    variances, directions = np.linalg.eigh(centred.T @ centred / count)
    expected = centred @ directions[:, :-3:-1]
    expected *= np.sign((expected * plane.numpy()).sum(0))
    np.testing.assert_allclose(plane.numpy(), expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(shares.numpy(), variances[:-3:-1] / variances.sum(), rtol=1e-3, atol=1e-5)
    if width == 2:
        assert shares.sum().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_main_directions_need_three_vectors(count):
    with pytest.raises(ValueError, match=f"at least 3 vectors, got {count}"):
        main_directions(torch.ones(count, 5))


def test_equal_vectors_have_no_direction():
    points, shares = main_directions(torch.ones(5, 7))
    assert torch.equal(shares, torch.zeros(2))
    assert points.abs().max() < 1e-5
