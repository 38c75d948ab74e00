"""EDM: preconditioning from its principles, and Heun's method against closed-form Gaussian denoisers."""

import itertools
import math

import pytest
import torch

from infdiff.diffusion.edm import EDM, heun, sigma_steps
from infdiff.diffusion.mollifier import Mollifier

SIGMAS = torch.logspace(-3, 2, 11, dtype=torch.float64)
MEAN = torch.tensor([0.4, -0.2], dtype=torch.float64)
# Data: rotated, one wide and one narrow axis.
AXES = torch.tensor([[0.8, -0.6], [0.6, 0.8]], dtype=torch.float64)
COVARIANCE = AXES @ torch.diag(torch.tensor([0.3, 0.01], dtype=torch.float64)) @ AXES.mT
WHITE = torch.eye(2, dtype=torch.float64)
# As mollified noise: variance 1 at each point, neighbours alike; its axes are not the data's.
ALIKE = torch.tensor([[1.0, 0.7], [0.7, 1.0]], dtype=torch.float64)


def exact_denoiser(of_noise):
    """E[y | x] for Gaussian data and noise of covariance sigma^2 of_noise."""

    def denoise(x, sigma):
        gain = COVARIANCE @ torch.linalg.inv(COVARIANCE + sigma**2 * of_noise)
        return MEAN + (x - MEAN) @ gain.mT

    return denoise


def sample(steps, of_noise=WHITE, count=40_000, **options):
    generator, root = torch.Generator().manual_seed(0), torch.linalg.cholesky(of_noise)

    def noise():
        return torch.randn(count, 2, generator=generator, dtype=torch.float64) @ root.mT

    return heun(exact_denoiser(of_noise), noise(), steps, noise=noise, **options)


@pytest.mark.parametrize("of_noise", [WHITE, ALIKE], ids=["white", "mollified"])
@pytest.mark.parametrize(
    ("steps", "options"),
    [(128, {}), (256, {"s_churn": 40.0}), (256, {"s_churn": 40.0, "s_min": 0.05, "s_max": 50.0})],
    ids=["deterministic", "churn", "churn_between"],
)
def test_mean_and_covariance_are_right(of_noise, steps, options):
    x = sample(steps, of_noise, **options)
    torch.testing.assert_close(x.mean(dim=0), MEAN, rtol=0, atol=0.01)
    torch.testing.assert_close(torch.cov(x.mT), COVARIANCE, rtol=0, atol=0.006)
    narrow = ((x - MEAN) @ AXES)[:, 1].var().item()
    assert narrow == pytest.approx(0.01, rel=0.03)


