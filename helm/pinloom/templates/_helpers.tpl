{{/* Names */}}
{{- define "pinloom.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride | trunc 30 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}{{ .Release.Name | trunc 30 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name $name | trunc 30 | trimSuffix "-" }}{{ end -}}
{{- end }}

{{- define "pinloom.secret" -}}
{{ .Values.secrets.existingSecret | default (include "pinloom.fullname" .) }}
{{- end }}

{{/* Labels: of an object, and those by which its pods are found. (list . "component") */}}
{{- define "pinloom.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Values.nameOverride | default $root.Chart.Name }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "pinloom.labels" -}}
{{- $root := index . 0 -}}
{{ include "pinloom.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Images: (list . "airflow") gives image and imagePullPolicy. */}}
{{- define "pinloom.image" -}}
{{- $root := index . 0 -}}{{- $image := index $root.Values.images (index . 1) -}}
image: {{ printf "%s:%s" $image.repository ($image.tag | default $root.Chart.AppVersion) | quote }}
imagePullPolicy: {{ $image.pullPolicy }}
{{- end }}

{{- define "pinloom.imagePullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* nodeSelector, tolerations, affinity of one part */}}
{{- define "pinloom.placement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Where things are */}}
{{- define "pinloom.onVolume" -}}{{ if not .Values.lake.url }}yes{{ end }}{{- end }}

{{- define "pinloom.lakeClaim" -}}
{{ .Values.lake.volume.existingClaim | default (printf "%s-lake" (include "pinloom.fullname" .)) }}
{{- end }}

{{- define "pinloom.logsClaim" -}}
{{ .Values.airflow.logs.existingClaim | default (printf "%s-airflow-logs" (include "pinloom.fullname" .)) }}
{{- end }}

{{- define "pinloom.servingUrl" -}}
http://{{ include "pinloom.fullname" . }}-serve-svc.{{ .Release.Namespace }}.svc:8000
{{- end }}

{{- define "pinloom.airflowUrl" -}}
http://{{ include "pinloom.fullname" . }}-airflow.{{ .Release.Namespace }}.svc:8080
{{- end }}

{{- define "pinloom.mlflowUri" -}}
{{- if .Values.mlflow.enabled -}}
http://{{ include "pinloom.fullname" . }}-mlflow.{{ .Release.Namespace }}.svc:5000
{{- else }}{{ .Values.mlflow.uri }}{{ end -}}
{{- end }}

{{- define "pinloom.redisUrl" -}}
{{- if .Values.redis.enabled -}}
{{ include "pinloom.fullname" . }}-redis.{{ .Release.Namespace }}.svc:6379
{{- else }}{{ .Values.redis.url }}{{ end -}}
{{- end }}

{{/* A key of the generated Secret: what is there already, else what is given, else something random. */}}
{{- define "pinloom.stable" -}}
{{- $root := index . 0 -}}{{- $key := index . 1 -}}{{- $given := index . 2 -}}{{- $length := index . 3 -}}
{{- $live := lookup "v1" "Secret" $root.Release.Namespace (include "pinloom.fullname" $root) -}}
{{- if $given }}{{ $given }}
{{- else if and $live (hasKey ($live.data | default dict) $key) }}{{ index $live.data $key | b64dec }}
{{- else }}{{ randAlphaNum (int $length) }}{{ end -}}
{{- end }}

{{/* Environment of everything that is Pinloom */}}
{{- define "pinloom.envFrom" -}}
- configMapRef: {name: {{ include "pinloom.fullname" . }}-settings}
{{- end }}

{{- define "pinloom.secretEnv" -}}
{{- $secret := include "pinloom.secret" . -}}
{{- if .Values.serving.requireApiKey }}
- name: PINLOOM_SERVING__API_KEY
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: api-key}}
{{- end }}
{{- if or .Values.s3.accessKeyId .Values.secrets.existingSecret }}
- name: AWS_ACCESS_KEY_ID
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: s3-access-key-id, optional: true}}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: s3-secret-access-key, optional: true}}
{{- end }}
{{- end }}
