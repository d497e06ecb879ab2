"""What cannot work is refused, with what to do."""

import pytest

from tests.helm.chart import Refused, render


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"redis__enabled": False}, "set redis.url"),
        ({"mlflow__enabled": False}, "set mlflow.uri"),
        ({"postgres__enabled": False}, "airflow.database.url"),
        ({"postgres__enabled": False, "airflow__enabled": False}, "mlflow.database.url"),
        ({"lake__url": "gs://bucket"}, "must begin with s3://"),
        ({"secrets__apiKey": "short"}, "16 characters"),
        ({"airflow__scheduler__replicas": 2}, "KubernetesExecutor"),
        ({"airflow__dags__gitSync__enabled": True}, "gitSync.repo"),
        ({"ingress__enabled": True, "gateway__enabled": True}, "choose one"),
        ({"gateway__enabled": True}, "parentRefs"),
        ({"serving__workerGroups__workers__minReplicas": 9}, "minReplicas is above"),
        ({"serving__minReplicas": 9}, "serving.minReplicas"),
    ],
)
def test_impossible_combinations(settings, says):
    with pytest.raises(Refused, match=says):
        render(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"servign__enabled": True},
        {"airflow__apiserver__replicas": 1},
        {"serving__workerGroups": {"workers": {"gpu": 1}}},
        {"airflow__executor": "CeleryExecutor"},
        {"images__ray__pullPolicy": "Sometimes"},
        {"serving__maxReplicas": "four"},
        {"serving__maxReplicas": -1},
    ],
)
def test_misspelt_values(settings):
    with pytest.raises(Refused, match=r"values don't meet|additional properties|values.schema|schema"):
        render(**settings)


def test_a_cluster_without_kuberay():
    with pytest.raises(Refused, match="helm install kuberay-operator"):
        render(kuberay=False)
    render(kuberay=False, requireKubeRay=False)
