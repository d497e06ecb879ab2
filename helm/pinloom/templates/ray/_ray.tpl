{{/*
Ray pods. (dict "root" . "kind" "serving"|"jobs" "role" "head"|"worker" "part" values of the group "name" container)
*/}}
{{- define "pinloom.ray.pod" -}}
{{- $root := .root -}}{{- $name := include "pinloom.fullname" $root -}}
metadata:
  labels:
    {{- include "pinloom.ray.labels" (list $root .kind) | nindent 4 }}
spec:
  serviceAccountName: {{ $name }}-{{ .kind }}
  enableServiceLinks: false
  # Ray's autoscaler and the deploy step, both on the head, talk to the Kubernetes API.
  automountServiceAccountToken: {{ eq .role "head" }}
  {{- include "pinloom.imagePullSecrets" $root | nindent 2 }}
  securityContext:
    {{- toYaml $root.Values.podSecurityContext | nindent 4 }}
  {{- if eq .kind "serving" }}
  terminationGracePeriodSeconds: 60
  {{- end }}
  {{- if eq .role "worker" }}
  # To Ray's autoscaler a pod is a node: one that ended is replaced, not started again.
  restartPolicy: Never
  {{- end }}
  containers:
    - name: ray-{{ .role }}
      {{- include "pinloom.image" (list $root "ray") | nindent 6 }}
      securityContext:
        {{- toYaml $root.Values.containerSecurityContext | nindent 8 }}
      {{- if eq .role "head" }}
      ports:
        - {name: gcs-server, containerPort: 6379}
        - {name: dashboard, containerPort: 8265}
        - {name: client, containerPort: 10001}
        - {name: metrics, containerPort: 8080}
        {{- if eq .kind "serving" }}
        - {name: serve, containerPort: 8000}
        {{- end }}
      {{- else }}
      ports:
        - {name: metrics, containerPort: 8080}
        {{- if eq .kind "serving" }}
        - {name: serve, containerPort: 8000}
        {{- end }}
      {{- end }}
      {{- if and (eq .role "worker") (eq .kind "serving") }}
      {{- /* KubeRay's own, which gives 2 s once: a busy node answers later. Serve's proxy goes on for 30 s after it says
      that it leaves. */}}
      readinessProbe:
        exec:
          command:
            - bash
            - -c
            - wget --tries 1 -T 10 -q -O- http://localhost:52365/api/local_raylet_healthz | grep success &&
              wget --tries 1 -T 10 -q -O- http://localhost:8000/-/healthz | grep success
        initialDelaySeconds: 10
        periodSeconds: 5
        timeoutSeconds: 15
        failureThreshold: 3
      {{- end }}
      env:
        {{- include "pinloom.ray.patience" . | nindent 8 }}
        {{- include "pinloom.secretEnv" $root | nindent 8 }}
        {{- with $root.Values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
        - {name: HOME, value: /home/pinloom}
      envFrom:
        {{- include "pinloom.envFrom" $root | nindent 8 }}
      resources:
        {{- $resources := deepCopy .part.resources }}
        {{- if gt (int (.part.gpus | default 0)) 0 }}
        {{- $limits := $resources.limits | default dict }}
        {{- $_ := set $limits .part.gpuResource (int .part.gpus) }}
        {{- $_ := set $resources "limits" $limits }}
        {{- end }}
        {{- toYaml $resources | nindent 8 }}
      volumeMounts:
        {{- include "pinloom.ray.mounts" $root | nindent 8 }}
  volumes:
    - name: home
      emptyDir: {}
    - name: tmp
      emptyDir: {}
    {{- if include "pinloom.onVolume" $root }}
    - name: lake
      persistentVolumeClaim: {claimName: {{ include "pinloom.lakeClaim" $root }}}
    {{- end }}
  {{- include "pinloom.placement" .part | nindent 2 }}
{{- end }}

{{/*
Labels of Ray's pods. (list . "serving"|"jobs") `app.kubernetes.io/name` stays KubeRay's: its services select by it.
*/}}
{{- define "pinloom.ray.labels" -}}
{{- $root := index . 0 -}}{{- $kind := index . 1 -}}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: ray-{{ $kind }}
pinloom.io/ray: {{ $kind }}
{{- end }}

{{/* Ray on a node that is busy. */}}
{{- define "pinloom.ray.patience" -}}
# A node that does not answer five times in 10 s each would be dead.
- {name: RAY_health_check_timeout_ms, value: "20000"}
# One idle worker per logical CPU would start with the first driver.
- {name: RAY_prestart_worker_first_driver, value: "0"}
- {name: RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO, value: "0"}
# `ray start` would give up after 20 to 30 s without an answer of its GCS.
- {name: RAY_gcs_server_port_wait_time_s, value: "120"}
# A worker process that still imports after 60 s would be killed.
- {name: RAY_worker_register_timeout_seconds, value: "180"}
# A proxy that is not ready after 5 s would be killed while it still imports.
- {name: RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S, value: "60"}
{{- end }}

{{- define "pinloom.ray.mounts" -}}
- {name: home, mountPath: /home/pinloom}
- {name: tmp, mountPath: /tmp}
{{- if include "pinloom.onVolume" . }}
- {name: lake, mountPath: /lake}
{{- end }}
{{- end }}

{{/* A RayCluster spec. (dict "root" . "kind" "serving"|"jobs" "part" .Values.serving|.Values.rayJob "idle" seconds) */}}
{{- define "pinloom.ray.cluster" -}}
{{- $root := .root -}}{{- $kind := .kind -}}
{{- $scales := false -}}
{{- range .part.workerGroups }}{{ if gt (int .maxReplicas) (int .minReplicas) }}{{ $scales = true }}{{ end }}{{ end -}}
rayVersion: {{ $root.Values.rayVersion | quote }}
enableInTreeAutoscaling: {{ $scales }}
{{- if $scales }}
autoscalerOptions:
  {{- include "pinloom.image" (list $root "ray") | nindent 2 }}
  idleTimeoutSeconds: {{ .idle }}
  upscalingMode: Default
  resources:
    {{- toYaml .part.autoscaler.resources | nindent 4 }}
  securityContext:
    {{- toYaml $root.Values.containerSecurityContext | nindent 4 }}
  env:
    - {name: HOME, value: /home/pinloom}
  volumeMounts:
    - {name: home, mountPath: /home/pinloom}
    - {name: tmp, mountPath: /tmp}
{{- end }}
headGroupSpec:
  rayStartParams:
    dashboard-host: 0.0.0.0
    {{- toYaml .part.head.rayStartParams | nindent 4 }}
  template:
    {{- include "pinloom.ray.pod" (dict "root" $root "kind" $kind "role" "head" "part" .part.head) | nindent 4 }}
workerGroupSpecs:
  {{- $groups := dict }}
  {{- range $name, $group := .part.workerGroups }}{{ if gt (int .maxReplicas) 0 }}{{ $_ := set $groups $name $group }}{{ end }}{{ end }}
  {{- if not $groups }} []{{ end }}
  {{- range $name := keys $groups | sortAlpha }}
  {{- $group := index $groups $name }}
  - groupName: {{ $name }}
    {{- /* No `replicas`: they are the autoscaler's. */}}
    minReplicas: {{ $group.minReplicas }}
    maxReplicas: {{ $group.maxReplicas }}
    {{- if not $scales }}
    replicas: {{ $group.minReplicas }}
    {{- end }}
    rayStartParams:
      {{- toYaml $group.rayStartParams | nindent 6 }}
    template:
      {{- include "pinloom.ray.pod" (dict "root" $root "kind" $kind "role" "worker" "part" $group) | nindent 6 }}
  {{- end }}
{{- end }}

{{- define "pinloom.ray.jobCluster" -}}
{{- $spec := include "pinloom.ray.cluster" (dict "root" . "kind" "jobs" "part" .Values.rayJob "idle" 60) | fromYaml -}}
{{- mergeOverwrite $spec .Values.rayJob.rayClusterSpec | toYaml }}
{{- end }}

{{/* The RayJob whose entrypoint and name the operator fills in. */}}
{{- define "pinloom.ray.job" -}}
{{- $spec := dict
  "submissionMode" .Values.rayJob.submissionMode
  "backoffLimit" 0
-}}
{{- if eq .Values.rayJob.mode "shared" }}
{{- $_ := set $spec "clusterSelector" (dict "ray.io/cluster" (printf "%s-jobs" (include "pinloom.fullname" .))) }}
{{- else }}
{{- $_ := set $spec "rayClusterSpec" (include "pinloom.ray.jobCluster" . | fromYaml) }}
{{- $_ := set $spec "shutdownAfterJobFinishes" true }}
{{- $_ := set $spec "ttlSecondsAfterFinished" (int .Values.rayJob.ttlSecondsAfterFinished) }}
{{- end }}
{{- with int .Values.rayJob.activeDeadlineSeconds }}{{ $_ := set $spec "activeDeadlineSeconds" . }}{{ end }}
{{- if eq .Values.rayJob.submissionMode "K8sJobMode" }}
{{- $_ := set $spec "submitterPodTemplate" (include "pinloom.ray.submitter" . | fromYaml) }}
{{- end }}
{{- mergeOverwrite $spec .Values.rayJob.spec | toYaml }}
{{- end }}

{{- define "pinloom.ray.submitter" -}}
metadata:
  labels:
    {{- include "pinloom.ray.labels" (list . "jobs") | nindent 4 }}
spec:
  restartPolicy: Never
  enableServiceLinks: false
  serviceAccountName: {{ include "pinloom.fullname" . }}-jobs
  automountServiceAccountToken: false
  {{- include "pinloom.imagePullSecrets" . | nindent 2 }}
  securityContext:
    {{- toYaml .Values.podSecurityContext | nindent 4 }}
  containers:
    - name: ray-job-submitter
      {{- include "pinloom.image" (list . "ray") | nindent 6 }}
      securityContext:
        {{- toYaml .Values.containerSecurityContext | nindent 8 }}
      env:
        - {name: HOME, value: /home/pinloom}
      resources:
        requests: {cpu: 50m, memory: 256Mi}
        limits: {memory: 512Mi}
      volumeMounts:
        - {name: home, mountPath: /home/pinloom}
        - {name: tmp, mountPath: /tmp}
  volumes:
    - name: home
      emptyDir: {}
    - name: tmp
      emptyDir: {}
{{- end }}
