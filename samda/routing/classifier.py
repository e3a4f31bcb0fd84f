"""The nearest centroid, with deviations that are shrunk towards their median.

An embedding (C, h, w) is pooled over space into 2 C features: the mean and the deviation of each channel. A domain is
known by the mean of its images' features. Distances are in deviations within domains, feature by feature, to each of
which the median of all is added, as Tibshirani et al. do it ("Diagnosis of multiple cancer types by shrunken centroids
of gene expression", PNAS 99, 2002, 6567), so that of many features and few images those that hardly vary do not decide.
Centroids are not shrunk.
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
FEWEST = 3  # images of a domain: two to be fitted to, as one has no deviation, and one held out


@dataclass(frozen=True, eq=False)
class Classifier:
    """``centroids`` (domains, features), in the order of ``domains``; ``deviations`` (features,), above 0."""

    domains: tuple[str, ...]
    centroids: Array
    deviations: Array

    def distances(self, features: Array) -> Array:
        """(images, domains): the root of the mean square, over features, of the difference in deviations."""
        apart = (features[:, None] - self.centroids) / self.deviations
        return np.sqrt((apart**2).mean(-1))

    def choose(self, features: Array) -> Ints:
        """The number of the nearest domain, of each image; the first of equal ones."""
        return self.distances(features).argmin(1)


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
    return Classifier(tuple(domains), centroids, within + usual)


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