def test_the_deterministic_sampler_follows_the_exact_path():
    """With white noise, (x - mean) / sqrt(variance + sigma^2) is constant on each of the data's axes.

    The published 18 steps end a twentieth to a tenth too far out; each doubling divides that by four.
    """
    start = torch.randn(100, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    variance = torch.tensor([0.3, 0.01], dtype=torch.float64)
    ratio = (variance / (variance + 80.0**2)).sqrt()
    exact = MEAN + ((80.0 * start - MEAN) @ AXES * ratio) @ AXES.mT

    def error(steps):
        out = heun(exact_denoiser(WHITE), start, steps, noise=lambda: start)
        return ((out - exact).norm() / (exact - MEAN).norm()).item()

    assert 0.05 < error(18) < 0.1
    assert error(128) < 1e-3
    assert error(256) == pytest.approx(error(128) / 4, rel=0.1), "second order"


def test_noise_is_added_as_algorithm_2_says():
    x, fresh = torch.tensor([[0.3, 0.9]]), torch.tensor([[0.2, -0.1]])
    seen = []

    def denoise(x, sigma):
        seen.append((sigma, x))
        return 0.5 * x

    levels = sigma_steps(4)
    heun(denoise, x, 4, noise=lambda: fresh, s_churn=1.0, s_min=1.0, s_max=10.0, s_noise=1.1)
    state, evaluations = levels[0] * x, iter(seen)
    for sigma, following in itertools.pairwise(levels):
        raised = sigma
        if 1.0 <= sigma <= 10.0:
            raised = sigma * 1.25  # gamma = 1 / 4
            state = state + math.sqrt(raised**2 - sigma**2) * 1.1 * fresh
        level, where = next(evaluations)
        assert level == pytest.approx(raised)
        torch.testing.assert_close(where, state)
        slope = 0.5 * state / raised
        if following:
            guess = state + (following - raised) * slope
            level, where = next(evaluations)
            assert level == pytest.approx(following)
            torch.testing.assert_close(where, guess)
            slope = (slope + 0.5 * guess / following) / 2
        state = state + (following - raised) * slope
    assert len(seen) == 2 * 4 - 1
    assert sum(1.0 <= level <= 10.0 for level in levels) == 1, "with levels on either side of the range"
    seen.clear()
    heun(denoise, x, 4, noise=lambda: fresh, s_churn=1000.0)
    assert seen[0][0] == pytest.approx(80 * math.sqrt(2)), "no more than doubles the variance"


def test_the_sampler_keeps_the_contract():
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    before, levels = x.clone(), []

    def denoise(x, sigma):
        levels.append(sigma)
        return torch.zeros_like(x)

    def no_noise():
        raise AssertionError("the deterministic sampler draws nothing")

    out = heun(denoise, x, noise=no_noise)
    assert torch.equal(x, before), "the input was changed in place"
    assert len(levels) == 35, "18 steps by default, two evaluations each but for the last"
    assert levels[0] == pytest.approx(80)
    assert levels[-1] == pytest.approx(0.002)
    torch.testing.assert_close(out, torch.zeros(3, 2), rtol=0, atol=1e-6)


def test_noise_levels_are_even_in_their_seventh_root():
    levels = sigma_steps(18)
    assert len(levels) == 19
    assert (levels[0], levels[-2], levels[-1]) == (pytest.approx(80), pytest.approx(0.002), 0.0)
    roots = torch.tensor(levels[:-1], dtype=torch.float64) ** (1 / 7)
    torch.testing.assert_close(roots.diff(), roots.diff()[:1].expand(17))
    assert sigma_steps(1) == [pytest.approx(80), 0.0]
    # rho = 1: even steps.
    assert sigma_steps(3, 1.0, 5.0, 1.0) == pytest.approx([5, 3, 1, 0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0,), "steps"), ((4, 0.0), "sigma_min=0"), ((4, 3.0, 2.0), "sigma_max=2"), ((4, 0.1, 2.0, 0.0), "rho=0")],
)
def test_bad_noise_levels_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        sigma_steps(*arguments)


@pytest.mark.parametrize("options", [{"data_std": 0.0}, {"log_std": -1.0}])
def test_bad_standard_deviations_are_refused(options):
    with pytest.raises(ValueError, match="positive standard deviations"):
        EDM(**options)


@pytest.mark.parametrize("data_std", [0.5, 0.2])
def test_preconditioning_follows_from_its_principles(data_std):
    """EDM appendix B.6: the input has variance 1, c_skip is the best linear estimate, the target has variance 1."""
    skip, out, scale, noise = EDM(data_std=data_std).preconditioning(SIGMAS)
    total = SIGMAS**2 + data_std**2
    one = torch.ones_like(SIGMAS)
    torch.testing.assert_close(scale**2 * total, one)
    torch.testing.assert_close(skip, data_std**2 / total)  # covariance of y and x over the variance of x
    remaining = (1 - skip) ** 2 * data_std**2 + skip**2 * SIGMAS**2  # variance of y - c_skip x
    torch.testing.assert_close(remaining / out**2, one)
    torch.testing.assert_close((4 * noise).exp(), SIGMAS)


def test_the_loss_weight_makes_errors_of_the_network_count_alike():
    process = EDM(data_std=0.3)
    out = process.preconditioning(SIGMAS).c_out
    torch.testing.assert_close(process.loss_weight(SIGMAS) * out**2, torch.ones_like(SIGMAS))


