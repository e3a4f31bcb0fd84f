"""Do those talk who must, on the ports that there are, and nobody else?"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.k8s.manifests import NEEDS_KUBECTL, OVERLAYS, Manifest, Pods, of_kind, pods, rendered, selected

pytestmark = NEEDS_KUBECTL
OURS = "app.kubernetes.io/part-of"
BETWEEN = {6380, 6381, 6383, *range(10002, 10102)}
STRANGERS = {
    "prometheus": {"app.kubernetes.io/name": "prometheus"},
    "operator": {"app.kubernetes.io/name": "kuberay-operator"},
    "operator, as its Helm chart labels it": {"app.kubernetes.io/component": "kuberay-operator"},
    "anybody": {"app.kubernetes.io/name": "anything"},
    "nobody": {},
}
EXPECTED = {
    ("head", "sockets"): BETWEEN,
    ("sockets", "head"): {*BETWEEN, 6379},
    ("sockets", "sockets"): BETWEEN,
    ("head", "head"): {*BETWEEN, 6379},
    ("submitter", "head"): {8265},
    ("prometheus", "head"): {8080, 9464},
    ("prometheus", "sockets"): {8080},
    ("operator", "head"): {8265},
    ("operator, as its Helm chart labels it", "head"): {8265},
}
OF_OVERLAY = {("overlays/socket-per-pod", "prometheus", "sockets"): {9464}}  # coe run --socket-metrics-port


def ports(rule: Manifest) -> Iterator[int]:
    """Of a rule; one that names none allows all."""
    for one in rule["ports"]:
        yield from range(one["port"], one.get("endPort", one["port"]) + 1)


def let(peers: list[Manifest], labels: dict[str, str], ours: bool) -> bool:
    """Whether one of the peers of a rule is a pod with these labels, in our namespace or in another one."""
    return any(
        selected(peer["podSelector"], labels) and (ours or peer.get("namespaceSelector") == {}) for peer in peers
    )


def may(manifests: list[Manifest], source: dict[str, str], target: dict[str, str]) -> set[int]:
    """On which TCP ports a pod may call another one."""
    allowed = []
    for way, here, there in (("egress", source, target), ("ingress", target, source)):
        direction = [
            one["spec"] for one in of_kind("NetworkPolicy", manifests) if selected(one["spec"]["podSelector"], here)
        ]
        direction = [one for one in direction if way.capitalize() in one["policyTypes"]]
        rules = [rule for one in direction for rule in one.get(way, [])]
        found = {
            port
            for rule in rules
            if let(rule["to" if way == "egress" else "from"], there, OURS in there)
            for port in ports(rule)
        }
        allowed.append(found if direction else set(range(1, 2**16)))
    return allowed[0] & allowed[1]


@pytest.mark.parametrize("name", OVERLAYS)
def test_who_may_call_whom(name: str) -> None:
    manifests = rendered(name)
    ours = {pod.component: pod.labels for pod in pods(manifests)}
    for source, from_labels in (ours | STRANGERS).items():
        for target, to_labels in (ours | STRANGERS).items():
            if source in ours or target in ours:
                expected = EXPECTED.get((source, target), set()) | OF_OVERLAY.get((name, source, target), set())
                assert may(manifests, from_labels, to_labels) == expected, (source, target)


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_policy_is_for_somebody_and_names_ports_that_they_have(name: str) -> None:
    manifests = rendered(name)
    for policy in of_kind("NetworkPolicy", manifests):
        theirs = [pod for pod in pods(manifests) if selected(policy["spec"]["podSelector"], pod.labels)]
        assert theirs, policy["metadata"]["name"]
        for rule in policy["spec"].get("ingress", []):
            assert all(set(ports(rule)) <= listening(pod) for pod in theirs), policy["metadata"]["name"]


def listening(pod: Pods) -> set[int]:
    """The ports that a pod declares, and those of its drivers and actors."""
    start = pod.start or {}
    workers = range(int(start.get("min-worker-port", 0)), int(start.get("max-worker-port", -1)) + 1)
    return {*pod.ports.values(), *workers}


@pytest.mark.parametrize("name", OVERLAYS)
def test_names_are_asked_of_the_clusters_dns_and_of_nobody_else(name: str) -> None:
    manifests = rendered(name)
    policies = {one["metadata"]["name"]: one["spec"] for one in of_kind("NetworkPolicy", manifests)}
    of_all = policies.pop("samba-coe")
    assert all(selected(of_all["podSelector"], pod.labels) for pod in [*pods(manifests), *pods(rendered("reader"))])
    assert of_all["policyTypes"] == ["Ingress", "Egress"] and "ingress" not in of_all
    (rule,) = of_all["egress"]
    assert rule["ports"] == [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]
    (peer,) = rule["to"]
    assert peer["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}
    others = [peer for spec in policies.values() for rule in spec.get("egress", []) for peer in rule["to"]]
    assert not [peer for peer in others if "namespaceSelector" in peer or "ipBlock" in peer]


@pytest.mark.parametrize("name", OVERLAYS)
def test_prometheus_scrapes_ports_that_there_are_and_that_it_may_call(name: str) -> None:
    manifests = rendered(name)
    (monitor,) = of_kind("PodMonitor", manifests)
    scraped = set[tuple[str, str]]()
    for pod in pods(manifests):
        if selected(monitor["spec"]["selector"], pod.labels):
            for endpoint in monitor["spec"]["podMetricsEndpoints"]:
                if endpoint["port"] in pod.ports:
                    scraped.add((pod.component, endpoint["port"]))
                    assert pod.ports[endpoint["port"]] in may(manifests, STRANGERS["prometheus"], pod.labels)
    of_sockets = {("sockets", "coe-metrics")} if name == "overlays/socket-per-pod" else set()
    assert scraped == {("head", "metrics"), ("head", "coe-metrics"), ("sockets", "metrics")} | of_sockets
    assert all(monitor["spec"]["jobLabel"] in pod.labels for pod in pods(manifests))
