{{/* What all programs of Airflow have in common. */}}
{{- define "pinloom.airflow.config" -}}
{{- $name := include "pinloom.fullname" . -}}
{{- $env := dict
  "AIRFLOW__CORE__EXECUTOR" .Values.airflow.executor
  "AIRFLOW__CORE__DAGS_FOLDER" (include "pinloom.airflow.dagsFolder" .)
  "AIRFLOW__CORE__LOAD_EXAMPLES" "False"
  "AIRFLOW__CORE__PARALLELISM" (.Values.airflow.parallelism | toString)
  "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION" (.Values.airflow.dagsPaused | ternary "True" "False")
  "AIRFLOW__CORE__EXECUTION_API_SERVER_URL" (printf "%s/execution/" (include "pinloom.airflowUrl" .))
  "AIRFLOW__CORE__HOSTNAME_CALLABLE" "airflow.utils.net.get_host_ip_address"
  "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS" "admin:admin"
  "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE" "/opt/airflow/passwords.json"
  "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS" (.Values.airflow.allAdmins | ternary "True" "False")
  "AIRFLOW__API__WORKERS" (.Values.airflow.apiServer.workers | toString)
  "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES" "1"
  "AIRFLOW__LOGGING__BASE_LOG_FOLDER" "/opt/airflow/logs"
  "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK" "True"
  "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED" "False"
  "PINLOOM_KUBERNETES__RAYJOBS" "/etc/pinloom/rayjobs"
-}}
{{- with .Values.airflow.apiServer.baseUrl }}{{ $_ := set $env "AIRFLOW__API__BASE_URL" . }}{{ end }}
{{- if eq .Values.airflow.executor "KubernetesExecutor" }}
{{- $_ := set $env "AIRFLOW__KUBERNETES_EXECUTOR__NAMESPACE" .Release.Namespace }}
{{- $_ := set $env "AIRFLOW__KUBERNETES_EXECUTOR__POD_TEMPLATE_FILE" "/etc/pinloom/airflow/pod.yaml" }}
{{- end }}
{{- range $key, $value := .Values.airflow.config }}{{ $_ := set $env $key ($value | toString) }}{{ end }}
{{- range $key := keys $env | sortAlpha }}
{{ $key }}: {{ index $env $key | quote }}
{{- end }}
{{- end }}

{{- define "pinloom.airflow.dagsFolder" -}}
{{- $dags := .Values.airflow.dags -}}
{{- if $dags.gitSync.enabled }}/dags/repo/{{ $dags.gitSync.subPath }}{{ else }}{{ $dags.path }}{{ end -}}
{{- end }}

