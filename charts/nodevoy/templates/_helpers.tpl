{{/*
SPDX-License-Identifier: Apache-2.0
*/}}

{{- define "nodevoy.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "nodevoy.fullname" -}}
{{- $name := include "nodevoy.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "nodevoy.selectorLabels" -}}
app.kubernetes.io/name: {{ include "nodevoy.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "nodevoy.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "nodevoy.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: nodevoy
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "nodevoy.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "nodevoy.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.name is required when serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* An image's reference, of a map with repository, tag and digest, and a tag for want of one. */}}
{{- define "nodevoy.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default .tag }}
{{- end }}
{{- end }}

{{/* What every container of ours has in common. */}}
{{- define "nodevoy.containerSecurity" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
{{- end }}

{{/* A label selector, written as kubectl -l takes it. */}}
{{- define "nodevoy.selector" -}}
{{- $terms := list }}
{{- range $key, $value := .matchLabels }}
{{- $terms = append $terms (printf "%s=%s" $key $value) }}
{{- end }}
{{- range .matchExpressions }}
{{- if has .operator (list "Exists" "DoesNotExist") }}
{{- if .values }}
{{- fail (printf "namespaceSelector: %s %s takes no values" .key .operator) }}
{{- end }}
{{- $terms = append $terms (printf "%s%s" (eq .operator "Exists" | ternary "" "!") .key) }}
{{- else }}
{{- if not .values }}
{{- fail (printf "namespaceSelector: %s %s needs values" .key .operator) }}
{{- end }}
{{- $terms = append $terms (printf "%s %s (%s)" .key (eq .operator "In" | ternary "in" "notin") (join "," .values)) }}
{{- end }}
{{- end }}
{{- join "," $terms }}
{{- end }}

{{/* "true" when the agent serves metrics. */}}
{{- define "nodevoy.metrics" -}}
{{- with .Values.monitoring }}
{{- if or .enabled .podMonitor.enabled .serviceMonitor.enabled }}true{{ end }}
{{- end }}
{{- end }}

{{- define "nodevoy.testNamespace" -}}
{{- if .Values.test.namespace }}
{{- .Values.test.namespace }}
{{- else if has .Release.Namespace .Values.redirect.excludedNamespaces -}}
default
{{- else }}
{{- .Release.Namespace }}
{{- end }}
{{- end }}
