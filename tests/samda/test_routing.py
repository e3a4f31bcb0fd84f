"""Does an image reach the expert of its domain, and is what is said of that true?"""

import json

import numpy as np
import pytest

pytest.importorskip("torch", reason="no PyTorch here: make samda installs it")

from cluster.traces import read_trace
from node.errors import InputError
from samda.composition import EncoderFacts
from samda.routing.classifier import Classifier, fit, held_out, measure, pooled, shrunk
from samda.routing.files import JSON, NUMBERS, Router, check_encoder, load_router, save_router
from samda.routing.trace import order, trace_lines

FACTS = EncoderFacts("random", "a" * 64, 2, 16)


def drawn(seed=0, images=12, apart=3.0):
    """Features of three domains, one of which varies more, with one feature that never varies."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1, 2], images)
    middles = apart * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]])
    values = middles[labels] + rng.standard_normal((len(labels), 3)) * np.array([1, 1, 2])
    return np.hstack([values, np.full((len(labels), 1), 5.0)]), labels


def test_features_are_the_mean_and_the_deviation_of_each_channel():
    embedding = np.array([[[1, 3], [5, 7]], [[2, 2], [2, 2]]], np.float32)
    np.testing.assert_allclose(pooled(embedding), [4, 2, np.sqrt(5), 0])


def test_the_classifier_chooses_by_mahalanobis_distance():
    features, labels = drawn(images=6)
    classifier = fit("abc", features[:, :3], labels)
    centroids = np.stack([features[labels == domain, :3].mean(0) for domain in range(3)])
    left = features[:, :3] - centroids[labels]
    within = np.sqrt((left**2).sum(0) / (18 - 3))
    scale = within + np.median(within)
    inverse = np.linalg.inv(np.outer(scale, scale) * shrunk(np.cov((left / scale).T, ddof=0) * 18 / 15))
    new = np.random.default_rng(5).normal(1, 2, (40, 3))
    apart = new[:, None] - centroids
    distances = np.einsum("ndf,fg,ndg->nd", apart, inverse, apart)
    scores = classifier.scores(new)
    np.testing.assert_allclose(scores - scores[:, :1], (distances[:, :1] - distances) / 2, atol=1e-9)
    assert (classifier.choose(new) == distances.argmin(1)).all()


def test_a_covariance_is_shrunk_half_way_to_the_mean_of_its_diagonal():
    np.testing.assert_allclose(shrunk(np.array([[1.0, 2.0], [2.0, 9.0]])), [[3, 1], [1, 7]])


def test_features_that_never_vary_do_not_take_part_in_the_median():
    features = np.array([[0.0, 1, 1, 1], [2.0, 1, 1, 1], [9.0, 1, 1, 1], [11.0, 1, 1, 1]])
    labels = np.array([0, 0, 1, 1])
    both = fit("ab", features, labels).weights
    assert (both[:, 1:] != 0).any() and np.isfinite(both).all()
    np.testing.assert_allclose(
        np.diff(both, axis=0)[0, 1:], 0, atol=1e-12
    )  # equal in both domains: they decide nothing


def test_domains_that_are_apart_are_told_and_equal_ones_are_not():
    features, labels = drawn(images=60)
    out = held_out(labels, 0.5, 0)
    assert measure(fit("abc", features[~out], labels[~out]), features[out], labels[out]).right / out.sum() > 0.8
    features, labels = drawn(images=60, apart=0.0)
    measured = measure(fit("abc", features[~out], labels[~out]), features[out], labels[out])
    assert measured.interval[0] < 1 / 3 < measured.interval[1]


def test_the_confusion_has_own_domains_in_rows():
    classifier = Classifier(("a", "b"), np.array([[0.0], [10.0]]), np.array([0.0, -50.0]))
    measured = measure(classifier, np.array([[1.0], [9.0], [8.0], [11.0]]), np.array([0, 0, 0, 1]))
    assert measured.confusion.tolist() == [[1, 2], [0, 1]]
    assert (measured.right, measured.images) == (2, 4)
    assert measured.interval == pytest.approx((0.15, 0.85), abs=0.01)


def test_a_share_of_each_domain_is_held_out_by_seed():
    labels = np.repeat([0, 1, 2], [3, 10, 20])
    out = held_out(labels, 0.3, 1)
    assert [int(out[labels == domain].sum()) for domain in range(3)] == [1, 3, 6]
    assert (held_out(labels, 0.3, 1) == out).all() and (held_out(labels, 0.3, 2) != out).any()
    assert [int(held_out(labels, 0.99, 0)[labels == domain].sum()) for domain in range(3)] == [1, 8, 18]
    assert [int(held_out(labels, 0.001, 0)[labels == domain].sum()) for domain in range(3)] == [1, 1, 1]


def test_equal_images_are_refused():
    with pytest.raises(InputError, match="images of a domain are all the same"):
        fit("ab", np.array([[1.0], [1.0], [2.0], [2.0]]), np.array([0, 0, 1, 1]))


@pytest.fixture
def router(tmp_path):
    features, labels = drawn()
    classifier = fit(("a", "b", "c"), features, labels)
    save_router(tmp_path, Router(classifier, FACTS), measure(classifier, features, labels), 36, 7)
    return tmp_path


def test_a_router_comes_back_as_it_was(router):
    features, labels = drawn()
    found, made = load_router(router), fit(("a", "b", "c"), features, labels)
    assert found.encoder == FACTS and found.classifier.domains == ("a", "b", "c")
    assert (found.classifier.scores(features) == made.scores(features)).all()
    record = json.loads((router / JSON).read_text())
    assert (record["seed"], record["fitted_to"], record["held_out"]["images"]) == (7, 36, 36)
    assert record["held_out"]["confusion"] == measure(made, features, labels).confusion.tolist()


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        (JSON, None, r"router.json: cannot be read: No such file or directory; expected the folder of a router"),
        (JSON, b"{", r"router.json: is not JSON"),
        (JSON, b'{"format": 1, "kind": "samda-expert"}', r"is no router of format 1 \(kind 'samda-router'\)"),
        (JSON, b'{"format": 1, "kind": "samda-router"}', r"router.json and router.npz do not go together: 'encoder'"),
        (NUMBERS, None, "do not go together: .*No such file"),
        (NUMBERS, b"PK\x03\x04", "do not go together"),
        (NUMBERS, b"numbers", "do not go together"),
    ],
)
def test_a_router_that_is_damaged_is_one_line(router, file, content, said):
    (router / file).unlink() if content is None else (router / file).write_bytes(content)
    with pytest.raises(InputError, match=said):
        load_router(router)


def test_numbers_of_another_router_are_one_line(router):
    np.savez(router / NUMBERS, weights=np.zeros((3, 6)), offsets=np.ones(3))
    with pytest.raises(InputError, match=r"router.npz has weights \(3, 6\), router.json says \(3, 4\)"):
        load_router(router)


def test_another_encoder_is_one_line(router):
    with pytest.raises(InputError, match="was fitted to embeddings of random aaaaaaaaaaaa, not of hed bbbbbbbbbbbb"):
        check_encoder(router, load_router(router), EncoderFacts("hed", "b" * 64, 2, 16))
    check_encoder(router, load_router(router), FACTS)


def test_a_trace_has_every_request_at_its_time_with_its_expert(tmp_path):
    (tmp_path / "trace.jsonl").write_text(trace_lines([2, 0, 1, 1], rate=3))
    trace = read_trace(tmp_path / "trace.jsonl")
    assert trace.experts.tolist() == [2, 0, 1, 1] and not trace.notes
    assert trace.arrival_ps.tolist() == [0, 333_333_333_333, 666_666_666_667, 10**12]
    assert set(trace.input_tokens) == set(trace.output_tokens) == {1}


def test_images_come_again_until_there_are_enough_requests():
    assert order(3, 7, None) == [0, 1, 2, 0, 1, 2, 0]
    shaken = order(5, 12, 4)
    assert sorted(shaken[:5]) == sorted(shaken[5:10]) == list(range(5)) and shaken[:5] != shaken[5:10]
    assert order(5, 12, 4) == shaken != order(5, 12, 5)
