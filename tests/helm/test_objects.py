"""What the chart makes of its values."""

import re

import pytest
import yaml

from pinloom.serving.config import http_options
from pinloom.settings import ServingSettings, Settings
from tests.helm.chart import CASES, NAMESPACE, Rendered, render
from tests.helm.schemas import kuberay_errors, kubernetes_errors

THIRD_PARTY = {"HTTPRoute", "PodMonitor", "ServiceMonitor"}
NAME = "rec-pinloom"


@pytest.fixture(scope="module", params=CASES)
def rendered(request) -> Rendered:
    return render(CASES[request.param])


@pytest.fixture(scope="module")
def small() -> Rendered:
    return render(CASES["small"])


def test_every_object_satisfies_kubernetes_strictly(rendered):
    own = [o for o in rendered.objects if not o["apiVersion"].startswith("ray.io/") and o["kind"] not in THIRD_PARTY]
    errors = {
        f"{o['kind']}/{o['metadata']['name']}": e for o in own + rendered.worker_pod() if (e := kubernetes_errors(o))
    }
    assert not errors


def test_every_object_of_kuberay_has_its_fields_and_no_others(rendered):
    jobs = list(rendered.rayjobs().values())
    objects = [o for o in rendered.objects if o["apiVersion"] == "ray.io/v1"] + jobs
    assert jobs
    errors = {o["kind"]: e for o in objects if (e := kuberay_errors(o))}
    assert not errors


def test_a_mistaken_field_is_seen(small):
    job = small.rayjobs()["default.yaml"]
    job["spec"]["ttlSeconds"] = 5
    job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["immage"] = "x"
    assert [e for e in kuberay_errors(job) if "ttlSeconds" in e]
    assert [e for e in kuberay_errors(job) if "immage" in e]


def test_no_two_objects_have_the_same_name(rendered):
    keys = [(o["apiVersion"], o["kind"], o["metadata"]["name"]) for o in rendered.objects]
    assert len(keys) == len(set(keys))


def test_what_is_referred_to_is_made_or_given(rendered):
    """ConfigMaps, service accounts and claims of every pod."""
    accounts, maps, claims = (rendered.names(k) for k in ("ServiceAccount", "ConfigMap", "PersistentVolumeClaim"))
    for where, pod in rendered.pod_templates():
        spec = pod["spec"]
        assert spec.get("serviceAccountName", "default") in accounts | {"default"} or "gpu" in where, where
        for container in spec["containers"]:
            for source in container.get("envFrom", []):
                assert source["configMapRef"]["name"] in maps, where
        for volume in spec.get("volumes", []):
            assert volume.get("configMap", {}).get("name") in maps | {None}, where
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            assert claim in claims | {None, "shared-lake"}, where


def test_every_key_of_the_secret_that_is_read_is_made(small):
    (secret,) = small.all("Secret")
    read = set(re.findall(r"'secretKeyRef': {'name': '[^']+', 'key': '([^']+)'", str(list(small.pod_templates()))))
    read |= {
        item["key"]
        for _, pod in small.pod_templates()
        for v in pod["spec"]["volumes"]
        for item in v.get("secret", {}).get("items", [])
    }
    assert {"api-key", "airflow-database", "mlflow-database", "postgres-password", "airflow-passwords.json"} <= read
    assert read <= set(secret["stringData"])


def test_services_find_their_pods(rendered):
    labels = [pod["metadata"]["labels"].items() for _, pod in rendered.pod_templates() if pod.get("metadata")]
    for service in rendered.all("Service"):
        assert any(service["spec"]["selector"].items() <= pod for pod in labels), service["metadata"]["name"]


def test_all_settings_are_settings_of_the_platform(rendered, monkeypatch):
    """A misspelt `PINLOOM_*` would be ignored in silence."""
    known = set()
    for name, field in Settings.model_fields.items():
        inner = getattr(field.annotation, "model_fields", None)
        known |= {f"PINLOOM_{name}__{n}".upper() for n in inner} if inner else {f"PINLOOM_{name}".upper()}
    for config in rendered.all("ConfigMap"):
        named = {key for key in config["data"] if key.startswith("PINLOOM_")}
        assert named <= known
        for key in named:
            monkeypatch.setenv(key, config["data"][key])
    settings = Settings()
    assert settings.airflow.backend == "kuberay"
    assert settings.kubernetes.namespace == NAMESPACE
    assert settings.online.store == "redis"


