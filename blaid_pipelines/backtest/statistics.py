"""Statistics of a daily result series: Sharpe ratio, probabilistic Sharpe ratio, track record length, intervals.

Mostly plain Python on purpose: sums are exact (``math.fsum``), so a value has the same bits on every run. None stands
for "undefined"; nothing here returns NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Moments:
    """Of ``count`` values: mean, sample standard deviation (n - 1), skewness and non-excess kurtosis (population)."""

    count: int
    mean: float
    deviation: float
    skewness: float
    kurtosis: float

    @property
    def sharpe(self) -> float:
        """Mean over standard deviation, per period, not annualised."""
        return self.mean / self.deviation


def moments(values: Sequence[float]) -> Moments | None:
    """The moments of ``values``; None below two values or without any spread."""
    count = len(values)
    if count < 2:
        return None
    mean = math.fsum(values) / count
    centred = [value - mean for value in values]
    squares = [value * value for value in centred]
    second = math.fsum(squares) / count
    largest = max(abs(value) for value in values)
    if second <= (1e-12 * largest) ** 2:  # equal values differ by rounding alone
        return None
    third = math.fsum(square * value for square, value in zip(squares, centred, strict=True)) / count
    fourth = math.fsum(square * square for square in squares) / count
    return Moments(
        count=count,
        mean=mean,
        deviation=math.sqrt(second * count / (count - 1)),
        skewness=third / second**1.5,
        kurtosis=fourth / second**2,
    )


def psr(
    sharpe: float, periods: int, skewness: float = 0.0, kurtosis: float = 3.0, benchmark: float = 0.0
) -> float | None:
    """Probability that the true Sharpe ratio exceeds ``benchmark``; all ratios per period.

    Phi[(SR - SR*) sqrt(T - 1) / sqrt(1 - g3 SR + (g4 - 1) / 4 SR^2)], kurtosis non-excess: Bailey and Lopez de Prado,
    "The Sharpe Ratio Efficient Frontier", Journal of Risk 15(2), 2012. None below two periods or where the variance
    of the estimate is not positive.
    """
    variance = _sharpe_variance(sharpe, skewness, kurtosis)
    if periods < 2 or variance <= 0.0:
        return None
    z = (sharpe - benchmark) * math.sqrt(periods - 1) / math.sqrt(variance)
    return 0.5 * math.erfc(-z / math.sqrt(2.0))


def minimum_track_record(
    sharpe: float,
    skewness: float = 0.0,
    kurtosis: float = 3.0,
    benchmark: float = 0.0,
    confidence: float = 0.95,
) -> float | None:
    """Periods after which PSR(benchmark) reaches ``confidence``.

    1 + [1 - g3 SR + (g4 - 1) / 4 SR^2] (z / (SR - SR*))^2, same source.
    None where the ratio is not over the benchmark: no record is long enough.
    """
    variance = _sharpe_variance(sharpe, skewness, kurtosis)
    if sharpe <= benchmark or variance <= 0.0:
        return None
    z = NormalDist().inv_cdf(confidence)
    return 1.0 + variance * (z / (sharpe - benchmark)) ** 2


def _sharpe_variance(sharpe: float, skewness: float, kurtosis: float) -> float:
    return 1.0 - skewness * sharpe + (kurtosis - 1.0) / 4.0 * sharpe * sharpe


def wilson_interval(successes: int, count: int, confidence: float = 0.95) -> tuple[float, float] | None:
    """Interval of a share (Wilson 1927), as shares of 1. None without observations."""
    if count == 0:
        return None
    z = NormalDist().inv_cdf(0.5 + confidence / 2.0)
    share = successes / count
    centre = share + z * z / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4.0 * count * count))
    scale = 1.0 + z * z / count
    # at the ends the bound is the share itself; rounding must not push it past
    return min(max(0.0, (centre - half) / scale), share), max(min(1.0, (centre + half) / scale), share)


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Interval of a mean by Student's t. None below two values."""
    count = len(values)
    if count < 2:
        return None
    from scipy.special import stdtrit

    mean = math.fsum(values) / count
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    half = float(stdtrit(count - 1, 0.5 + confidence / 2.0)) * math.sqrt(variance / count)
    return mean - half, mean + half


def stationary_indices(count: int, resamples: int, seed: int) -> NDArray[np.int64]:
    """Resampled positions (resamples, count) of a series of ``count`` values by the stationary bootstrap.

    Blocks of geometric length start anywhere and wrap around: Politis and Romano, "The Stationary Bootstrap", JASA
    89(428), 1994. The mean block length is the cube root of ``count``. The same seed gives the same positions.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    fresh = generator.random((resamples, count)) < 1.0 / max(round(count ** (1 / 3)), 1)
    fresh[:, :1] = True
    starts = generator.integers(0, count, (resamples, count), dtype=np.int64)
    position = np.arange(count, dtype=np.int64)
    block = np.maximum.accumulate(np.where(fresh, position, 0), axis=1)
    first = np.take_along_axis(starts, block, axis=1)
    return np.asarray((first + position - block) % count, dtype=np.int64)