def test_limits_of_the_denoiser(generator):
    x = torch.randn(1, 3, 4, 5, generator=generator, dtype=torch.float64)
    answer = torch.randn(1, 3, 4, 5, generator=generator, dtype=torch.float64)
    inputs = []

    def network(scaled, c_noise):
        inputs.append((scaled, c_noise))
        return answer

    denoise = EDM(data_std=0.4).denoiser(network)
    torch.testing.assert_close(denoise(x, 1e-9), x, rtol=0, atol=1e-8)
    torch.testing.assert_close(inputs[-1][0], x / 0.4)
    torch.testing.assert_close(denoise(1e9 * x, 1e9), 0.4 * answer, rtol=0, atol=1e-8)
    torch.testing.assert_close(inputs[-1][0], x)
    torch.testing.assert_close(inputs[-1][1], torch.full((1,), math.log(1e9) / 4, dtype=torch.float64))


def test_each_image_has_its_own_noise_level(generator):
    process, x = EDM(), torch.randn(2, 3, 4, 4, generator=generator)
    sigma = torch.tensor([0.1, 3.0])

    def network(scaled, c_noise):
        return torch.sin(scaled + c_noise.view(-1, 1, 1, 1))

    both = process.denoise(network, x, sigma)
    for i in range(2):
        torch.testing.assert_close(process.denoiser(network)(x[i : i + 1], sigma[i].item()), both[i : i + 1])
    half = process.denoise(lambda scaled, c_noise: network(scaled, c_noise).bfloat16(), x, sigma)
    assert half.dtype == torch.float32


def test_a_perfect_network_on_gaussian_images_gives_samples_of_their_law():
    """The whole chain: preconditioning around F, and Heun's method, for independent pixels of variance data_std^2."""
    process = EDM(data_std=0.3)
    start = process.noise(500, 3, (8, 8), [torch.Generator().manual_seed(0)])
    out = heun(process.denoiser(lambda scaled, c_noise: torch.zeros_like(scaled)), start, 128, noise=lambda: start)
    assert out.std().item() == pytest.approx(0.3, rel=0.01)


def test_training_levels_are_log_normal():
    log = EDM(log_mean=-1.0, log_std=0.7).draw_sigma(40_000, torch.Generator().manual_seed(0)).log()
    assert log.mean().item() == pytest.approx(-1.0, abs=0.02)
    assert log.std().item() == pytest.approx(0.7, abs=0.02)
    default = EDM().draw_sigma(40_000, torch.Generator().manual_seed(0)).log()
    assert (default.mean().item(), default.std().item()) == (
        pytest.approx(-1.2, abs=0.03),
        pytest.approx(1.2, abs=0.03),
    )


@pytest.mark.parametrize("size", [(8, 8), (16, 16), (32, 16), (64, 64)])
@pytest.mark.parametrize("mollified", [False, True])
def test_noise_has_variance_1_at_every_size(size, mollified):
    process = EDM(mollifier=Mollifier(1.0, (16, 16)) if mollified else None)
    generators = [torch.Generator().manual_seed(seed) for seed in range(4)]
    noise = process.noise(400, 1, size, generators)
    # Away from the border: reflecting boundaries raise the variance there.
    inner = noise[..., size[0] // 4 : -(size[0] // 4), size[1] // 4 : -(size[1] // 4)]
    assert inner.var().item() == pytest.approx(1.0, rel=0.05)
    neighbours = (inner[..., 1:] * inner[..., :-1]).mean().item()
    # T twice: the correlation of points d base pixels apart is exp(-d^2 / 4).
    expected = math.exp(-((16 / size[1]) ** 2) / 4) if mollified else 0.0
    assert neighbours == pytest.approx(expected, abs=0.06)


def test_images_are_mollified_where_noise_is(generator):
    image = torch.randn(2, 3, 16, 16, generator=generator)
    mollifier = Mollifier(1.0, (16, 16))
    assert torch.equal(EDM(mollifier=mollifier).clean(image), mollifier(image))
    assert torch.equal(EDM().clean(image), image)


def test_an_images_noise_is_its_generators_alone():
    process = EDM()

    def noise(seeds):
        return process.noise(len(seeds), 3, (4, 6), [torch.Generator().manual_seed(seed) for seed in seeds])

    assert torch.equal(noise([5, 6, 7])[1:], noise([6, 7]))