def test_the_empty_service_starts_serve_with_the_options_that_the_deploy_step_uses(small):
    config = yaml.safe_load(small.one("RayService", NAME)["spec"]["serveConfigV2"])
    assert config["applications"] == []
    assert config["http_options"] == http_options(Settings(serving=ServingSettings(host="0.0.0.0", port=8000)))


def test_no_image_is_outside_the_values_and_each_can_be_changed():
    changes = {
        f"images__{part}__{key}": f"my-{part}"
        for part in ("airflow", "ray", "postgres", "redis", "gitSync")
        for key in ("repository", "tag")
    }
    policies = {f"images__{part}__pullPolicy": "Never" for part in ("airflow", "ray", "postgres", "redis", "gitSync")}
    git = {"airflow__dags__gitSync__enabled": True, "airflow__dags__gitSync__repo": "https://git.example.com/dags"}
    found = render(**changes, **policies, **git)
    images, pulls = set(), set()
    for _, pod in found.pod_templates():
        for container in [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]:
            images.add(container["image"])
            pulls.add(container["imagePullPolicy"])
    for _, cluster in found.ray_clusters():
        images.add(cluster["autoscalerOptions"]["image"])
    assert images == {f"my-{part}:my-{part}" for part in ("airflow", "ray", "postgres", "redis", "gitSync")}
    assert pulls == {"Never"}


