"""Item vectors: retrain PinSage weekly and when the features change, promote it if it is not worse, embed every item.

The model is trained and judged on the graph before the validation split. The champion then embeds all items twice: on
that same graph for rankers to be trained and judged with, since a later one knows what they are asked about; and on
the graph of today, to be indexed and brought online. Without `PINLOOM_AIRFLOW__EMBEDDINGS`, rankers read content
vectors and nothing triggers this DAG.
"""

from airflow.sdk import DAG

from pinloom.airflow import defaults
from pinloom.airflow.assets import FEATURES, VECTORS, model
from pinloom.airflow.gate import NewsGate
from pinloom.airflow.operator import RayJobOperator
from pinloom.airflow.training import DATASET, evaluate_promote, params, schedule, train
from pinloom.settings import get_settings

RECIPE = "pinsage"
ON = get_settings().airflow.embeddings == RECIPE

with DAG(
    f"train_{RECIPE}",
    doc_md=__doc__,
    schedule=schedule(FEATURES) if ON else None,
    start_date=defaults.START,
    catchup=False,
    max_active_runs=1,
    default_args=defaults.TASK,
    params=params(RECIPE),
):
    features, walked = "{{ ti.xcom_pull('news')['result'] }}", "{{ ti.xcom_pull('graph') }}"
    gate = NewsGate(task_id="news", upstream=["ingest", "features"], source=FEATURES, product=VECTORS)
    graph = RayJobOperator(task_id="graph", steps=["graph", "neighbourhoods"], inputs_from=[features], dataset=DATASET)
    fit = train(RECIPE, [features, walked])
    judge = evaluate_promote(RECIPE, [features, walked, "{{ ti.xcom_pull('train') }}"], outlets=[model(RECIPE)])
    embed = RayJobOperator(
        task_id="embed",
        steps=["graph", "neighbourhoods", "embed", "index", "materialize"],
        step_params={"until": "features"},
        inputs_from=[features],
        dataset=DATASET,
    )
    vectors = RayJobOperator(
        task_id="vectors",
        steps=["embed"],
        inputs_from=[features, walked],
        dataset=DATASET,
        outlets=[VECTORS],
        outlet_extra={"covers": "{{ ti.xcom_pull('news')['covers'] }}"},
    )
    gate >> graph >> fit >> judge >> [vectors, embed]
