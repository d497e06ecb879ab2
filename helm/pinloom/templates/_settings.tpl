{{/* PINLOOM_* of all programs. The settings of a chart's user come last and win. */}}
{{- define "pinloom.settings" -}}
{{- $name := include "pinloom.fullname" . -}}
{{- $env := dict
  "PINLOOM_DATASET" .Values.dataset
  "PINLOOM_MLFLOW_URI" (include "pinloom.mlflowUri" .)
  "PINLOOM_ONLINE__STORE" "redis"
  "PINLOOM_ONLINE__REDIS_URL" (include "pinloom.redisUrl" .)
  "PINLOOM_AIRFLOW__BACKEND" "kuberay"
  "PINLOOM_AIRFLOW__PENDING_TIMEOUT_S" (.Values.rayJob.pendingTimeoutSeconds | toString)
  "PINLOOM_KUBERNETES__NAMESPACE" .Release.Namespace
  "PINLOOM_KUBERNETES__RAYSERVICE" (ternary $name "" .Values.serving.enabled)
  "PINLOOM_TRAINING__WORKERS" (.Values.rayJob.trainingWorkers | toString)
  "PINLOOM_RAY__SCHEDULE_TIMEOUT_S" "600"
  "PINLOOM_SERVING__HOST" "0.0.0.0"
  "PINLOOM_SERVING__PORT" "8000"
  "PINLOOM_SERVING__REQUIRE_API_KEY" (.Values.serving.requireApiKey | toString)
  "PINLOOM_SERVING__MIN_REPLICAS" (.Values.serving.minReplicas | toString)
  "PINLOOM_SERVING__MAX_REPLICAS" (.Values.serving.maxReplicas | toString)
  "PINLOOM_SERVING__CPUS_PER_REPLICA" (.Values.serving.cpusPerReplica | toString)
  "PINLOOM_SERVING__TARGET_ONGOING_REQUESTS" (.Values.serving.targetOngoingRequests | toString)
  "RAY_USAGE_STATS_ENABLED" "0"
  "FEAST_USAGE" "False"
  "GX_ANALYTICS_ENABLED" "False"
  "MLFLOW_DISABLE_TELEMETRY" "true"
-}}
{{- if include "pinloom.onVolume" . }}
{{- $_ := set $env "PINLOOM_LAKE" "file:///lake/lake" }}
{{- /* Checkpoints of a training must outlive the pods of its job. */}}
{{- $_ := set $env "PINLOOM_HOME" "/lake/home" }}
{{- else }}
{{- $_ := set $env "PINLOOM_LAKE" .Values.lake.url }}
{{- $_ := set $env "PINLOOM_HOME" "/home/pinloom/.pinloom" }}
{{- $_ := set $env "AWS_DEFAULT_REGION" .Values.s3.region }}
{{- with .Values.s3.endpoint }}{{ $_ := set $env "AWS_ENDPOINT_URL" . }}{{ end }}
{{- end }}
{{- range $key, $value := .Values.settings }}{{ $_ := set $env $key ($value | toString) }}{{ end }}
{{- range $key := keys $env | sortAlpha }}
{{ $key }}: {{ index $env $key | quote }}
{{- end }}
{{- end }}