{{- define "pinloom.airflow.env" -}}
{{- $secret := include "pinloom.secret" . -}}
env:
  - name: AIRFLOW__DATABASE__SQL_ALCHEMY_CONN
    valueFrom: {secretKeyRef: {name: {{ $secret }}, key: airflow-database}}
  - name: AIRFLOW__CORE__FERNET_KEY
    valueFrom: {secretKeyRef: {name: {{ $secret }}, key: airflow-fernet-key}}
  - name: AIRFLOW__API__SECRET_KEY
    valueFrom: {secretKeyRef: {name: {{ $secret }}, key: airflow-api-secret}}
  - name: AIRFLOW__API_AUTH__JWT_SECRET
    valueFrom: {secretKeyRef: {name: {{ $secret }}, key: airflow-jwt-secret}}
  {{- with .Values.airflow.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
envFrom:
  {{- include "pinloom.envFrom" . | nindent 2 }}
  - configMapRef: {name: {{ include "pinloom.fullname" . }}-airflow}
{{- end }}

{{- define "pinloom.airflow.mounts" -}}
volumeMounts:
  - {name: home, mountPath: /opt/airflow}
  - {name: logs, mountPath: /opt/airflow/logs}
  - {name: tmp, mountPath: /tmp}
  - {name: rayjobs, mountPath: /etc/pinloom/rayjobs, readOnly: true}
  {{- if eq .Values.airflow.executor "KubernetesExecutor" }}
  - {name: pod-template, mountPath: /etc/pinloom/airflow, readOnly: true}
  {{- end }}
  {{- if .Values.airflow.dags.gitSync.enabled }}
  - {name: dags, mountPath: /dags, readOnly: true}
  {{- end }}
{{- end }}

{{- define "pinloom.airflow.volumes" -}}
{{- $name := include "pinloom.fullname" . -}}
volumes:
  - name: home
    emptyDir: {}
  - name: tmp
    emptyDir: {}
  - name: logs
    {{- if .Values.airflow.logs.persistent }}
    persistentVolumeClaim: {claimName: {{ include "pinloom.logsClaim" . }}}
    {{- else }}
    emptyDir: {}
    {{- end }}
  - name: rayjobs
    configMap: {name: {{ $name }}-rayjobs}
  {{- if eq .Values.airflow.executor "KubernetesExecutor" }}
  - name: pod-template
    configMap: {name: {{ $name }}-airflow-pod}
  {{- end }}
  {{- if .Values.airflow.dags.gitSync.enabled }}
  - name: dags
    emptyDir: {}
  {{- end }}
{{- end }}

{{/* git-sync: once before the program, or beside it. (list . true) = once */}}
{{- define "pinloom.airflow.gitSync" -}}
{{- $root := index . 0 -}}{{- $once := index . 1 -}}{{- $git := $root.Values.airflow.dags.gitSync -}}
- name: git-sync{{ if $once }}-once{{ end }}
  {{- include "pinloom.image" (list $root "gitSync") | nindent 2 }}
  securityContext:
    {{- toYaml $root.Values.containerSecurityContext | nindent 4 }}
  args:
    - --repo={{ $git.repo }}
    - --ref={{ $git.ref }}
    - --root=/dags
    - --link=repo
    - --depth=1
    {{- if $once }}
    - --one-time
    {{- else }}
    - --period={{ $git.period }}s
    {{- end }}
  {{- with $git.existingSecret }}
  env:
    - name: GITSYNC_USERNAME
      valueFrom: {secretKeyRef: {name: {{ . }}, key: username}}
    - name: GITSYNC_PASSWORD
      valueFrom: {secretKeyRef: {name: {{ . }}, key: password}}
  {{- end }}
  resources:
    requests: {cpu: 20m, memory: 64Mi}
    limits: {memory: 128Mi}
  volumeMounts:
    - {name: dags, mountPath: /dags}
    - {name: tmp, mountPath: /tmp}
{{- end }}

{{/* What makes a pod start anew when it changes. */}}
{{- define "pinloom.airflow.checksums" -}}
pinloom.io/settings: {{ include "pinloom.settings" . | sha256sum | trunc 16 }}
pinloom.io/config: {{ include "pinloom.airflow.config" . | sha256sum | trunc 16 }}
pinloom.io/secrets: {{ list .Values.secrets .Values.airflow.database | toJson | sha256sum | trunc 16 }}
{{- end }}

{{/*
A Deployment of one program. (dict "root" . "name" "scheduler" "args" (list …) "part" values of it "api" needs the
Kubernetes API "probes" YAML, "ports" YAML, "dags" reads the DAG files)
*/}}
{{- define "pinloom.airflow.deployment" -}}
{{- $root := .root -}}{{- $name := include "pinloom.fullname" $root -}}{{- $component := printf "airflow-%s" .name -}}
{{- $git := and $root.Values.airflow.dags.gitSync.enabled .dags -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ $name }}-{{ $component }}
  labels:
    {{- include "pinloom.labels" (list $root $component) | nindent 4 }}
spec:
  replicas: {{ .part.replicas | default 1 }}
  {{- if eq (int (.part.replicas | default 1)) 1 }}
  strategy:
    type: Recreate
  {{- end }}
  selector:
    matchLabels:
      {{- include "pinloom.selector" (list $root $component) | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "pinloom.selector" (list $root $component) | nindent 8 }}
        pinloom.io/airflow: "true"
      annotations:
        {{- include "pinloom.airflow.checksums" $root | nindent 8 }}
    spec:
      serviceAccountName: {{ $name }}-airflow
      automountServiceAccountToken: {{ .api | default false }}
      enableServiceLinks: false
      {{- include "pinloom.imagePullSecrets" $root | nindent 6 }}
      securityContext:
        {{- toYaml $root.Values.podSecurityContext | nindent 8 }}
      terminationGracePeriodSeconds: 60
      initContainers:
        - name: wait-for-migrations
          {{- include "pinloom.image" (list $root "airflow") | nindent 10 }}
          args: [airflow, db, check-migrations, --migration-wait-timeout, "600"]
          securityContext:
            {{- toYaml $root.Values.containerSecurityContext | nindent 12 }}
          resources:
            {{- toYaml .part.resources | nindent 12 }}
          {{- include "pinloom.airflow.env" $root | nindent 10 }}
          {{- include "pinloom.airflow.mounts" $root | nindent 10 }}
        {{- if $git }}
        {{- include "pinloom.airflow.gitSync" (list $root true) | nindent 8 }}
        {{- end }}
      containers:
        - name: {{ .name }}
          {{- include "pinloom.image" (list $root "airflow") | nindent 10 }}
          {{- with .command }}
          command: {{ toJson . }}
          {{- end }}
          {{- with .args }}
          args: {{ toJson . }}
          {{- end }}
          securityContext:
            {{- toYaml $root.Values.containerSecurityContext | nindent 12 }}
          resources:
            {{- toYaml .part.resources | nindent 12 }}
          {{- .extra | nindent 10 }}
          {{- include "pinloom.airflow.env" $root | nindent 10 }}
          {{- include "pinloom.airflow.mounts" $root | nindent 10 }}
            {{- if eq .name "api-server" }}
            - {name: passwords, mountPath: /etc/pinloom/passwords, readOnly: true}
            {{- end }}
        {{- if $git }}
        {{- include "pinloom.airflow.gitSync" (list $root false) | nindent 8 }}
        {{- end }}
      {{- include "pinloom.airflow.volumes" $root | nindent 6 }}
        {{- if eq .name "api-server" }}
        - name: passwords
          secret:
            secretName: {{ include "pinloom.secret" $root }}
            items: [{key: airflow-passwords.json, path: passwords.json}]
        {{- end }}
      {{- include "pinloom.placement" .part | nindent 6 }}
{{- end }}
