{{/* A single-instance store for trials. (dict "root" . "name" "redis" "part" values "uid" 999 "port" 6379 "body" YAML of the container "volumes" YAML) */}}
{{- define "pinloom.store" -}}
{{- $root := .root -}}{{- $name := printf "%s-%s" (include "pinloom.fullname" $root) .name -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ $name }}
  labels:
    {{- include "pinloom.labels" (list $root .name) | nindent 4 }}
spec:
  selector:
    {{- include "pinloom.selector" (list $root .name) | nindent 4 }}
  ports:
    - {name: {{ .name }}, port: {{ .port }}, targetPort: {{ .name }}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: {{ $name }}
  labels:
    {{- include "pinloom.labels" (list $root .name) | nindent 4 }}
spec:
  replicas: 1
  serviceName: {{ $name }}
  selector:
    matchLabels:
      {{- include "pinloom.selector" (list $root .name) | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "pinloom.selector" (list $root .name) | nindent 8 }}
    spec:
      automountServiceAccountToken: false
      enableServiceLinks: false
      {{- include "pinloom.imagePullSecrets" $root | nindent 6 }}
      securityContext:
        {{- toYaml (merge (dict "runAsUser" .uid "runAsGroup" .uid "fsGroup" .uid) $root.Values.podSecurityContext) | nindent 8 }}
      containers:
        - name: {{ .name }}
          {{- include "pinloom.image" (list $root .name) | nindent 10 }}
          ports:
            - {name: {{ .name }}, containerPort: {{ .port }}}
          securityContext:
            {{- toYaml $root.Values.containerSecurityContext | nindent 12 }}
          resources:
            {{- toYaml .part.resources | nindent 12 }}
          {{- .body | nindent 10 }}
      volumes:
        - name: tmp
          emptyDir: {}
        {{- .volumes | nindent 8 }}
  volumeClaimTemplates:
    - metadata:
        name: data
      spec:
        accessModes: [ReadWriteOnce]
        {{- with .part.storageClass }}
        storageClassName: {{ . }}
        {{- end }}
        resources:
          requests:
            storage: {{ .part.size }}
{{- end }}
