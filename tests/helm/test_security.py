"""Every pod satisfies Kubernetes' restricted profile (Pod Security Standards); no account may more than it does."""

import pytest

from tests.helm.chart import CASES, Rendered, render

NAME = "rec-pinloom"


@pytest.fixture(scope="module", params=["default", "small", "production"])
def rendered(request) -> Rendered:
    return render(CASES[request.param])


def containers(rendered):
    for where, pod in rendered.pod_templates():
        if "train.yaml" in where and "gpu" in where:
            continue  # A pod of the user's own.
        for container in [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]:
            yield f"{where}: {container['name']}", pod["spec"], container
    for where, cluster in rendered.ray_clusters():
        if "autoscalerOptions" in cluster:
            pod = cluster["headGroupSpec"]["template"]["spec"]
            yield f"{where}: autoscaler", pod, cluster["autoscalerOptions"]


def test_restricted_profile(rendered):
    for where, pod, container in containers(rendered):
        own = container["securityContext"]
        assert pod["securityContext"]["runAsNonRoot"] is True, where
        assert pod["securityContext"]["runAsUser"] > 0, where
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, where
        assert own["allowPrivilegeEscalation"] is False, where
        assert own["capabilities"] == {"drop": ["ALL"]}, where
        assert own["readOnlyRootFilesystem"] is True, where
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod), where
        assert all("hostPath" not in volume for volume in pod.get("volumes", [])), where


def test_resources_are_requested_and_memory_is_limited(rendered):
    for where, _, container in containers(rendered):
        assert {"cpu", "memory"} <= set(container["resources"]["requests"]), where
        assert "memory" in container["resources"]["limits"], where


def test_what_is_written_to_is_a_volume(rendered):
    for where, pod, container in containers(rendered):
        if container.get("name") != "git-sync-once" and "autoscaler" not in where:
            assert "/tmp" in {m["mountPath"] for m in container["volumeMounts"]}, where
        volumes = {v["name"] for v in pod.get("volumes", [])} | {"data"}
        assert {m["name"] for m in container.get("volumeMounts", [])} <= volumes, where


def test_accounts_may_only_what_they_need(rendered):
    rules = {o["metadata"]["name"]: o["rules"] for o in rendered.all("Role")}
    assert rules[f"{NAME}-jobs"] == [
        {"apiGroups": ["ray.io"], "resources": ["rayservices"], "resourceNames": [NAME], "verbs": ["get", "patch"]}
    ]
    airflow = rules[f"{NAME}-airflow"]
    assert {"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["get", "create", "delete"]} in airflow
    written = [r for r in airflow if set(r["verbs"]) & {"create", "delete", "patch"} and "pods" in r["resources"]]
    kubernetes = any(
        c["data"].get("AIRFLOW__CORE__EXECUTOR") == "KubernetesExecutor" for c in rendered.all("ConfigMap")
    )
    assert bool(written) == kubernetes
    assert not rendered.all("ClusterRole")
    assert "*" not in str(rules)


def test_the_token_of_kubernetes_is_only_where_it_is_used(rendered):
    with_token = {
        where for where, pod in rendered.pod_templates() if pod["spec"].get("automountServiceAccountToken", True)
    }
    allowed = ("Deployment/rec-pinloom-airflow-scheduler", "pod of a task", ", head", "train.yaml, gpu")
    assert all(where.endswith(allowed) for where in with_token)


def test_no_secret_is_in_a_config_map_or_a_command():
    found = render(
        secrets__apiKey="a-secret-of-mine-1",
        s3__secretAccessKey="a-secret-of-mine-2",
        s3__accessKeyId="id",
        secrets__airflowPassword="a-secret-of-mine-3",
        airflow__database__url="postgresql://u:a-secret-of-mine-4@h/d",
    )
    (secret,) = found.all("Secret")
    assert all(f"a-secret-of-mine-{i}" in str(secret) for i in (1, 2, 3, 4))
    assert "a-secret-of-mine" not in str([o for o in found.objects if o["kind"] != "Secret"])


@pytest.mark.parametrize("case", ["default", "production", "shared-cluster"])
def test_every_part_is_closed_by_a_network_policy(case):
    rendered = render(CASES[case])
    policies = [o["spec"] for o in rendered.all("NetworkPolicy")]
    for where, pod in rendered.pod_templates():
        labels = pod.get("metadata", {}).get("labels", {}).items()
        if "test" in where or "gpu" in where:
            continue  # Take no connections; a pod of the user's own.
        assert any(p["podSelector"]["matchLabels"].items() <= labels for p in policies), where


def test_the_dashboards_where_jobs_are_sent_are_open_to_airflow_and_the_operator_alone():
    jobs = render().one("NetworkPolicy", f"{NAME}-jobs")["spec"]["ingress"]
    (rule,) = (r for r in jobs if {"port": 8265} in r.get("ports", []))
    peers = str(rule["from"])
    assert "kuberay-operator" in peers
    assert "pinloom.io/airflow" in peers
    assert len(rule["from"]) == 2
