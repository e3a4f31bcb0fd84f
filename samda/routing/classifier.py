"""Linear discriminant analysis with a covariance that is shrunk, so that few images of many features suffice.

An embedding (C, h, w) is pooled over space into 2 C features: the mean and the deviation of each channel. A domain is
known by the mean of its images' features, and an image is of the nearest domain, by Mahalanobis' distance with one
covariance within all domains. Features are divided by their deviations within domains, to each of which the median of
all is added, as those that hardly vary in few images shall not decide (Tibshirani et al., PNAS 99, 2002, 6567); the
covariance S of what is left becomes (1 - a) S + a m I, m the mean of its diagonal (Friedman, "Regularized discriminant
analysis", J. Am. Statistical Association 84, 1989, 165). That a is a half is ours: docs/samda.md has what was tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cluster.routing.report import wilson
from node.errors import InputError

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
SHRINKAGE = 0.5
FEWEST = 3  # images of a domain: two to be fitted to, as one has no deviation, and one held out


@dataclass(frozen=True, eq=False)
class Classifier:
    """``weights`` (domains, features) and ``offsets`` (domains,), in the order of ``domains``."""

    domains: tuple[str, ...]
    weights: Array
    offsets: Array

    def scores(self, features: Array) -> Array:
        """(images, domains): log-likelihoods, up to a number of each image's own, were features normal."""
        return features @ self.weights.T + self.offsets

    def choose(self, features: Array) -> Ints:
        """The number of the likeliest domain, of each image; the first of equal ones."""
        return self.scores(features).argmax(1)


@dataclass(frozen=True, eq=False)
class Measured:
    """``confusion`` (domains, domains): images held out, by their own domain (rows) and the chosen one (columns)."""

    confusion: Ints

    @property
    def right(self) -> int:
        """Images that were told rightly."""
        return int(self.confusion.trace())

    @property
    def images(self) -> int:
        """All that were held out."""
        return int(self.confusion.sum())

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's, of the accuracy, 95 %."""
        return wilson(self.right, self.images)


def pooled(embedding: npt.NDArray[np.float32]) -> Array:
    """Features (2 C,) of an embedding (C, h, w)."""
    places = embedding.reshape(len(embedding), -1).astype(np.float64)
    return np.concatenate([places.mean(1), places.std(1)])


def fit(domains: Sequence[str], features: Array, labels: Ints) -> Classifier:
    """From features (images, features) and the number of each image's domain, of which each has two at least.

    ``InputError`` where no feature varies within a domain: then all its images are one.
    """
    centroids = np.stack([features[labels == domain].mean(0) for domain in range(len(domains))])
    left = features - centroids[labels]
    within = np.sqrt((left**2).sum(0) / (len(features) - len(domains)))
    usual = float(np.median(within[within > 0])) if within.any() else 0.0
    if not usual:
        raise InputError("images of a domain are all the same: nothing says how they vary; give different ones")
    scale = within + usual
    left = left / scale
    covariance = left.T @ left / (len(features) - len(domains))
    weights = np.linalg.solve(shrunk(covariance), (centroids / scale).T).T / scale
    return Classifier(tuple(domains), weights, -(weights * centroids).sum(1) / 2)


def shrunk(covariance: Array) -> Array:
    """A covariance (features, features) and its like with the mean of the diagonal on it and nothing beside, mixed."""
    size = len(covariance)
    found: Array = (1 - SHRINKAGE) * covariance + SHRINKAGE * covariance.trace() / size * np.eye(size)
    return found


def held_out(labels: Ints, share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Which images are held out: a share of each domain, rounded, but one at least, and two are left."""
    chosen = np.zeros(len(labels), bool)
    drawn = np.random.default_rng(seed)
    for domain in range(labels.max() + 1):
        own = np.flatnonzero(labels == domain)
        count = min(max(1, round(share * len(own))), len(own) - 2)
        chosen[drawn.permutation(own)[:count]] = True
    return chosen


def measure(classifier: Classifier, features: Array, labels: Ints) -> Measured:
    """What it makes of images whose domains are known."""
    confusion = np.zeros((len(classifier.domains),) * 2, np.int64)
    np.add.at(confusion, (labels, classifier.choose(features)), 1)
    return Measured(confusion)