def test_gpus_become_limits_and_spot_nodes_a_group():
    found = render(CASES["production"])
    (service,) = found.all("RayService")
    (group,) = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    container = group["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    groups = found.rayjobs()["default.yaml"]["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    spot = next(g for g in groups if g["groupName"] == "spot")
    assert spot["template"]["spec"]["nodeSelector"] == {"node.example.com/lifecycle": "spot"}


def test_specs_of_kuberay_pass_through():
    found = render(
        rayJob__spec={"preRunningDeadlineSeconds": 77},
        rayJob__rayClusterSpec={"headServiceAnnotations": {"a": "b"}, "autoscalerOptions": {"version": "v2"}},
        serving__spec={"upgradeStrategy": {"type": "None"}},
        serving__rayClusterSpec={"headGroupSpec": {"serviceType": "NodePort"}},
    )
    job = found.rayjobs()["default.yaml"]["spec"]
    assert job["preRunningDeadlineSeconds"] == 77
    assert job["rayClusterSpec"]["headServiceAnnotations"] == {"a": "b"}
    assert job["rayClusterSpec"]["autoscalerOptions"]["version"] == "v2"
    assert job["rayClusterSpec"]["autoscalerOptions"]["idleTimeoutSeconds"] == 60
    service = found.one("RayService", NAME)["spec"]
    assert service["upgradeStrategy"] == {"type": "None"}
    assert service["rayClusterConfig"]["headGroupSpec"]["serviceType"] == "NodePort"


def test_one_step_has_a_spec_of_its_own():
    jobs = render(CASES["production"]).rayjobs()
    assert set(jobs) == {"default.yaml", "train.yaml"}
    assert jobs["train.yaml"]["spec"]["activeDeadlineSeconds"] == 86400
    assert [g["groupName"] for g in jobs["train.yaml"]["spec"]["rayClusterSpec"]["workerGroupSpecs"]] == ["gpu"]
    assert "activeDeadlineSeconds" not in jobs["default.yaml"]["spec"]


def test_a_shared_cluster_is_chosen_by_selector():
    found = render(CASES["shared-cluster"])
    (cluster,) = found.all("RayCluster")
    spec = found.rayjobs()["default.yaml"]["spec"]
    assert spec["clusterSelector"] == {"ray.io/cluster": cluster["metadata"]["name"]}
    assert "rayClusterSpec" not in spec
    assert "shutdownAfterJobFinishes" not in spec


def test_the_autoscaler_owns_the_number_of_workers():
    for _, cluster in render().ray_clusters():
        assert cluster["enableInTreeAutoscaling"] is True
        assert all("replicas" not in group for group in cluster["workerGroupSpecs"])
    fixed = render(serving__workerGroups={"workers": {"minReplicas": 3, "maxReplicas": 3}})
    cluster = fixed.one("RayService", NAME)["spec"]["rayClusterConfig"]
    assert cluster["enableInTreeAutoscaling"] is False
    assert cluster["workerGroupSpecs"][0]["replicas"] == 3


def test_the_migration_is_another_job_when_the_image_is_another():
    def job(tag: str) -> str:
        (name,) = render(CASES["small"], images__airflow__tag=tag).names("Job")
        return name

    assert job("1") == job("1") != job("2")


def test_a_group_without_pods_is_no_group(small):
    assert small.rayjobs()["default.yaml"]["spec"]["rayClusterSpec"]["workerGroupSpecs"] == []


def test_nothing_of_airflow_remains_when_it_is_off(rendered):
    found = render(airflow__enabled=False)
    assert not [o for o in found.objects if "airflow" in o["metadata"]["name"]]


def test_helm_test_scores_a_user_and_looks_at_airflow(small):
    pods = {o["metadata"]["name"]: o for o in small.all("Pod")}
    assert set(pods) == {f"{NAME}-test-score", f"{NAME}-test-airflow"}
    for pod in pods.values():
        compile(pod["spec"]["containers"][0]["args"][0], "test", "exec")
        assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"


def test_no_service_of_the_namespace_puts_variables_into_pods(rendered):
    """A Service named `mlflow` or `pinloom-ray` would make MLFLOW_PORT or PINLOOM_RAY_SERVICE_HOST."""
    for where, pod in rendered.pod_templates():
        assert pod["spec"].get("enableServiceLinks") is False or "gpu" in where, where


def test_ray_pods_keep_the_labels_that_kuberays_services_select_by(rendered):
    """Its head service of a RayService selects `app.kubernetes.io/name: kuberay`, whatever the template says."""
    for where, cluster in rendered.ray_clusters():
        templates = [cluster["headGroupSpec"]["template"], *(g["template"] for g in cluster["workerGroupSpecs"])]
        for template in templates:
            labels = template.get("metadata", {}).get("labels", {})
            assert not {"app.kubernetes.io/name", "app.kubernetes.io/created-by"} & set(labels), where


def test_a_ray_worker_that_ended_is_replaced(small):
    for where, cluster in small.ray_clusters():
        assert "restartPolicy" not in cluster["headGroupSpec"]["template"]["spec"], where
        assert all(g["template"]["spec"]["restartPolicy"] == "Never" for g in cluster["workerGroupSpecs"]), where


def test_the_secret_stays_as_long_as_the_data_that_it_opens(small):
    (secret,) = small.all("Secret")
    assert secret["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_the_key_that_signs_tokens_is_as_long_as_its_hash(small):
    (secret,) = small.all("Secret")
    assert len(secret["stringData"]["airflow-jwt-secret"]) * 8 >= 512


def test_budgets_of_pods_without_a_scale_are_numbers_that_let_nodes_be_drained():
    """Kubernetes never allows an eviction under `maxUnavailable` where the pods' owner has no scale."""
    assert {o["metadata"]["name"] for o in render().all("PodDisruptionBudget")} == {f"{NAME}-airflow"}
    workers = {"workers": {"minReplicas": 3, "maxReplicas": 5}}
    budget = render(serving__workerGroups=workers).one("PodDisruptionBudget", f"{NAME}-serving")["spec"]
    assert budget["minAvailable"] == 2
    assert "maxUnavailable" not in budget
    assert budget["selector"]["matchLabels"]["ray.io/node-type"] == "worker"


def test_postgres_runs_as_the_user_of_its_image():
    """It looks itself up by name: another number would have none."""
    for uid in (999, 70):
        pod = render(postgres__uid=uid).one("StatefulSet", f"{NAME}-postgres")["spec"]["template"]["spec"]
        own = pod["securityContext"]
        assert (own["runAsUser"], own["runAsGroup"], own["fsGroup"]) == (uid, uid, uid)
        assert own["runAsNonRoot"] is True
